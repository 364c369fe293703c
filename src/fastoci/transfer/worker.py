"""Threads that run the data plane, and the budget of spans as the event loop sees it.

The unit of work is one stage of one stream on one span. Whatever happens to the task that waits, a span goes back to
the pool when the thread lets go of it, and nothing is closed under a thread that still works on it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fastoci import _core
from fastoci._core import Span
from fastoci.errors import IntegrityError
from fastoci.settle import settle
from fastoci.stream.sink import Sink
from fastoci.stream.verify import Verified, Verifier, hash_spans

T = TypeVar("T")


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


class Worker:
    """A fixed number of threads that run stages and other work. Nothing is left running behind its caller's back.

    Pipelines that have spans stand in one line. A thread takes the first, and when more stand there than threads are
    idle, it takes as many as the hash has lanes: their spans are hashed together, at nearly the price of one.
    """

    def __init__(self, threads: int) -> None:
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="fastoci")
        self._loop = asyncio.get_running_loop()
        self._threads = threads
        self._lock = threading.Lock()
        self._ready: deque[Pipeline] = deque()
        self._serving = 0  # threads that serve pipelines
        self._coming = 0  # threads that are about to
        self._running = 0  # other work, on a thread or about to be

    def _submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        self._running += 1  # only the loop changes it; threads look
        future = self._loop.run_in_executor(self.executor, work)
        future.add_done_callback(self._ran)
        return future

    def _ran(self, _: object) -> None:
        self._running -= 1

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` on a thread to its end, also when this task is cancelled (then its result is dropped)."""
        result, cancelled = await settle(self._submit(work))
        if cancelled:
            raise asyncio.CancelledError
        return result

    async def acquire(self, work: Callable[[], T], undo: Callable[[T], object]) -> T:
        """As ``run``, for work that opens something: ``undo`` it when this task was cancelled meanwhile."""
        result, cancelled = await settle(self._submit(work))
        if cancelled:
            await self.finish(lambda: undo(result))
            raise asyncio.CancelledError
        return result

    async def finish(self, work: Callable[[], object]) -> None:
        """Run ``work`` on a thread to its end while an error is on its way: a cancellation meanwhile adds nothing."""
        await settle(self._submit(work))

    def close(self) -> None:
        """End the threads; nothing may be running."""
        self.executor.shutdown(wait=True)

    def schedule(self, pipeline: Pipeline) -> None:
        """Let a thread work on the pipeline's next span, unless one does already."""
        with self._lock:
            if pipeline.busy or not pipeline.wants_more():
                return
            pipeline.busy = True
            self._ready.append(pipeline)
            self._wake()

    def _wake(self) -> None:
        """Under the lock: more threads while there is work for them, at least one."""
        while self._coming < len(self._ready):
            ours = self._serving + self._coming
            if ours and ours + self._running >= self._threads:
                return
            self._coming += 1
            self.executor.submit(self._serve)

    def _serve(self) -> None:
        """On a thread: one span each of a few pipelines, again and again while nobody else waits for a thread."""
        with self._lock:
            self._coming -= 1
            self._serving += 1
        again = True
        while again:
            with self._lock:
                idle = max(0, self._threads - self._serving - self._running)
                count = 1 + min(max(0, len(self._ready) - 1 - idle), _core.lanes() - 1)
                batch = [self._ready.popleft() for _ in range(min(count, len(self._ready)))]
            advance(batch)
            with self._lock:
                for pipeline in batch:
                    pipeline.busy = pipeline.wants_more()
                    if pipeline.busy:
                        self._ready.append(pipeline)
                again = bool(self._ready) and self._serving + self._running <= self._threads
                if not again:
                    self._serving -= 1
                    self._wake()
            for pipeline in batch:
                self._loop.call_soon_threadsafe(pipeline.advanced)


