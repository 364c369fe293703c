"""Threads that run the data plane, and the budget of spans as the event loop sees it.

The unit of work is one stage of one stream on one span. Whatever happens to the task that waits, a span goes back to
the pool when the thread lets go of it, and nothing is closed under a thread that still works on it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fastoci import _core
from fastoci._core import Span
from fastoci.settle import settle
from fastoci.stream.sink import Sink

T = TypeVar("T")


class Spans:
    """A ``SpanSource`` over the pool: hands spans to waiting tasks in the order they came."""

    def __init__(self, pool: _core.Pool) -> None:
        self.pool = pool
        self._loop = asyncio.get_running_loop()
        self._waiters: deque[asyncio.Future[None]] = deque()
        pool.on_release = self._released

    async def take(self) -> Span:
        """An empty span, as soon as the budget has one."""
        while (span := self.pool.take()) is None:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            span = self.pool.take()  # one may have come back before we stood in the queue
            if span is not None:
                self._leave(waiter)
                return span
            try:
                await waiter
            except asyncio.CancelledError:
                self._leave(waiter)
                raise
        return span

    def _leave(self, waiter: asyncio.Future[None]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        else:
            self._wake()  # the turn was ours: pass it on

    def _released(self) -> None:
        if self._waiters:
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class Worker:
    """A fixed number of threads. ``run`` never leaves one behind."""

    def __init__(self, threads: int) -> None:
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="fastoci")
        self._loop = asyncio.get_running_loop()

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` on a thread to its end, also when this task is cancelled (then its result is dropped)."""
        result, cancelled = await settle(self._loop.run_in_executor(self.executor, work))
        if cancelled:
            raise asyncio.CancelledError
        return result

    async def acquire(self, work: Callable[[], T], undo: Callable[[T], object]) -> T:
        """As ``run``, for work that opens something: ``undo`` it when this task was cancelled meanwhile."""
        result, cancelled = await settle(self._loop.run_in_executor(self.executor, work))
        if cancelled:
            await self.finish(lambda: undo(result))
            raise asyncio.CancelledError
        return result

    async def finish(self, work: Callable[[], object]) -> None:
        """Run ``work`` on a thread to its end while an error is on its way: a cancellation meanwhile adds nothing."""
        await settle(self._loop.run_in_executor(self.executor, work))

    def close(self) -> None:
        """End the threads; nothing may be running."""
        self.executor.shutdown(wait=True)


class Pipeline:
    """One stream's stage on the worker: spans in from the loop, in order, at most one at work at a time.

    Args:
        depth: spans that may wait; then ``feed`` waits too, and with it whoever makes them.
        progressed: called on the loop with the bytes that are through the stage since.
    """

    def __init__(self, worker: Worker, stage: Sink, *, depth: int, progressed: Callable[[int], None]) -> None:
        self._worker = worker
        self._stage = stage
        self._depth = depth
        self._progressed = progressed
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Span] = deque()
        self._work: asyncio.Future[None] | None = None  # the thread that drains the queue
        self._changed = asyncio.Event()

    async def feed(self, span: Span) -> None:
        """Hand a span over, with its reference; waits while ``depth`` spans are queued.

        Raises: what the stage raised on an earlier span.
        """
        self._queue.append(span)
        self._start()
        while len(self._queue) >= self._depth:
            self._changed.clear()
            await self._changed.wait()
            self._start()

    async def finish(self) -> None:
        """Wait for all spans, then close the stage. Raises: what the stage raises, on any span or at its end."""
        while self._work is not None or self._queue:
            self._start()
            if self._work is not None:
                await asyncio.wait([self._work])
                self._start()
        await self._worker.run(self._stage.finish)

    async def abort(self) -> None:
        """Wait for the thread to let go, give all spans back, abort the stage on a thread."""
        while self._queue:
            self._queue.popleft().release()
        if self._work is not None:
            await settle(asyncio.wait([self._work]))
            self._work.exception()
            self._work = None
        await self._worker.finish(self._stage.abort)

    def _start(self) -> None:
        """Start a drain when none runs, and raise what the last one raised."""
        if self._work is not None and self._work.done():
            work, self._work = self._work, None
            work.result()
        if self._work is None and self._queue:
            self._work = self._loop.run_in_executor(self._worker.executor, self._drain)
            self._work.add_done_callback(lambda _: self._changed.set())

    def _drain(self) -> None:
        """On a thread: take spans while there are any. deque's ends are safe between two threads."""
        while True:
            try:
                span = self._queue.popleft()
            except IndexError:
                return
            size = len(span)
            try:
                self._stage.feed(span)
            finally:
                span.release()
            self._loop.call_soon_threadsafe(self._advance, size)

    def _advance(self, size: int) -> None:
        self._changed.set()
        self._progressed(size)
