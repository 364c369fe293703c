"""The watchdog over event loops that ``conftest`` lets loose on all tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine

import pytest
import uvloop

from support.loop_watchdog import LIMIT_S, LoopBlockedError, Watchdog

uvloop.new_event_loop().close()  # opens a pipe for the life of the process, which is no test's leak


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[None, None, None]], None]:
    """Run a coroutine on a loop of each kind."""

    def runner(work: Coroutine[None, None, None]) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(work)

    return runner


async def at_once() -> None:
    """What can be awaited without a yield."""


async def spin() -> None:
    while True:
        await at_once()


async def wait() -> None:
    time.sleep(1.3 * LIMIT_S)  # noqa: ASYNC251 - as on a loaded machine: the loop stands, and has no CPU time
    until = time.thread_time() + 1.3 * LIMIT_S
    while time.thread_time() < until:  # noqa: ASYNC110 - it waits for nothing, and is busy
        await asyncio.sleep(0)


def test_a_loop_that_does_not_yield_is_interrupted_where_it_is(
    run: Callable[[Coroutine[None, None, None]], None], watchdog: Watchdog
) -> None:
    with pytest.raises(LoopBlockedError):
        run(spin())
    found, watchdog.blocked = watchdog.blocked, []
    assert found
    assert "in spin" in found[0]


def test_a_loop_that_stands_or_is_busy_but_yields_is_left_alone(
    run: Callable[[Coroutine[None, None, None]], None], watchdog: Watchdog
) -> None:
    run(wait())
    assert not watchdog.blocked