class Pipeline:
    """One stream's stage on the worker: spans in from the loop, in order, one at a time hashed and given to ``sink``.

    Args:
        verifier: hashes the stream before ``sink`` has it; None for a stream that nothing was promised of.
        depth: spans that may wait; then ``feed`` waits too, and with it whoever makes them.
        progressed: called on the loop with the bytes that are through the stage since.
    """

    def __init__(
        self, worker: Worker, sink: Sink, verifier: Verifier | None, *, depth: int, progressed: Callable[[int], None]
    ) -> None:
        self.busy = False  # stands in the worker's line, or is at work; changed under the worker's lock
        self.sink = sink
        self.verifier = verifier
        self.error: Exception | None = None  # set by a thread; nothing follows
        self._worker = worker
        self._depth = depth
        self._progressed = progressed
        self._queue: deque[Span] = deque()
        self.proof: Verified | None = None  # after ``finish``
        self._through = self._told = 0  # bytes that passed the stage, and that ``progressed`` knows of
        self._changed = asyncio.Event()

    async def feed(self, span: Span) -> None:
        """Hand a span over, with its reference; waits while ``depth`` spans are queued.

        Raises: what the stage raised on an earlier span; ``abort`` gives this one back.
        """
        self._queue.append(span)
        self._worker.schedule(self)
        await self._wait_while(lambda: len(self._queue) >= self._depth and self.error is None)
        if self.error is not None:
            raise self.error

    async def finish(self) -> None:
        """Wait for all spans, close the sink, and hold the stream against what was promised.

        Raises: what the stage raises, on any span or at its end; IntegrityError.
        """
        await self._wait_while(lambda: self.busy)
        if self.error is not None:
            raise self.error
        await self._worker.run(self.sink.finish)
        if self.verifier is not None:
            self.proof = self.verifier.proof()

    async def abort(self, *, keep: bool = False) -> None:
        """Wait for the thread to let go, give all spans back, abort the sink on a thread. Idempotent.

        Args:
            keep: the sink keeps what it got for a later attempt, so the spans that wait are worked off first.
        """
        if not keep:
            self._drop()
        await settle(self._wait_while(lambda: self.busy))
        self._drop()
        await self._worker.finish(self.sink.abort)

    def _drop(self) -> None:
        while (span := self.take()) is not None:
            span.release()

    def take(self) -> Span | None:
        """On a thread: the next span, None when ``abort`` took it away."""
        try:
            return self._queue.popleft()
        except IndexError:
            return None

    def passed(self, size: int) -> None:
        """On a thread: ``size`` bytes are through."""
        self._through += size

    def wants_more(self) -> bool:
        """Under the worker's lock: there is another span to work on."""
        return bool(self._queue) and self.error is None

    def advanced(self) -> None:
        """On the loop, after a thread worked on a span."""
        self._changed.set()
        if self._through > self._told:
            size, self._told = self._through - self._told, self._through
            self._progressed(size)

    async def _wait_while(self, condition: Callable[[], bool]) -> None:
        while condition():
            self._changed.clear()
            if condition():  # what a thread changes is followed by ``advanced``
                await self._changed.wait()


def advance(pipelines: list[Pipeline]) -> None:
    """On a thread: hash one span of each pipeline, all in lanes, then give each to its sink, and release it."""
    work = [(pipeline, span) for pipeline in pipelines if (span := pipeline.take()) is not None]
    try:
        _hash(work)
        for pipeline, span in work:
            if pipeline.error is not None:
                continue
            try:
                pipeline.sink.feed(span)
                pipeline.passed(len(span))
            except Exception as error:
                pipeline.error = error
    finally:
        for _, span in work:
            span.release()


def _hash(work: list[tuple[Pipeline, Span]]) -> None:
    """Hash the spans of the pipelines that may go on; the others get their error."""
    pairs = []
    for pipeline, span in work:
        if pipeline.verifier is None:
            continue
        try:
            pipeline.verifier.expect(span)
            pairs.append((pipeline.verifier, span))
        except IntegrityError as error:
            pipeline.error = error
    hash_spans(pairs)
