"""An event loop whose clock jumps to the next timer as soon as nothing is left to do: minutes of waiting cost nothing.

Sockets are real and on loopback. A bound on the steps of the loop ends a test that goes round for ever.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import pytest

T = TypeVar("T")

_JUMP_S: Final = 0.25  # at most at once: what is under way in the kernel arrives meanwhile
_GRACE_S: Final = 0.0002  # of real time, for that
_THREADS_S: Final = 20.0  # of real time, when there is no timer: only a thread can go on


class _Selector(selectors.DefaultSelector):
    """Waits in virtual time."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.now = 1000.0
        self.left = steps

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.left -= 1
        assert self.left > 0, f"not at the end after so many steps, at {self.now - 1000.0:.3f} s"
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        ready = super().select(_THREADS_S if timeout is None else _GRACE_S)
        assert ready or timeout is not None, "nothing is left that could happen"
        if not ready and timeout is not None:
            self.now += min(timeout, _JUMP_S)
        return ready


def run(work: Coroutine[Any, Any, T], monkeypatch: pytest.MonkeyPatch, *, steps: int) -> T:
    """Run ``work`` on a loop in virtual time, which ``time.monotonic`` tells too."""
    selector = _Selector(steps)
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: selector.now)
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
            return runner.run(work)
