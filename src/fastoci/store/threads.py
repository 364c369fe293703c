"""A store's own few threads, which wait for the disk, so that an fsync never takes a thread from hashing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

from fastoci.settle import settle

_THREADS: Final = 4  # commits of small blobs overlap, and the disk merges their syncs

T = TypeVar("T")
Check = Callable[[], None]  # called now and then; what it raises ends the work


def go_on() -> None:
    """Nobody wants to end the work."""


class _StoppedError(Exception):
    """Work ended because nobody waits for it any more."""


class Threads:
    """Runs functions for tasks of one event loop. ``start`` may be called from any thread."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="fastoci-store")

    async def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns. Once started it is waited for, also by a task that is cancelled meanwhile."""
        result, cancelled = await settle(self.begin(work))
        if cancelled:
            raise asyncio.CancelledError
        return result

    async def run_stoppable(self, work: Callable[[Check], T]) -> T:
        """``run`` for long work, which calls what it is given now and then: that ends it when the task is cancelled."""
        stopped = threading.Event()

        def check() -> None:
            if stopped.is_set():
                raise _StoppedError

        future = self.begin(lambda: work(check))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stopped.set()
            with suppress(_StoppedError):
                await settle(future)
            raise

    def begin(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """``run`` for a task that has to undo the result when it is cancelled."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Run ``work`` after all that was started before."""
        return self._pool.submit(work)

    def close(self) -> None:
        """End the threads; nothing is started any more. Idempotent."""
        self._pool.shutdown()
