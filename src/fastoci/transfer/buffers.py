"""The budget of buffers as the event loop sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from fastoci import _core
from fastoci._core import Buffer

T = TypeVar("T")


class Buffers:
    """A ``BufferSource`` over the pool: hands buffers to tasks in the order they came.

    Args:
        ahead: bytes that fetches may hold ahead of their turn.
    """

    def __init__(self, pool: _core.Pool, *, ahead: int = 0) -> None:
        self.pool = pool
        self.pressed: set[Callable[[], object]] = set()
        self._ahead = ahead
        self._aside = 0  # bytes set aside, or about to be
        self._loop = asyncio.get_running_loop()
        self._line: deque[asyncio.Event] = deque()  # only the first may take
        pool.on_release = self._released

    async def take(self) -> Buffer:
        """An empty buffer, as soon as the budget has one."""
        buffer = self.spare()
        return await self._in_line(self.pool.take) if buffer is None else buffer

    async def set_aside(self, size: int) -> None:
        """Take memory that is allocated elsewhere out of the budget, as soon as so much is free; then ``put_back``."""
        self._aside += size
        for press in list(self.pressed):
            press()
        try:
            await self._in_line(lambda: self.pool.set_aside(size) or None)
        except BaseException:
            self._aside -= size
            raise

    def put_back(self, size: int) -> None:
        """Give memory that was set aside back to the budget."""
        self._aside -= size
        self.pool.put_back(size)

    @property
    def ahead(self) -> int:
        """Bytes that fetches may hold ahead of their turn: what is set aside comes out of these first."""
        return max(0, self._ahead - self._aside)

    def spare(self) -> Buffer | None:
        """An empty buffer that nobody waits for, if there is one."""
        return None if self._line else self.pool.take()

    async def _in_line(self, attempt: Callable[[], T | None]) -> T:
        """What ``attempt`` gives, once it gives something, and all who came before have had theirs."""
        turn = asyncio.Event()
        self._line.append(turn)
        try:
            while self._line[0] is not turn or (got := attempt()) is None:
                turn.clear()
                await turn.wait()
            return got
        finally:
            self._line.remove(turn)
            self._wake()  # there may be more

    def _released(self) -> None:
        if self._line:
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._line:
            self._line[0].set()
