"""Runs one async job to its end, or to the signal that stops it. Knows nothing of images."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import uvloop

from fastoci.cli import log
from fastoci.cli.progress.display import Display
from fastoci.cli.signals import Signals, Stopped
from fastoci.errors import FastociError

T = TypeVar("T")

_FILES: Final = 24  # open at once, for the event loop and a store; connections and blobs need more
_TICK_S: Final = 0.2  # five redraws a second: smooth enough, and 1 % of a core


def run(job: Coroutine[object, object, T], display: Display | None = None) -> T:
    """Run ``job`` under uvloop, while ``display`` shows it; the display is closed at the end.

    The first SIGINT, SIGTERM or SIGHUP cancels the job, which lets go of what it holds; more of them do not disturb it.

    Raises:
        Stopped: a signal came and the job did not end by itself.
        FastociError: too few files may be open for an event loop.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < _FILES:  # libuv aborts, or says nothing that anybody understands
        job.close()
        raise FastociError(f"only {most} files may be open, and {_FILES} are needed: raise the limit (`ulimit -n`)")
    tasks: list[asyncio.Task[Any]] = []

    def stop(_: int) -> None:
        for task in tasks:
            task.get_loop().call_soon_threadsafe(task.cancel)

    signals = Signals(stop, None if display is None else display.abandon)
    signals.catch()
    show = None if display is None else display.log
    try:
        with log.shown_by(show), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                return runner.run(_watch(job, display, tasks, signals))
            finally:
                if display is not None:
                    display.close()
    except BaseException:
        if signals.first is not None:
            raise Stopped(signals.first) from None
        raise
    finally:
        signals.release()


async def _watch(
    job: Coroutine[object, object, T], display: Display | None, tasks: list[asyncio.Task[Any]], signals: Signals
) -> T:
    task = asyncio.get_running_loop().create_task(job)
    tasks.append(task)
    if signals.first is not None:  # it came before there was a task to cancel
        task.cancel()
    while not task.done():
        await asyncio.wait([task], timeout=_TICK_S if display is not None else None)
        if display is not None:
            display.tick()
    return task.result()
