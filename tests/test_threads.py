"""Work on a store's threads ends early when nobody waits for it, and is undone by those who must."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from fastoci.threads import Threads, check


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads()
    yield made
    made.close()


class Endless:
    """Work that ends only when it is told to."""

    def __init__(self) -> None:
        self.begun = threading.Event()

    def __call__(self) -> None:
        while True:
            self.begun.set()
            check()


async def test_work_of_a_cancelled_task_ends_where_it_checks(threads: Threads) -> None:
    work = Endless()
    task = asyncio.create_task(threads.run(work))
    await asyncio.to_thread(work.begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_was_made_all_the_same_is_handed_over_to_be_undone(threads: Threads) -> None:
    started, go_on = threading.Event(), threading.Event()

    def make() -> str:
        started.set()
        go_on.wait()
        return "made"

    task = asyncio.create_task(threads.run_to_end(make))
    await asyncio.to_thread(started.wait)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    assert await task == ("made", True)


async def test_work_after_cancelled_work_is_not_told_to_end(threads: Threads) -> None:
    work = Endless()
    task = asyncio.create_task(threads.run(work))
    await asyncio.to_thread(work.begun.wait)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.gather(*(threads.run(check) for _ in range(8)))
    check()  # and here nobody can be told
