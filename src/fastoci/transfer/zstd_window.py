"""The windows that zstd frames demand: large ones come out of the memory budget.

Spec: RFC 8878, section 3.1.1.1.2 (window descriptor).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fastoci import _inflate
from fastoci.errors import UnsupportedError
from fastoci.transfer.buffers import Buffers

FREE_WINDOW: Final = 8 << 20  # bytes that a frame may demand beside the budget
_USUAL: Final = 128 << 20  # what zstd itself accepts, and the most it makes without an option: --ultra -22, --long


class WindowBudget:
    """Grants large windows to one layer at a time, so that two never wait for what the other holds.

    Args:
        reserve: bytes of the budget that are left for buffers, so that everybody else can go on.
    """

    def __init__(self, buffers: Buffers, *, reserve: int) -> None:
        self._buffers = buffers
        self._reserve = reserve
        self._lock = asyncio.Lock()

    @contextmanager
    def share(self) -> Iterator[WindowShare]:
        """The share of one layer; give it back when its decoder is closed."""
        share = WindowShare(self._buffers, self._lock, self._reserve)
        try:
            yield share
        finally:
            share.give_back()


class WindowShare:
    """The memory of one layer's decoder, out of the budget."""

    def __init__(self, buffers: Buffers, lock: asyncio.Lock, reserve: int) -> None:
        self._buffers = buffers
        self._lock = lock
        self._reserve = reserve
        self._taken: list[int] = []

    async def take(self, window: int) -> None:
        """Wait until the budget grants ``window`` bytes in all.

        A usual window is granted even when the whole budget is smaller: then it takes all but the reserve.

        Raises:
            UnsupportedError: the budget is too small for that.
        """
        capacity = self._buffers.pool.capacity
        size = window + _inflate.WINDOW_OVERHEAD
        if size + self._reserve > capacity:
            if window > _USUAL:
                raise UnsupportedError(
                    f"a zstd frame demands a window of {window} bytes, for which the memory budget of {capacity} bytes "
                    f"is too small: --memory {(size + self._reserve + (1 << 20) - 1) >> 20}MiB would do"
                )
            size = max(0, capacity - self._reserve)
        if not self._taken:
            await self._lock.acquire()
            self._taken.append(0)
        more = size - sum(self._taken)
        await self._buffers.set_aside(more)
        self._taken.append(more)

    def give_back(self) -> None:
        """Put all of it back into the budget."""
        if self._taken:
            for size in self._taken[1:]:
                self._buffers.put_back(size)
            self._taken.clear()
            self._lock.release()
