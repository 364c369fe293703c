"""When ``index.json`` is brought up to date after pulls that run beside each other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from fastoci.errors import StoreError
from fastoci.store.index_updates import IndexUpdates
from fastoci.store.store import Store


class Slow:
    """Updates the index of a store, but only when it is let; each attempt is counted."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.begun, self.may = asyncio.Event(), asyncio.Event()
        self.tries = 0
        self.error: StoreError | None = None

    async def update_index(self) -> None:
        self.tries += 1
        self.begun.set()
        await self.may.wait()
        if self.error is not None:
            raise self.error
        await self.store.update_index()


def slow(path: Path) -> tuple[Slow, IndexUpdates]:
    store = Slow(Store.at(path))
    return store, IndexUpdates(cast(Store, store))


async def pull(updates: IndexUpdates, error: BaseException | None = None, until: asyncio.Event | None = None) -> None:
    async with updates.after():
        if until is not None:
            await until.wait()
        if error is not None:
            raise error


async def test_what_is_recorded_during_an_update_is_in_the_next_also_when_the_last_pull_fails(tmp_path: Path) -> None:
    store, updates = slow(tmp_path)
    first = asyncio.create_task(pull(updates))
    await store.begun.wait()  # it has read the names already
    late = asyncio.Event()
    last = asyncio.create_task(pull(updates, RuntimeError("no"), late))
    await asyncio.sleep(0)
    await pull(updates)  # recorded beside the update and the last one
    store.may.set()
    await first
    assert store.tries == 1
    late.set()
    with pytest.raises(RuntimeError, match="no"):
        await last
    assert store.tries == 2
    store.store.close()


async def test_after_an_update_that_fails_the_next_pull_tries_again(tmp_path: Path) -> None:
    store, updates = slow(tmp_path)
    store.may.set()
    store.error = StoreError("full", path=str(tmp_path))
    with pytest.raises(StoreError, match="full"):
        await pull(updates)
    store.error = None
    with pytest.raises(RuntimeError, match="no"):
        await pull(updates, RuntimeError("no"))
    assert store.tries == 2
    assert (tmp_path / "index.json").is_file()
    store.store.close()
