"""Waits that outlive a cancellation: nothing that a thread made is lost, and the first error is raised."""

from __future__ import annotations

import asyncio
import time

import pytest

from fastoci.aio import all_or_first, wait_to_end, when_free
from fastoci.errors import DigestMismatchError, StoreBusyError, TruncatedError


async def test_a_wait_to_the_end_says_the_result_and_that_the_task_was_cancelled_meanwhile() -> None:
    work: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stopped: list[str] = []
    task = asyncio.create_task(wait_to_end(work, stop=lambda: stopped.append("stop")))
    for times in (1, 2):
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        assert stopped == ["stop"] * times
    work.set_result("made")
    assert await task == ("made", True)


async def test_a_wait_that_nobody_cancels_gives_the_result_or_the_exception() -> None:
    async def fail() -> None:
        raise TruncatedError("cut", url="test", received=1)

    assert await wait_to_end(asyncio.sleep(0, "slept")) == ("slept", False)
    with pytest.raises(TruncatedError):
        await wait_to_end(fail())


async def test_work_that_fails_for_a_cancelled_task_leaves_nothing_to_undo() -> None:
    work: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(wait_to_end(work))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    work.set_exception(TruncatedError("cut", url="test", received=1))
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert isinstance(caught.value.__cause__, TruncatedError)


async def test_work_that_a_lock_refuses_is_tried_until_it_is_done() -> None:
    refusals = [StoreBusyError("held", path="/lock")] * 3

    async def work() -> str:
        if refusals:
            raise refusals.pop()
        return "done"

    assert await when_free(work, within_s=60) == "done"
    assert not refusals


async def test_work_that_a_lock_refuses_all_the_time_ends_with_the_refusal() -> None:
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        raise StoreBusyError("held", path="/lock")

    begun = time.monotonic()
    with pytest.raises(StoreBusyError):
        await when_free(work, within_s=0.2)
    assert time.monotonic() - begun > 0.2
    assert tries > 1


async def test_a_cancellation_is_not_lost_whenever_it_comes() -> None:
    for steps in range(12):
        tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(3)]
        waiting = asyncio.create_task(all_or_first(tasks))
        for _ in range(steps):
            await asyncio.sleep(0)
        accepted = waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled() == accepted


async def test_the_first_failure_ends_the_other_tasks_and_is_raised() -> None:
    async def fail() -> None:
        raise TruncatedError("cut", url="test", received=1)

    ended: list[str] = []

    async def tidy() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("tidied")

    tasks = [asyncio.create_task(tidy()), asyncio.create_task(fail())]
    with pytest.raises(TruncatedError):
        await all_or_first(tasks)
    assert ended == ["tidied"]
    assert all(task.done() for task in tasks)


async def test_of_several_failures_wrong_bytes_are_raised_first() -> None:
    async def fail(error: Exception) -> None:
        raise error

    wrong = DigestMismatchError("wrong", subject="a blob", expected="a", actual="b")
    errors = [TruncatedError("cut", url="test", received=1), wrong]
    with pytest.raises(DigestMismatchError):
        await all_or_first([asyncio.create_task(fail(error)) for error in errors])


async def test_tasks_that_all_end_well_raise_nothing() -> None:
    await all_or_first([asyncio.create_task(asyncio.sleep(0)) for _ in range(3)])


async def test_of_several_tasks_one_that_is_cancelled_ends_those_that_wait_for_what_it_does() -> None:
    done = asyncio.Event()
    tasks = [asyncio.create_task(done.wait()), asyncio.create_task(asyncio.sleep(20))]
    await asyncio.sleep(0)
    tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10):  # inside, since what it cancels is a cancellation too
            await all_or_first(tasks)
    assert all(task.cancelled() for task in tasks)


async def test_several_tasks_are_waited_for_in_time_that_grows_with_their_number_alone() -> None:
    tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(20_000)]
    async with asyncio.timeout(60):
        await all_or_first(tasks)
    await all_or_first([])
