"""Blobs of a store on their way out of it: by links, or by their bytes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from fastoci import files
from fastoci._core import Buffer
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import BlobStore, BufferSource
from fastoci.layouts.open_file import buffers_of
from fastoci.transfer.workers import WorkerPool


class StoredSource:
    """``BlobSource``, ``LinkableSource`` and ``FileSource`` over a store, which must keep the blobs meanwhile."""

    name = "store"

    def __init__(self, store: BlobStore, workers: WorkerPool) -> None:
        self._store = store
        self._workers = workers

    def open_linkable(self, blob: Descriptor) -> int:
        """The blob's file: ``LinkableSource.open_linkable``."""
        return self._store.open(blob)

    async def open_file(self, blob: Descriptor) -> int:
        """The same, on a thread: ``FileSource.open_file``."""
        return await self._workers.acquire(partial(self._store.open, blob), files.close)

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield the bytes from ``offset`` on: ``BlobSource.fetch``.

        Raises:
            BlobNotFoundError: the store lacks it. StoreError: the disk refused.
        """
        fd = await self.open_file(blob)
        try:
            given = buffers_of(fd, blob, offset, buffers, run=self._workers.run, path=str(blob.digest))
            async with aclosing(given) as arriving:
                async for buffer in arriving:
                    yield buffer
        finally:
            files.close(fd)
