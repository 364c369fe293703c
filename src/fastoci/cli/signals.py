"""SIGINT, SIGTERM and SIGHUP: one clean end, whatever comes during it.

The first signal asks for the end. Whoever sends one often sends it twice (``timeout`` does: to the process and to its
group), so the following ones change nothing. A third, two seconds or more after the first, kills: somebody waits who
wants no more than an end.
"""

from __future__ import annotations

import atexit
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE_S: Final = 2.0  # of whoever waits for a clean end
_TICK_S: Final = 0.2  # how late a signal may be seen while stdin is read
_KILLS: Final = 3  # the signal that kills, when the patience is over


class Stopped(BaseException):
    """A signal ended the work, which cleaned up. Not an ``Exception``: nothing takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """Catches these signals from ``catch`` on. Belongs to the main thread.

    Args:
        stop: what the first signal does, between two bytecodes of the main thread; by default it raises ``Stopped``.
        abandon: called before a third one kills.
        reload: what SIGHUP does, which then asks for no end.
    """

    def __init__(
        self,
        stop: Callable[[int], None] | None = None,
        abandon: Callable[[], None] | None = None,
        reload: Callable[[], None] | None = None,
    ) -> None:
        self.first: int | None = None
        self._stop = stop or _raise
        self._abandon = abandon
        self._reload = reload
        self._came = 0
        self._first_at = 0.0
        self._before: dict[int, Any] = {}

    def catch(self, *, ignored: bool = True) -> None:
        """Catch them; ``ignored`` says whether also one that whoever started the program ignores.

        SIGHUP that is ignored stays so: ``nohup`` is for work that goes on without its terminal.
        """
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN or (ignored and number != signal.SIGHUP):
                self._before[number] = before
                signal.signal(number, self._handle)

    def release(self, handler: signal.Handlers | None = None) -> None:
        """Let others have them, unless one came: what follows it is of the same end.

        Args:
            handler: of all from now on; by default what there was before.
        """
        if self.first is None:
            for number, before in self._before.items():
                signal.signal(number, before if handler is None else handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP and self._reload is not None:
            if self.first is None:
                self._reload()
            return
        self._came += 1
        if self.first is None:
            self.first, self._first_at = number, time.monotonic()
            atexit.register(_ignore)
            self._stop(number)
        elif self._came >= _KILLS and time.monotonic() - self._first_at >= _PATIENCE_S:
            if self._abandon is not None:
                self._abandon()
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


@contextmanager
def seen_in_time() -> Iterator[None]:
    """See a signal while stdin is read, also one that came right before the read.

    Python notes a signal and runs its handler between two bytecodes. A read that begins in between ends by no signal
    that came before; so a timer interrupts it, again and again.
    """
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, _TICK_S, _TICK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _ignore() -> None:
    """Python gives the default handlers back before the process has its exit status."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _raise(number: int) -> None:
    raise Stopped(number)
