"""The suite of ``BlobStore`` over every store there is.

Covers: testing/memory_store.py, testing/suites/filling.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastoci.interfaces import BlobStore
from fastoci.limits import Level
from fastoci.testing.suites.blob_store import BlobStoreSuite
from support.stores import memory, on_disk


class TestStore(BlobStoreSuite):
    level: Level = "commit"

    @asynccontextmanager
    async def open(self, directory: Path) -> AsyncIterator[BlobStore]:
        async with on_disk(directory, self.level) as store:
            yield store


class TestStoreThatSyncsOnceAJob(TestStore):
    level: Level = "batch"


class TestStoreThatNeverSyncs(TestStore):
    level: Level = "none"


class TestMemoryStore(BlobStoreSuite):
    @asynccontextmanager
    async def open(self, directory: Path) -> AsyncIterator[BlobStore]:
        yield memory(directory)
