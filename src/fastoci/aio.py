"""Waits that a cancelled task must not cut short: for threads, for several tasks, for another process's lock.

Starts nothing and knows no work: what is waited for belongs to the caller.
Spec: asyncio, "Shielding From Cancellation".
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from fastoci.errors import IntegrityError, StoreBusyError

T = TypeVar("T")


async def wait_to_end(work: Awaitable[T], *, stop: Callable[[], object] | None = None) -> tuple[T, bool]:
    """Await ``work`` to its end whatever happens to this task.

    A thread cannot be cancelled: what it opens, locks or borrows is known only when it is done.

    Args:
        stop: called when this task is cancelled, so that the end comes sooner.
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
            if stop is not None:
                stop()
        except BaseException:  # mostly the work's own, which is read from the future below
            cancelled = cancelled or not future.done()
    if cancelled and (future.cancelled() or future.exception() is not None):
        raise asyncio.CancelledError from (None if future.cancelled() else future.exception())
    return future.result(), cancelled


async def when_free(work: Callable[[], Awaitable[T]], *, within_s: float) -> T:
    """Do work that another process's lock may refuse: again and again, until it is done or the time is over.

    No thread waits for a lock: that could not be cancelled, and who holds it may never let go.

    Raises:
        StoreBusyError: the lock was held all the time.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            return await work()
        except StoreBusyError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(random.uniform(0.02, 0.1))


async def all_or_first(tasks: Iterable[asyncio.Task[object]]) -> None:
    """Wait for all; when one fails, cancel the others and wait for them.

    Raises:
        Exception: of the task that failed; of several, an ``IntegrityError`` first.
        asyncio.CancelledError: this task was cancelled, or one of them by somebody else.
    """
    tasks = list(tasks)
    if not tasks:
        return
    left = len(tasks)
    over = asyncio.get_running_loop().create_future()

    def ended(task: asyncio.Task[object]) -> None:
        nonlocal left
        left -= 1
        # One that is cancelled counts: ``asyncio.wait`` would go on, and the others may wait for what it does no more.
        if not over.done() and (not left or task.cancelled() or task.exception() is not None):
            over.set_result(None)

    for task in tasks:
        task.add_done_callback(ended)
    try:
        await over
    except BaseException:
        await _end(tasks)
        raise
    done, pending = [task for task in tasks if task.done()], [task for task in tasks if not task.done()]
    cancelled = bool(pending) and await _end(pending)
    errors = [error for task in done if not task.cancelled() and (error := task.exception())]
    errors.sort(key=lambda error: not isinstance(error, IntegrityError))
    if errors:
        raise errors[0]
    if cancelled or any(task.cancelled() for task in done):
        raise asyncio.CancelledError


async def _end(tasks: Sequence[asyncio.Task[object]]) -> bool:
    """Cancel tasks and wait for them; whether this task was cancelled meanwhile."""
    for task in tasks:
        task.cancel()
    _, cancelled = await wait_to_end(asyncio.wait(tasks))
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen
    return cancelled
