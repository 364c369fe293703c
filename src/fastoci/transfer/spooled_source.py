"""A blob source that is asked once for each blob that is read several times: what came is kept in an unnamed file.

Spec: docs/inspect.md.
"""

from __future__ import annotations

import io
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial

from fastoci import files
from fastoci._core import Buffer
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import BlobSource, BufferSource
from fastoci.layouts.open_file import buffers_of
from fastoci.transfer.workers import WorkerPool


class SpooledSource:
    """A ``BlobSource`` over another. Nothing is verified, the second time neither.

    Args:
        temporary: makes an unnamed file, on a thread.
    """

    def __init__(self, source: BlobSource, workers: WorkerPool, temporary: Callable[[], io.FileIO]) -> None:
        self.name = source.name
        self._source = source
        self._workers = workers
        self._temporary = temporary
        self._kept: dict[Digest, io.FileIO] = {}

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield the blob's bytes from ``offset`` on: ``BlobSource.fetch``.

        Raises:
            StoreError: they cannot be kept. FastociError: as the source.
        """
        kept = self._kept.get(blob.digest)
        if kept is not None:
            run, path = self._workers.run, str(blob.digest)
            given = buffers_of(kept.fileno(), blob, offset, buffers, run=run, path=path)
        elif offset:
            given = self._source.fetch(blob, offset, buffers)
        else:
            given = self._keeping(blob, buffers)
        async with aclosing(given) as arriving:
            async for buffer in arriving:
                yield buffer

    def close(self) -> None:
        """Let go of what is kept."""
        while self._kept:
            self._kept.popitem()[1].close()

    async def _keeping(self, blob: Descriptor, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """The blob as it comes; it is kept when all of it came."""
        file = await self._workers.acquire(self._temporary, io.FileIO.close)
        size = 0
        try:
            async with aclosing(self._source.fetch(blob, 0, buffers)) as arriving:
                async for buffer in arriving:
                    try:
                        await self._workers.run(partial(_write, file, buffer, size))
                    except BaseException:
                        buffer.release()
                        raise
                    size += len(buffer)
                    yield buffer
        except BaseException:
            file.close()
            raise
        if size == blob.size and blob.digest not in self._kept:
            self._kept[blob.digest] = file
        else:
            file.close()


def _write(file: io.FileIO, buffer: Buffer, offset: int) -> None:
    with files.translated("keep a layer in", os.readlink(f"/proc/self/fd/{file.fileno()}"), wanted=len(buffer)):
        if (code := buffer.pwrite(file.fileno(), offset)) < 0:
            raise OSError(-code, os.strerror(-code))
