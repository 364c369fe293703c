"""How fast something has been in the last seconds."""

from __future__ import annotations

from collections import deque
from typing import Final

_WINDOW_S: Final = 8.0  # long enough for a slow link's steps, short enough to show a stall
_STEP_S: Final = 0.5  # between samples


class Rate:
    """Bytes a second over a sliding window that ends now, so that it falls when nothing comes.

    Args:
        total: bytes that had come before.
    """

    def __init__(self, now: float, total: int = 0) -> None:
        self._samples = deque([(now, total)])

    def add(self, now: float, total: int) -> None:
        """``total`` bytes have come until now."""
        samples = self._samples
        if len(samples) > 1 and now - samples[-2][0] < _STEP_S:
            samples.pop()
        samples.append((now, total))
        while len(samples) > 2 and now - samples[1][0] >= _WINDOW_S:
            samples.popleft()

    @property
    def per_s(self) -> float:
        """Bytes a second; 0 when nothing is known."""
        (begun, before), (now, total) = self._samples[0], self._samples[-1]
        return max(0.0, total - before) / (now - begun) if now > begun else 0.0
