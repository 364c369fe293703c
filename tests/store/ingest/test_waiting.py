"""Waiting for a digest that somebody else holds: seen as it goes, ended by its end, and holding nothing meanwhile."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from fastoci.aio import wait_to_end as really_wait_to_end
from fastoci.errors import StoreBusyError, StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.limits import Limits
from fastoci.store.store import Store
from support.scratch import SOURCE
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


_HOLD = """
import asyncio, sys
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.store.store import Store

async def main():
    store = Store.at(sys.argv[1])
    ingest = await store.blobs.begin(Descriptor("a/b", Digest.parse(sys.argv[2]), int(sys.argv[3])))
    print("held", flush=True)
    sys.stdin.read()
    await ingest.abort()
    store.close()

asyncio.run(main())
"""


@contextmanager
def stopped_holder(path: Path, blob: Descriptor) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a digest, and is stopped, until it goes on at the end."""
    command = [sys.executable, "-c", _HOLD, str(path), str(blob.digest), str(blob.size)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGSTOP)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)


async def test_a_holder_that_is_stopped_is_named_and_keeps_its_lock(tmp_path: Path) -> None:
    store = Store.at(tmp_path, limits=Limits(holder_s=0.2))
    blob = Descriptor("a/b", Digest.of(b"content"), 7)
    with stopped_holder(tmp_path, blob) as process:
        async with asyncio.timeout(20):
            with pytest.raises(StoreBusyError) as caught:
                await store.blobs.wait(blob, lambda offset: None)
        assert caught.value.pids == (process.pid,)
        text = f"process {process.pid} fetches {blob.digest}, and made no progress for 0.2 s"
        assert str(caught.value).startswith(text)
        with pytest.raises(StoreBusyError):
            await store.blobs.begin(blob)
    assert process.returncode == 0
    ingest = await store.blobs.begin(blob)
    assert ingest is not None
    await ingest.abort()
    store.close()


async def test_a_holder_that_makes_progress_is_waited_for_longer_than_one_that_does_not(
    tmp_path: Path, open_shelf: OpenShelf
) -> None:
    holder_s = 0.5
    other = open_shelf(tmp_path)
    store = Store.at(tmp_path, limits=Limits(holder_s=holder_s))
    data = other.random(1000)
    ingest = await other.begin(other.describe(data))
    assert ingest is not None
    began = time.monotonic()
    waiter = asyncio.create_task(store.blobs.wait(ingest.blob, lambda offset: None))
    verifier = None
    for until in range(100, 1001, 100):
        verifier = other.feed(ingest, data, until=until, verifier=verifier)
        await asyncio.sleep(holder_s / 4)
    assert time.monotonic() - began > 2 * holder_s
    assert verifier is not None
    await ingest.commit(verifier.proof())
    assert await waiter
    store.close()


async def test_what_an_observer_of_one_wait_raises_is_that_one_s(shelf: Shelf, open_shelf: OpenShelf) -> None:
    other = open_shelf(shelf.path)
    ingest = await other.begin(shelf.describe(b"content"))
    assert ingest is not None

    def refuse(offset: int) -> None:
        raise KeyError(offset)

    bad = asyncio.create_task(shelf.store.blobs.wait(ingest.blob, refuse))
    good = asyncio.create_task(shelf.store.blobs.wait(ingest.blob, lambda offset: None))
    async with asyncio.timeout(20):
        with pytest.raises(KeyError):
            await bad
        await ingest.abort()
        assert await good is False


async def test_waits_end_with_a_poller_that_somebody_cancels_and_the_next_has_another(shelf: Shelf) -> None:
    for begun in (False, True):
        ingest = await shelf.begin(shelf.describe(b"content"))
        assert ingest is not None
        waiter = asyncio.create_task(shelf.store.blobs.wait(ingest.blob, lambda offset: None))
        await asyncio.sleep(0)
        (poller,) = asyncio.all_tasks() - {waiter, asyncio.current_task()}
        if begun:
            await asyncio.sleep(0)
        poller.cancel()
        done, _ = await asyncio.wait([waiter], timeout=20)  # and no timeout that cancels the waiter itself
        assert waiter in done and waiter.cancelled()
        again = asyncio.create_task(shelf.store.blobs.wait(ingest.blob, lambda offset: None))
        await asyncio.sleep(0)
        await ingest.abort()
        async with asyncio.timeout(20):
            assert await again is False


async def test_who_begins_to_wait_as_the_last_one_ends_is_waited_for_by_another_poller(shelf: Shelf) -> None:
    ingest = await shelf.begin(shelf.describe(b"content"))
    assert ingest is not None
    last = asyncio.create_task(shelf.store.blobs.wait(ingest.blob, lambda offset: None))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # its poller has begun
    last.cancel()  # it lets go of the poller, which hears of it after the next one came
    first = asyncio.create_task(shelf.store.blobs.wait(ingest.blob, lambda offset: None))
    with pytest.raises(asyncio.CancelledError):
        await last
    assert not first.done()
    await ingest.abort()
    async with asyncio.timeout(20):
        assert await first is False
