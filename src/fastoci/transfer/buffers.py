"""The budget of buffers, for tasks on the event loop: first come, first served. Allocates nothing itself.

What is asked for in order has a reserve; what is fetched ahead of its use may hold ``ahead`` bytes and no more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from fastoci import _core
from fastoci._core import BUFFER_SIZE, Buffer

T = TypeVar("T")


class Buffers:
    """A ``BufferSource`` over the pool: hands buffers to tasks in the order they came.

    Args:
        ahead: bytes that fetches may hold ahead of the order in which they are used.
    """

    def __init__(self, pool: _core.Pool, *, ahead: int = 0) -> None:
        self.pool = pool
        self.pressed: set[Callable[[], object]] = set()
        self.streams = 0  # beyond those that have their buffers in what is not ``ahead``
        self._ahead = ahead
        self._aside = 0  # bytes set aside, or about to be
        self._lent = 0  # bytes in buffers of ``spare_ahead`` and ``hold_ahead``
        self._loop = asyncio.get_running_loop()
        self._waiters: deque[asyncio.Event] = deque()  # only the first may take
        pool.on_release = self._released

    async def take(self) -> Buffer:
        """An empty buffer, as soon as the budget has one."""
        buffer = self.spare()
        return await self._in_order(self.pool.take) if buffer is None else buffer

    async def set_aside(self, size: int) -> None:
        """Take memory that is allocated elsewhere out of the budget, as soon as so much is free; then ``put_back``."""
        self._aside += size
        for press in list(self.pressed):
            press()
        try:
            await self._in_order(lambda: self.pool.set_aside(size) or None)
        except BaseException:
            self._aside -= size
            raise

    def set_aside_now(self, size: int) -> bool:
        """``set_aside``, when so much is free and nobody waits."""
        if self._waiters or not self.pool.set_aside(size):
            return False
        self._aside += size
        return True

    def try_aside(self, size: int) -> bool:
        """As ``set_aside``, of memory that is in use by now; False while so much is not free: ask again later."""
        if self._waiters or not self.pool.set_aside(size):
            for press in list(self.pressed):
                press()
            return False
        self._aside += size
        return True

    def put_back(self, size: int) -> None:
        """Give memory that was set aside back to the budget."""
        self._aside -= size
        self.pool.put_back(size)

    @property
    def ahead(self) -> int:
        """Bytes that fetches may hold ahead of their use: what is set aside or lent, and more streams, are of these."""
        return max(0, self._ahead - self._aside - self._lent - self.streams * BUFFER_SIZE)

    def spare(self) -> Buffer | None:
        """An empty buffer that nobody waits for, if there is one."""
        return None if self._waiters else self.pool.take()

    def spare_ahead(self, beside: int = 0) -> Buffer | None:
        """A ``spare`` one out of what is ``ahead``, until ``give_back``: nobody who needs one to go on lacks it.

        Args:
            beside: bytes that its owner sets aside then, of the same.
        """
        if self.ahead < BUFFER_SIZE + beside or (buffer := self.spare()) is None:
            return None
        self._lend(BUFFER_SIZE)
        return buffer

    def give_back(self, buffer: Buffer) -> None:
        """End what ``spare_ahead`` began."""
        self._lent -= BUFFER_SIZE
        buffer.release()

    @contextmanager
    def hold_ahead(self, count: int) -> Iterator[bool]:
        """Let somebody hold so many buffers while they ask for another; whether they may.

        Who holds one without that keeps it from others, who may do the same: then nobody goes on.
        """
        size = count * BUFFER_SIZE if self.ahead >= count * BUFFER_SIZE else 0
        self._lend(size)
        try:
            yield bool(size)
        finally:
            self._lent -= size

    def _lend(self, size: int) -> None:
        self._lent += size
        for press in list(self.pressed):
            press()

    async def _in_order(self, attempt: Callable[[], T | None]) -> T:
        """The first result of ``attempt`` that is not None; tasks try in the order they came."""
        waiter = asyncio.Event()
        self._waiters.append(waiter)
        try:
            while self._waiters[0] is not waiter or (got := attempt()) is None:
                waiter.clear()
                await waiter.wait()
            return got
        finally:
            self._waiters.remove(waiter)
            self._wake()  # there may be more

    def _released(self) -> None:
        if self._waiters:
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._waiters:
            self._waiters[0].set()
