"""The suite of ``BlobSource`` over every source there is.

Covers: transfer/stored_source.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastoci.image.descriptor import Descriptor
from fastoci.image.reference import Reference
from fastoci.interfaces import BlobSource
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry as Client
from fastoci.registry.fetch.retry import RetryPolicy
from fastoci.testing.memory_store import Content, MemoryStore
from fastoci.testing.registry import Registry
from fastoci.testing.suites.blob_source import BlobSourceSuite
from fastoci.transfer.scheduler import BytesSource
from fastoci.transfer.stored_source import StoredSource
from fastoci.transfer.workers import WorkerPool


class TestRepository(BlobSourceSuite):
    @asynccontextmanager
    async def open(self, blobs: Mapping[Descriptor, bytes]) -> AsyncIterator[BlobSource]:
        async with (
            Registry() as registry,
            Client(credentials=Credentials(), retry=RetryPolicy(tries=1)) as client,
        ):
            for blob, data in blobs.items():
                registry.add_blob(str(blob.digest), data)
            yield client.repository(Reference.parse(f"{registry.address}/team/app:1"))


class TestStoredSource(BlobSourceSuite):
    @asynccontextmanager
    async def open(self, blobs: Mapping[Descriptor, bytes]) -> AsyncIterator[BlobSource]:
        content, workers = Content(), WorkerPool(1)
        content.blobs.update({blob.digest: data for blob, data in blobs.items()})
        try:
            yield StoredSource(MemoryStore(content), workers)
        finally:
            workers.close()


class TestBytesSource(BlobSourceSuite):
    one_blob = True

    @asynccontextmanager
    async def open(self, blobs: Mapping[Descriptor, bytes]) -> AsyncIterator[BlobSource]:
        yield BytesSource(*blobs.values())
