"""How many connections to one server are worth having, by what they bring. Pure: the clock comes from outside.

Additive increase, multiplicative decrease on goodput, the bytes that come from the server over all connections:

1. It begins with one. While those who want bytes wait for the network, it doubles every ``RAMP_S`` seconds, as long as
   a doubling brings at least half (``GAIN``) of what it should: then each connection has a bottleneck of its own.
2. After the first that does not it goes back, and tries one more now and then: after ``WINDOW_S`` seconds, and twice as
   late after each trial that brought nothing (``LONGEST_HOLD`` windows at most), so that a shared pipe is seldom tried.
3. A server that answers 429 or 503 halves it, and the number at which it did is not reached again for ``CEILING_S``.
4. A window begins when bytes come on that many connections: what it takes to open them is not held against them. It
   counts only when so many were busy all through it, and bytes were waited for; else a trial is taken back.
5. Blobs have a connection each, whatever the number is. When bytes came on more than that over a window, the mean is
   the number from then on: it was not refused, and what one blob leaves free may bring as much to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

RAMP_S: Final = 0.3
WINDOW_S: Final = 2.0
GAIN: Final = 0.5  # of the gain in proportion to the connections
LONGEST_HOLD: Final = 32  # windows between two trials, at most
CEILING_S: Final = 30.0
_WAITED: Final = 0.5  # of a window, so that the network is what is waited for


class ConnectionLimit:
    """The number of ``connections`` to one server.

    Args:
        clock: seconds, of any beginning.
        maximum: connections, at most.
    """

    def __init__(self, clock: Callable[[], float], maximum: int) -> None:
        self.connections = 1
        self.maximum = maximum
        self._clock = clock
        self._ceiling = maximum  # until then
        self._ceiling_until = 0.0
        self._ramp = True
        self._before: tuple[int, float] | None = None  # the number before the trial under way, and its goodput
        self._hold = 1  # windows until the next trial
        self._held = 0
        self._waited = 0.0
        self._begun = False  # the window
        self._flowed = 0.0  # connections, each times the seconds in which bytes came on it
        self._looked = clock()
        self._since, self._from = clock(), 0

    @property
    def ceiling(self) -> int:
        """Connections that the server has not refused lately."""
        return self.maximum if self._clock() >= self._ceiling_until else self._ceiling

    def waited(self, seconds: float) -> None:
        """Somebody who could have used bytes had none for so long."""
        self._waited += seconds

    def refused(self) -> None:
        """The server answered 429 or 503."""
        self._ceiling, self._ceiling_until = max(1, self.connections - 1), self._clock() + CEILING_S
        self.connections = max(1, self.connections // 2)
        self._ramp, self._before = False, None
        self._hold, self._held = 1, 0

    def update(self, busy: int, flowing: int, received: int) -> str:
        """Judge, when a window is over; call it often.

        Args:
            busy: connections in use now.
            flowing: those on which bytes come now.
            received: bytes that ever came from the server.
        Returns: why the number is another one now, if it is.
        """
        now = self._clock()
        elapsed = now - self._since
        reason = ""
        self._flowed += flowing * (now - self._looked)
        self._looked = now
        if not self._begun:
            self._begun = flowing >= self.connections
        elif busy >= self.connections:
            if elapsed < (RAMP_S if self._ramp else WINDOW_S):
                return ""
            self._begun = False
            if self._waited >= _WAITED * elapsed:
                reason = self._adopt(elapsed) or self._judge((received - self._from) / elapsed)
            elif self._before is not None:
                (self.connections, _), self._before = self._before, None
                reason = "not needed"
        self._since, self._from, self._waited, self._flowed = now, received, 0.0, 0.0
        return reason

    def _adopt(self, elapsed: float) -> str:
        """Take the number that was in use, when it is larger: a trial of fewer has told nothing."""
        number = min(int(self._flowed / elapsed), self.ceiling)
        if number <= self.connections:
            return ""
        self.connections, self._before = number, None
        return "in use"

    def _judge(self, goodput: float) -> str:
        reason = "trial"
        if self._before is not None:
            number, earlier = self._before
            self._before = None
            if goodput < earlier * (1 + GAIN * (self.connections / number - 1)):
                self.connections = number
                self._hold, self._held = 1 if self._ramp else min(self._hold * 2, LONGEST_HOLD), 0
                self._ramp = False
                return "no gain"
            self._hold = 1
            reason = "faster"
        self._held += 1
        if self._ramp or self._held >= self._hold:
            self._try(goodput)
        return reason

    def _try(self, goodput: float) -> None:
        more = min(self.connections * 2 if self._ramp else self.connections + 1, self.ceiling)
        self._held = 0
        if more > self.connections:
            self._before = (self.connections, goodput)
            self.connections = more
