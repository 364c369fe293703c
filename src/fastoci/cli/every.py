"""Runs a job again and again: ``--every``. Knows when, and what signals and a service manager want; not what is run.

Numbered rules:
1. Runs are counted from start to start, and never two at a time: one that takes longer is followed at once.
2. Each run, the first too, is delayed by a random part of the splay: nodes that boot together do not ask together.
3. Time goes on while the machine sleeps. A run that is due at the end of a sleep is delayed anew.
4. A run that fails is told, and the next one comes. Only the first run ends it all, by what no waiting repairs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from typing import Final

from fastoci.cli import errors
from fastoci.cli.progress.display import Display
from fastoci.cli.report import Report
from fastoci.cli.run import run, ticking
from fastoci.cli.systemd import ServiceManager

_LOG: Final = logging.getLogger(__name__)
_LOOK_S: Final = 30.0  # between two looks at the clock: timers stop while the machine sleeps


class Timetable:
    """When runs begin: in windows of ``splay_s`` seconds, each ``every_s`` behind the one before.

    Args:
        now: the beginning of the first window.
    """

    def __init__(self, every_s: float, splay_s: float, *, now: float, rng: random.Random | None = None) -> None:
        self._every_s = every_s
        self._splay_s = splay_s
        self._rng = rng or random.Random()
        self._window = now  # of the next run
        self._began: float | None = None

    def next(self, now: float) -> float:
        """When the next run begins, after the end of one or at first."""
        if self._began is not None and now - self._began >= self._every_s:
            self._window = now
            return now
        return max(now, self._window + self._delay_s())

    def woke(self, now: float) -> float:
        """When the next run begins that was due while the machine slept."""
        self._window = now
        return now + self._delay_s()

    def began(self, now: float, *, asked: bool) -> None:
        """A run begins, in its window or because somebody asked for it."""
        self._began = now
        self._window = (now if asked else self._window) + self._every_s

    def _delay_s(self) -> float:
        return self._rng.uniform(0, self._splay_s)


def boottime() -> float:
    """Seconds since the boot, those of sleep with them; no jump of the clock on the wall changes it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Every:
    """Runs a job again and again, until it is asked to end.

    Args:
        once: one run, which makes all it needs anew: connections, and what it reads in files. Gives its exit code, and
            what became of it in a few words that are ours.
        display: shows one run after the other.
        told: tells what became of each.
        clock: goes on while the machine sleeps.
    """

    def __init__(
        self,
        once: Callable[[], Awaitable[tuple[int, str]]],
        timetable: Timetable,
        *,
        display: Display,
        told: Report,
        manager: ServiceManager,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._once = once
        self._timetable = timetable
        self._display = display
        self._told = told
        self._manager = manager
        self._clock = clock
        self._wake = asyncio.Event()
        self._asked = False  # for a run, now
        self._ended = False
        self._running = False
        self._is_first = True

    def reload(self) -> None:
        """Run now, or once more at once when a run is under way: lists may have changed since it read them."""
        self._manager.reloading()
        self._asked = True
        self._wake.set()

    def stop(self) -> bool:
        """End; False when a run is under way, which has to be cancelled."""
        self._manager.stopping()
        self._ended = True
        self._wake.set()
        return not self._running

    async def run(self) -> int:
        """Run until ``stop``; the exit code.

        Raises:
            Exception: of the first run, which will never succeed as it is.
        """
        interval_s = self._manager.keepalive_s
        with nullcontext() if interval_s is None else ticking(self._manager.keepalive, interval_s):
            status = "the first run is to come"
            while await self._wait(status):
                self._timetable.began(self._clock(), asked=self._asked)
                self._asked = False
                self._wake.clear()
                status = await self._run_once()
        return 0

    async def _wait(self, status: str) -> bool:
        """Wait for the next run; whether there is one."""
        begin = self._timetable.next(self._clock())
        self._say(status, begin)
        while not self._ended and not self._asked:
            left_s = begin - self._clock()
            if left_s < -_LOOK_S:
                begin = self._timetable.woke(self._clock())
            elif left_s <= 0:
                break
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), min(left_s, _LOOK_S))
        return not self._ended

    def _say(self, status: str, begin: float) -> None:
        """Tell the log and the service manager what is and what comes; the latter that all is well after a run."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + begin - self._clock()))
        text = f"{status}; next run at {at}"
        _LOG.info("%s", text)
        if self._is_first or self._asked:
            self._manager.status(text)
        else:
            self._manager.ready(text)

    async def _run_once(self) -> str:
        """Do one run; what became of it."""
        self._manager.status("a run is under way")
        self._display.restart()
        self._running = True
        try:
            with ticking(self._display.tick):
                code, text = await self._once()
        except Exception as error:
            if self._is_first and not getattr(error, "retryable", False):
                raise
            self._told.fail(error)
            code, text = errors.code(error), "the run failed"
        finally:
            self._running = False
            self._display.close()
        self._is_first = False
        self._told.end(code)
        return text


def keep(
    once: Callable[[], Awaitable[tuple[int, str]]], every_s: float, splay_s: float, *, display: Display, told: Report
) -> int:
    """Do ``once`` each ``every_s`` seconds, delayed by up to ``splay_s``, until a signal ends it; the exit code.

    Raises:
        Stopped: the signal came while a run was under way.
        Exception: of the first run, which will never succeed as it is.
    """
    timetable, manager = Timetable(every_s, splay_s, now=boottime()), ServiceManager(os.environ)
    every = Every(once, timetable, display=display, told=told, manager=manager)
    return run(every.run(), display, service=every)
