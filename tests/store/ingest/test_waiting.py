"""Waiting for a digest that somebody else holds: seen as it goes, ended by its end, and holding nothing meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from fastoci.aio import wait_to_end as really_wait_to_end
from fastoci.errors import StoreBusyError, StoreError
from support.store_shelf import Shelf

OpenShelf = Callable[[Path], Shelf]
T = TypeVar("T")


async def test_a_held_digest_is_refused_and_free_once_it_is_let_go(shelf: Shelf, open_shelf: OpenShelf) -> None:
    other = open_shelf(shelf.path)
    blob = shelf.describe(b"content")
    ingest = await other.store.blobs.begin(blob)
    assert ingest is not None
    with pytest.raises(StoreBusyError) as caught:
        await shelf.store.blobs.begin(blob)
    assert caught.value.retryable
    waiter = asyncio.create_task(shelf.store.blobs.wait(blob, lambda offset: None))
    await ingest.abort()
    assert not await waiter
    again = await shelf.store.blobs.begin(blob)
    assert again is not None
    await again.abort()


async def test_a_wait_tells_how_far_the_other_is_and_ends_with_the_blob(shelf: Shelf, open_shelf: OpenShelf) -> None:
    other = open_shelf(shelf.path)
    data = shelf.random(3_000_000)
    blob = shelf.describe(data)
    ingest = await other.store.blobs.begin(blob)
    assert ingest is not None
    told: list[int] = []
    came = asyncio.Event()

    def progressed(offset: int) -> None:
        told.append(offset)
        came.set()

    waiter = asyncio.create_task(shelf.store.blobs.wait(blob, progressed))
    verifier = None
    for until in (1_000_000, 2_000_000, 3_000_000):
        verifier = other.feed(ingest, data, until=until, verifier=verifier)
        while until not in told:
            came.clear()
            await came.wait()
    assert verifier is not None
    await ingest.commit(verifier.proof())
    assert await waiter
    assert told == sorted(set(told))


async def test_a_disk_that_does_not_tell_ends_the_wait_with_its_error(shelf: Shelf) -> None:
    blob = shelf.describe(b"content")
    shelf.ingest(blob).mkdir()
    (shelf.ingest(blob) / "lock").symlink_to("/nonexistent")
    with pytest.raises(StoreError):
        await shelf.store.blobs.wait(blob, lambda offset: None)


async def test_a_wait_that_is_cancelled_while_its_poller_ends_is_cancelled(
    shelf: Shelf, open_shelf: OpenShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = await shelf.put(b"content")
    tasks: list[asyncio.Task[bool]] = []

    async def wait(work: Awaitable[T]) -> tuple[T, bool]:
        tasks[0].cancel()  # arrives at the next await, which is inside
        return await really_wait_to_end(work)

    monkeypatch.setattr("fastoci.store.ingest.waiting.wait_to_end", wait)
    tasks.append(asyncio.create_task(shelf.store.blobs.wait(blob, lambda offset: None)))
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]


async def test_no_task_is_left_when_the_last_has_stopped_waiting(shelf: Shelf) -> None:
    ingest = await shelf.begin(shelf.describe(b"content"))
    assert ingest is not None
    for _ in range(20):
        waiter = asyncio.create_task(shelf.store.blobs.wait(ingest.blob, lambda offset: None))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert asyncio.all_tasks() == {asyncio.current_task()}
    await ingest.abort()


async def test_a_holder_that_deletes_its_data_before_its_lock_is_not_told_as_progress(
    shelf: Shelf, open_shelf: OpenShelf
) -> None:
    other = open_shelf(shelf.path)
    data = shelf.random(1000)
    ingest = await other.begin(shelf.describe(data))
    assert ingest is not None
    other.feed(ingest, data, until=400)
    told: list[int] = []
    came = asyncio.Event()

    def progressed(offset: int) -> None:
        told.append(offset)
        came.set()

    waiter = asyncio.create_task(shelf.store.blobs.wait(ingest.blob, progressed))
    await came.wait()
    (other.ingest(ingest.blob) / "data").unlink()
    await asyncio.sleep(0.3)  # some polls
    assert told == [400] and not waiter.done()
    await ingest.abort(discard=True)
    assert await waiter is False
