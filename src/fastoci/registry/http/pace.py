"""A rate that many share, on one event loop: bytes a second of all bodies, requests a second to a server.

Rules:
1. First come, first served; each takes a piece and waits again, so that those who share it get the same.
2. What nobody used is kept for ``BURST_S``, so that a late turn of the loop loses nothing, and no longer: over any five
   seconds the rate is exceeded by 2 %, and what each of the users takes at once.
3. A task that is cancelled while it waits has used nothing.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

BURST_S: Final = 0.1
_PIECE_S: Final = 1 / 256  # of the rate
_PIECE: Final = 1 << 10, 256 << 10  # bytes at a time, at least and at most


class Pace:
    """``rate`` a second.

    ``piece`` is how many bytes one of many should use at a time.
    """

    def __init__(self, rate: float) -> None:
        least, most = _PIECE
        self.piece = max(least, min(int(rate * _PIECE_S), most))
        self.rate = rate
        self._turn = asyncio.Lock()
        self._due = 0.0  # the clock when all that was used is within the rate
        self._waiting = 0
        self._since = 0.0
        self._waited_s = 0.0

    async def use(self, amount: float) -> None:
        """Wait until all that was used before is within the rate, and count ``amount`` more."""
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting += 1
        try:
            async with self._turn:
                if (wait_s := self._due - time.monotonic()) > 0:
                    await asyncio.sleep(wait_s)  # an early end of it is made up for by the next
                self._due = max(self._due, time.monotonic() - BURST_S) + amount / self.rate
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._waited_s += time.monotonic() - self._since

    def waited_s(self) -> float:
        """Seconds, so far, in which anybody waited."""
        return self._waited_s + (time.monotonic() - self._since if self._waiting else 0.0)
