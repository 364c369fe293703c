"""Several tasks that stand or fall together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from fastoci.aio import wait_to_end
from fastoci.errors import IntegrityError


async def all_or_first(tasks: Iterable[asyncio.Task[object]]) -> None:
    """Wait for all; when one fails, cancel the others, wait for them, raise its error. Integrity errors go first."""
    tasks = list(tasks)
    try:
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    except asyncio.CancelledError:
        await _end(tasks)
        raise
    cancelled = bool(pending) and await _end(tasks)
    errors = [error for task in tasks if task in done and not task.cancelled() and (error := task.exception())]
    errors.sort(key=lambda error: not isinstance(error, IntegrityError))
    if errors:
        raise errors[0]
    if cancelled:
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
