"""A blob source that is asked once for each blob that is read several times: what came is kept in an unnamed file.

Spec: docs/inspect.md.
"""

from __future__ import annotations

import io
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Self

from fastoci import files
from fastoci._core import Buffer
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import BlobSource, BufferSource
from fastoci.layouts.open_file import buffers_of
from fastoci.transfer.workers import WorkerPool


class Spool:
    """What is kept of blobs for one job, whatever source they came from. A context manager.

    Args:
        temporary: makes an unnamed file, on a thread.
    """

    def __init__(self, workers: WorkerPool, temporary: Callable[[], io.FileIO]) -> None:
        self.workers = workers
        self.temporary = temporary
        self.kept: dict[Digest, io.FileIO] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        while self.kept:
            self.kept.popitem()[1].close()


class SpooledSource:
    """A ``BlobSource`` over another, for what is not kept yet. Nothing is verified, the second time neither."""

    def __init__(self, source: BlobSource, spool: Spool) -> None:
        self.name = source.name
        self._source = source
        self._spool = spool

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield the blob's bytes from ``offset`` on: ``BlobSource.fetch``.

        Raises:
            StoreError: they cannot be kept. FastociError: as the source.
        """
        kept = self._spool.kept.get(blob.digest)
        if kept is not None:
            run, path = self._spool.workers.run, str(blob.digest)
            given = buffers_of(kept.fileno(), blob, offset, buffers, run=run, path=path)
        elif offset:
            given = self._source.fetch(blob, offset, buffers)
        else:
            given = self._keeping(blob, buffers)
        async with aclosing(given) as arriving:
            async for buffer in arriving:
                yield buffer

    async def _keeping(self, blob: Descriptor, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """The blob as it comes; it is kept when all of it came."""
        file = await self._spool.workers.acquire(self._spool.temporary, io.FileIO.close)
        size = 0
        try:
            async with aclosing(self._source.fetch(blob, 0, buffers)) as arriving:
                async for buffer in arriving:
                    try:
                        await self._spool.workers.run(partial(_write, file, buffer, size))
                    except BaseException:
                        buffer.release()
                        raise
                    size += len(buffer)
                    yield buffer
        except BaseException:
            file.close()
            raise
        if size == blob.size and blob.digest not in self._spool.kept:
            self._spool.kept[blob.digest] = file
        else:
            file.close()


def _write(file: io.FileIO, buffer: Buffer, offset: int) -> None:
    with files.translated("keep a layer in", os.readlink(f"/proc/self/fd/{file.fileno()}"), wanted=len(buffer)):
        if (code := buffer.pwrite(file.fileno(), offset)) < 0:
            raise OSError(-code, os.strerror(-code))
