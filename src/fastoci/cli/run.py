"""Runs one async job to its end, or to the signal that stops it. Knows nothing of images."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Final, TypeVar

import uvloop

from fastoci.cli import log
from fastoci.cli.errors import Stopped
from fastoci.cli.progress.display import Display

T = TypeVar("T")

_TICK_S: Final = 0.2  # five redraws a second: smooth enough, and 1 % of a core


def run(job: Coroutine[object, object, T], display: Display | None = None) -> T:
    """Run ``job`` under uvloop, while ``display`` shows it; the display is closed at the end.

    The first SIGINT or SIGTERM cancels the job, which lets go of what it holds; the second ends the process.

    Raises:
        Stopped: a signal came and the job did not end by itself.
    """
    caught: list[int] = []
    show = None if display is None else display.log
    with log.shown_by(show), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_watch(job, display, caught))
        except BaseException:
            if caught:
                raise Stopped(caught[0]) from None
            raise
        finally:
            if display is not None:
                display.close()


async def _watch(job: Coroutine[object, object, T], display: Display | None, caught: list[int]) -> T:
    loop = asyncio.get_running_loop()
    task = loop.create_task(job)

    def stop(number: int) -> None:
        caught.append(number)
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    while not task.done():
        await asyncio.wait([task], timeout=_TICK_S if display is not None else None)
        if display is not None:
            display.tick()
    return task.result()
