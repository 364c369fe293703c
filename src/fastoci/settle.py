"""Wait for work on another thread to end, even when the waiting task is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def settle(work: Awaitable[T]) -> tuple[T, bool]:
    """Await ``work`` to its end whatever happens to this task.

    A thread cannot be cancelled: what it opens, locks or borrows is known only when it is done.

    Returns:
        its result, and whether this task was cancelled meanwhile: the caller then undoes the result and raises
        ``asyncio.CancelledError``. When the work failed there is nothing to undo: its exception is raised, or
        ``asyncio.CancelledError`` when this task was cancelled too.
    """
    future = asyncio.ensure_future(work)
    cancelled = False
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            cancelled = True
        except BaseException:  # read from the future below
            break
    if cancelled and (future.cancelled() or future.exception() is not None):
        raise asyncio.CancelledError from (None if future.cancelled() else future.exception())
    return future.result(), cancelled
