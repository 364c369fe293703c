"""The stores that the suites are run on, by directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastoci.limits import Level, Limits
from fastoci.store.store import Store
from fastoci.testing.memory_store import Content, MemoryStore

_CONTENTS: dict[Path, Content] = {}


@asynccontextmanager
async def on_disk(directory: Path, level: Level = "commit", *, size: int = 0) -> AsyncIterator[Store]:
    """A store in a directory."""
    store = Store.at(directory, limits=Limits(durability=level, store_size=size))
    try:
        yield store
    finally:
        store.close()


def memory(directory: Path, *, size: int | None = None) -> MemoryStore:
    """The store in memory that this directory stands for."""
    return MemoryStore(_CONTENTS.setdefault(directory, Content(size)))
