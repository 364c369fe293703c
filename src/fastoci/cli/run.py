"""Runs one async job to its end, or to the signal that stops it. Knows nothing of images."""

from __future__ import annotations

import asyncio
import functools
import resource
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final, Protocol, TypeVar

import uvloop

from fastoci.cli import log
from fastoci.cli.progress.display import Display
from fastoci.cli.signals import Signals, Stopped
from fastoci.errors import FastociError

T = TypeVar("T")

_FILES: Final = 24  # open at once, for the event loop and a store; connections and blobs need more
_TICK_S: Final = 0.2  # five redraws a second: smooth enough, and 1 % of a core


class Service(Protocol):
    """A job without an end of its own: signals tell it what to do. Called on its event loop."""

    def reload(self) -> None:
        """SIGHUP came."""

    def stop(self) -> bool:
        """A signal asks for the end; whether the job ends by itself, and need not be cancelled."""


def run(job: Coroutine[object, object, T], display: Display | None = None, *, service: Service | None = None) -> T:
    """Run ``job`` under uvloop, while ``display`` shows it; the display is closed at the end.

    The first SIGINT, SIGTERM or SIGHUP cancels the job, which lets go of what it holds; more of them do not disturb it.

    Args:
        service: what ``job`` does: it hears of signals first, and lets the display draw when there is something.
    Raises:
        Stopped: a signal came and the job did not end by itself.
        FastociError: too few files may be open for an event loop.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < _FILES:  # libuv aborts, or says nothing that anybody understands
        job.close()
        raise FastociError(f"only {most} files may be open, and {_FILES} are needed: raise the limit (`ulimit -n`)")
    tasks: list[asyncio.Task[Any]] = []

    signals = _signals(tasks, display, service)
    signals.catch()
    show = None if display is None else display.log
    try:
        with log.shown_by(show), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                return runner.run(_watch(job, None if service is not None else display, tasks, signals))
            finally:
                if display is not None:
                    display.close()
    except BaseException:
        if signals.first is not None:
            raise Stopped(signals.first) from None
        raise
    finally:
        signals.release()


def _signals(tasks: Sequence[asyncio.Task[Any]], display: Display | None, service: Service | None) -> Signals:
    """What signals do to the tasks that there are when they come."""

    def end(task: asyncio.Task[Any]) -> None:
        if service is None or not service.stop():
            task.cancel()

    def stop(_: int) -> None:
        for task in tasks:
            task.get_loop().call_soon_threadsafe(end, task)

    def reload(service: Service) -> None:
        for task in tasks:
            task.get_loop().call_soon_threadsafe(service.reload)

    return Signals(
        stop,
        None if display is None else display.abandon,
        None if service is None else functools.partial(reload, service),
    )


async def _watch(
    job: Coroutine[object, object, T], display: Display | None, tasks: list[asyncio.Task[Any]], signals: Signals
) -> T:
    task = asyncio.get_running_loop().create_task(job)
    tasks.append(task)
    if signals.first is not None:  # it came before there was a task to cancel
        task.cancel()
    with nullcontext() if display is None else ticking(display.tick):
        return await task


@contextmanager
def ticking(tick: Callable[[], None], interval_s: float = _TICK_S) -> Iterator[None]:
    """Call ``tick`` on the event loop again and again meanwhile: never when the loop is stuck."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def again() -> None:
        nonlocal timer
        timer = loop.call_later(interval_s, again)
        tick()

    timer = loop.call_later(interval_s, again)
    try:
        yield
    finally:
        timer.cancel()
