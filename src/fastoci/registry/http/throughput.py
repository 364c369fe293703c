"""When a body is too slow: judged by throughput, so that a byte now and then does not pass for life. Pure.

Rules:
1. Only time in which somebody waits for bytes counts: a busy reader is not the sender's fault.
2. Below ``CRAWL`` bytes a second over ``FLOOR_S`` seconds a body is stalled, whatever others do.
3. Below ``FLOOR`` bytes a second over ``FLOOR_S`` seconds, or below a quarter (``PEERS``) of the median of the same
   server's bodies over ``PEERS_S`` seconds, it is starved: a new connection often reaches another machine, or another
   path.
4. Below ``MINIMUM`` bytes a second, or a twentieth (``FAR``) of the median of all bodies of the job, over ``LAG_S``
   seconds, it lags: another candidate is asked for the rest, when one would be better (``failover``).
5. A request is renewed for rule 3 at most ``RENEWALS`` times without a MiB of progress; then the rule holds no more:
   the link is slow, and nobody is faster. Rule 2 is an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from fastoci.registry.http.first_byte import Patience

CRAWL: Final = 128  # bytes a second
FLOOR: Final = 4 << 10  # bytes a second
FLOOR_S: Final = 20.0
PEERS: Final = 0.25  # of the median
PEERS_S: Final = 3.0
RENEWALS: Final = 3
MINIMUM: Final = 256 << 10  # bytes a second
FAR: Final = 1 / 20  # of the median
LAG_S: Final = 5.0
BETTER: Final = 2.0  # times as fast, to be worth a change
_KNOWN: Final = 4  # bodies of a server before there is a median worth the name
_KEPT: Final = 32
_STEP_S: Final = 0.05  # between two judgements: whoever asks at each piece of a body has thousands a second


class SpeedSamples:
    """How fast the last bodies came, of one server or several.

    Args:
        known: so many before there is a median.
    """

    def __init__(self, known: int = _KNOWN) -> None:
        self._rates: deque[float] = deque(maxlen=_KEPT)
        self._known = known

    def add(self, size: int, seconds: float) -> None:
        """A body is over."""
        if seconds > 0:
            self._rates.append(size / seconds)

    def median(self) -> float | None:
        """Bytes a second; None while too little is known."""
        count, rates = len(self._rates), sorted(self._rates)
        return (rates[(count - 1) // 2] + rates[count // 2]) / 2 if count >= self._known else None


def lags(rate: float, median: float | None) -> str:
    """Why a body that comes at ``rate`` lags, in words; empty when it does not.

    Args:
        median: of all bodies of the job; None while too little is known.
    """
    if median is not None and rate < FAR * median:
        return f"slow at {rate:.0f} bytes/s, the median is {median:.0f}"
    if rate < MINIMUM:
        return f"slow at {rate:.0f} bytes/s"
    return ""


def drips(rate: float) -> str:
    """Why a small answer, a token or a refusal, is waited for no longer: the ``lag`` of its detector."""
    return lags(rate, None)


class StallPolicy(msgspec.Struct, frozen=True):
    """What a body is held against, beside rule 2.

    ``renew``: rule 3. ``lag``: rule 4; given the rate over ``LAG_S``, says why the rest is
    asked for elsewhere, if it is. ``patience``: for the answer to begin.
    """

    renew: bool = False
    lag: Callable[[float], str] | None = None
    patience: Patience | None = None


BY_ITSELF: Final = StallPolicy()  # held against nothing else


class StallDetector:
    """Watches one body.

    Args:
        clock: seconds, of any beginning.
        peers: the median of the server's bodies, if it is known; None: rule 3 does not hold.
        lag: as ``StallPolicy`` has it; None: rule 4 does not hold.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        peers: Callable[[], float | None] | None = None,
        lag: Callable[[float], str] | None = None,
    ) -> None:
        self._clock = clock
        self._peers = peers
        self._lag = lag
        self.waited_s = 0.0
        self.received = 0
        self._since: float | None = None
        self._marks: deque[tuple[float, int]] = deque([(0.0, 0)])  # seconds waited, bytes by then

    def resume(self) -> None:
        """Somebody waits for bytes."""
        self._since = self._clock()

    def pause(self) -> None:
        """Nobody waits any more."""
        if self._since is not None:
            self.waited_s += self._clock() - self._since
            self._since = None

    def count(self, size: int) -> None:
        """Bytes have come."""
        self.received += size

    def verdict(self) -> str:
        """Why the body is too slow, in words; empty while it is not. Ask at least once a second; more is cheap."""
        now = self.waited_s + (0.0 if self._since is None else self._clock() - self._since)
        if now - self._marks[-1][0] < _STEP_S:
            return ""
        self._marks.append((now, self.received))
        while len(self._marks) > 2 and now - self._marks[1][0] >= FLOOR_S:
            self._marks.popleft()
        rate = self._rate(now, FLOOR_S)
        if rate is not None and rate < CRAWL:
            return f"stalled at {rate:.0f} bytes/s"
        if rate is not None and rate < FLOOR and self._peers is not None:
            return f"starved at {rate:.0f} bytes/s"
        median = self._peers() if self._peers is not None else None
        if median is not None and (rate := self._rate(now, PEERS_S)) is not None and rate < PEERS * median:
            return f"starved at {rate:.0f} bytes/s, others of the server have {median:.0f}"
        if self._lag is not None and (rate := self._rate(now, LAG_S)) is not None:
            return self._lag(rate)
        return ""

    def _rate(self, now: float, window_s: float) -> float | None:
        """Bytes a second over the last ``window_s`` or little more; None before so much time has passed."""
        for then, size in reversed(self._marks):
            if now - then >= window_s:
                return (self.received - size) / (now - then)
        return None
