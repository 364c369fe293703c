"""The suite of ``StoreSession`` over every store there is.

Covers: store/session.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastoci.interfaces import BlobStore
from fastoci.limits import Level
from fastoci.testing.suites.store_session import StoreSessionSuite
from support.stores import memory, on_disk


class TestStore(StoreSessionSuite):
    level: Level = "commit"

    @asynccontextmanager
    async def open(self, directory: Path) -> AsyncIterator[BlobStore]:
        async with on_disk(directory, self.level) as store:
            yield store

    @asynccontextmanager
    async def open_small(self, directory: Path, size: int) -> AsyncIterator[BlobStore]:
        async with on_disk(directory, self.level, size=size) as store:
            yield store


class TestStoreThatSyncsOnceAJob(TestStore):
    level: Level = "batch"


class TestStoreThatNeverSyncs(TestStore):
    level: Level = "none"


class TestMemoryStore(StoreSessionSuite):
    @asynccontextmanager
    async def open(self, directory: Path) -> AsyncIterator[BlobStore]:
        yield memory(directory)

    @asynccontextmanager
    async def open_small(self, directory: Path, size: int) -> AsyncIterator[BlobStore]:
        yield memory(directory, size=size)
