"""Blobs of a store on their way out of it: by links, or by their bytes."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from functools import partial

from fastoci import files
from fastoci._core import Buffer
from fastoci.errors import StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import BlobStore, BufferSource
from fastoci.transfer.workers import WorkerPool


class StoredSource:
    """``BlobSource`` and ``LinkableSource`` over a store, which must keep the blobs meanwhile."""

    name = "store"

    def __init__(self, store: BlobStore, workers: WorkerPool) -> None:
        self._store = store
        self._workers = workers

    def open(self, blob: Descriptor) -> int:
        """The blob's file: ``LinkableSource.open``."""
        return self._store.open(blob)

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield the bytes from ``offset`` on: ``BlobSource.fetch``.

        Raises:
            BlobNotFoundError: the store lacks it. StoreError: the disk refused.
        """
        fd = await self._workers.acquire(partial(self._store.open, blob), files.close)
        try:
            while offset < blob.size:
                buffer = await buffers.take()
                read: Callable[[], int] = partial(buffer.pread, fd, offset)
                try:
                    count = await self._workers.run(read)
                    if count <= 0:
                        text = f"cannot read {blob.digest} of the store: {os.strerror(-count)}"
                        raise StoreError(text, path=str(blob.digest))
                except BaseException:
                    buffer.release()
                    raise
                offset += count
                yield buffer
        finally:
            files.close(fd)
