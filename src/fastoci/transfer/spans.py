"""The budget of spans as the event loop sees it."""

from __future__ import annotations

import asyncio
from collections import deque

from fastoci import _core
from fastoci._core import Span


class Spans:
    """A ``SpanSource`` over the pool: hands spans to tasks in the order they came."""

    def __init__(self, pool: _core.Pool) -> None:
        self.pool = pool
        self._loop = asyncio.get_running_loop()
        self._line: deque[asyncio.Event] = deque()  # only the first may take
        pool.on_release = self._released

    async def take(self) -> Span:
        """An empty span, as soon as the budget has one."""
        if (span := self.spare()) is not None:
            return span
        turn = asyncio.Event()
        self._line.append(turn)
        try:
            while self._line[0] is not turn or (span := self.pool.take()) is None:
                turn.clear()
                await turn.wait()
            return span
        finally:
            self._line.remove(turn)
            self._wake()  # there may be another span

    def spare(self) -> Span | None:
        """An empty span that nobody waits for, if there is one."""
        return None if self._line else self.pool.take()

    def _released(self) -> None:
        if self._line:
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._line:
            self._line[0].set()
