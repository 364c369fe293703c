"""A watchdog over event loops: one that does not yield for ``LIMIT_S`` of its own CPU time is interrupted.

It counts the CPU time of the loop's thread, so a loaded machine does not trip it. A thread beside the tests asks each
running loop for a sign of life; a loop that owes one for too long gets ``LoopBlockedError`` at the line where it is.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final

import uvloop

from support.sanitizers import SANITIZED

LIMIT_S: Final = 10.0 if SANITIZED else 1.0
_LOOK_S: Final = 0.1


class LoopBlockedError(BaseException):
    """The loop did not yield; not an ``Exception``, so that the code under test lets it pass."""


@dataclass(eq=False, slots=True)
class _Running:
    loop: asyncio.AbstractEventLoop
    thread: int
    clock: int
    asked_at: float | None = None  # by the thread's CPU clock; None: it owes no sign of life

    def alive(self) -> None:
        self.asked_at = None


class Watchdog:
    """Watches all loops of this process, once ``install`` was called."""

    def __init__(self) -> None:
        self.blocked: list[str] = []  # where loops were, since somebody last took them away
        self._running: list[_Running] = []
        self._lock = threading.Lock()  # held while a thread's clock is read: it must not end meanwhile

    def install(self) -> None:
        """Watch every loop from now on."""
        kinds: tuple[Any, ...] = (asyncio.BaseEventLoop, uvloop.Loop)
        for kind in kinds:
            kind.run_forever = self._watched(kind.run_forever)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _watched(self, run: Callable[[Any], None]) -> Callable[[Any], None]:
        @wraps(run)
        def run_forever(loop: asyncio.AbstractEventLoop) -> None:
            thread = threading.get_ident()
            running = _Running(loop, thread, time.pthread_getcpuclockid(thread))
            with self._lock:
                self._running.append(running)
            try:
                run(loop)
            finally:
                with self._lock:
                    self._running.remove(running)

        return run_forever

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            with self._lock:
                for running in self._running:
                    self._inspect(running)

    def _inspect(self, running: _Running) -> None:
        now = time.clock_gettime(running.clock)
        if running.asked_at is None:
            running.asked_at = now
            with suppress(RuntimeError):  # closed, by a loop that was interrupted on its way out
                running.loop.call_soon_threadsafe(running.alive)
        elif now - running.asked_at > LIMIT_S:
            running.asked_at = now  # it may be caught where it is; then it is interrupted again
            frame = sys._current_frames().get(running.thread)
            self.blocked.append("".join(traceback.format_stack(frame)[-12:]))
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(running.thread), ctypes.py_object(LoopBlockedError)
            )
