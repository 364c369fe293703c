"""Threads that run the data plane: which of the pipelines that have work goes next, and on how many threads.

Whatever happens to the task that waits, nothing is closed under a thread that still works on it. Knows neither what is
hashed nor who is fed.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from fastoci import _core
from fastoci.aio import wait_to_end
from fastoci.threads import Executor
from fastoci.transfer.pipeline import Pipeline, PullPipeline, advance

T = TypeVar("T")


class WorkerPool:
    """A fixed number of threads that run stages and other work. Nothing is left running behind its caller's back.

    Two queues: pipelines that can make a buffer (inflate), and those that have one to hash and give to their sink.
    While cores are idle, every thread takes the next pipeline of either, so both stages of one stream run side by
    side. While there are fewer such streams than threads, making comes first: it is the longer stage, and the other
    threads use what it makes. When cores are short, a thread makes a buffer of several streams first and then takes as
    many as the hash has lanes: their buffers are hashed together at nearly the price of one, while they are in the
    cache. A lane that would be empty is for a pipeline that is patient; such pipelines share lanes whatever is idle.
    """

    def __init__(self, threads: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._executor = Executor(threads, "fastoci")
        self._threads = threads
        self._lock = threading.Lock()
        self._to_make: deque[PullPipeline] = deque()  # can make a buffer
        self._to_use: deque[Pipeline] = deque()  # have a buffer to use
        self._beside: deque[Pipeline] = deque()  # have one, too, for which nobody waits
        self._makers = 0  # pipelines that make their buffers
        self._make_next = False  # alternates while both queues are long
        self._serving = 0  # threads that serve pipelines
        self._starting = 0  # threads that were asked for, and do not run yet
        self._running = 0  # other work, on a thread or about to be

    def _submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        future = self._executor.ask(work)
        self._running += 1  # changed by the loop, read by threads
        future.add_done_callback(self._ran)
        return future

    def _ran(self, _: object) -> None:
        self._running -= 1

    async def run(self, work: Callable[[], T], *, stop: Callable[[], object] | None = None) -> T:
        """Run ``work`` on a thread to its end, also when this task is cancelled (then its result is dropped).

        Args:
            stop: called then, to bring that end about.
        """
        result, cancelled = await wait_to_end(self._submit(work), stop=stop)
        if cancelled:
            raise asyncio.CancelledError
        return result

    async def acquire(
        self, work: Callable[[], T], undo: Callable[[T], object], *, stop: Callable[[], object] | None = None
    ) -> T:
        """As ``run``, for work that opens something: ``undo`` it when this task was cancelled meanwhile."""
        result, cancelled = await wait_to_end(self._submit(work), stop=stop)
        if cancelled:
            await self.finish(lambda: undo(result))
            raise asyncio.CancelledError
        return result

    async def finish(self, work: Callable[[], object], *, stop: Callable[[], object] | None = None) -> None:
        """Run ``work`` on a thread to its end while an error is on its way: a cancellation meanwhile only stops it."""
        await wait_to_end(self._submit(work), stop=stop)

    def close(self) -> None:
        """End the threads; nothing may be running."""
        self._executor.close()

    def schedule(self, pipeline: Pipeline) -> None:
        """Let a thread work on the pipeline's next buffer, unless one does already.

        Raises:
            RuntimeError: the threads have ended.
        """
        if self._executor.closed:
            raise RuntimeError("the engine is closed: no thread works for it any more")
        with self._lock:
            self._enqueue(pipeline)
            self._wake(0)

    def count_maker(self, change: int) -> None:
        """One pipeline more (1) or fewer (-1) that makes its buffers."""
        with self._lock:
            self._makers += change

    def _enqueue(self, pipeline: Pipeline) -> None:
        try:
            if pipeline in self._beside and not pipeline.patient:
                self._beside.remove(pipeline)
                self._to_use.append(pipeline)
            elif not pipeline.busy and pipeline.wants_more():
                pipeline.busy = True
                (self._beside if pipeline.patient else self._to_use).append(pipeline)
            if isinstance(pipeline, PullPipeline) and not pipeline.making and pipeline.can_make():
                pipeline.making = True
                self._to_make.append(pipeline)
        except BaseException as error:  # of a maker
            pipeline.fail(error)

    def _wake(self, taken: int) -> None:
        """Under the lock: start threads for the queued work, but for what the caller takes itself."""
        while self._starting < len(self._to_use) + len(self._to_make) - taken:
            ours = self._serving + self._starting
            if ours and ours + self._running >= self._threads:
                return
            self._starting += 1
            self._executor.start(self._serve)

    def _serve(self) -> None:
        """On a thread: one piece of work after the other, while nobody else waits for a thread."""
        with self._lock:
            self._starting -= 1
            self._serving += 1
        while self._serve_once():
            pass

    def _serve_once(self) -> bool:
        """On a thread: make one buffer, or use some; whether the thread goes on.

        Whatever is raised reaches each pipeline that was worked on: nobody else would tell who waits for it.
        """
        with self._lock:
            maker, batch = self._choose()
        try:
            if maker is not None:
                maker.make()
            else:
                advance(batch)
        except BaseException as error:
            for pipeline in batch:
                pipeline.fail(error)
        with self._lock:
            for pipeline in batch:
                if maker is None:
                    pipeline.busy = False
                else:
                    maker.making = False
                self._enqueue(pipeline)
            again = bool(self._to_use or self._to_make) and self._serving + self._running <= self._threads
            self._serving -= not again
            self._wake(int(again))
        for pipeline in batch:
            if _has_news(pipeline):
                self._loop.call_soon_threadsafe(pipeline.advanced)
        return again

    def _choose(self) -> tuple[PullPipeline | None, list[Pipeline]]:
        """Under the lock: the pipelines to work on; the first makes a buffer, or all of them use theirs."""
        lanes = _core.lanes()
        few = self._makers < self._threads  # each has a thread to itself, and none waits while it can make
        if self._to_make and (self._make_next or few or len(self._to_use) < min(lanes, max(1, self._makers))):
            self._make_next = False
            maker = self._to_make.popleft()
            return maker, [maker]
        self._make_next = True
        idle = max(0, self._threads - self._serving - self._running)
        if self._to_use and self._to_use[0].waiting:
            idle = 0  # those that let buffers wait share lanes also when a core is idle
        count = 1 + min(max(0, len(self._to_use) - 1 - idle), lanes - 1)
        batch = [self._to_use.popleft() for _ in range(min(count, len(self._to_use)))]
        if batch:
            batch += [self._beside.popleft() for _ in range(min(lanes - len(batch), len(self._beside)))]
        return None, batch


def _has_news(pipeline: Pipeline) -> bool:
    try:
        return pipeline.has_news()
    except BaseException as error:  # of a maker
        pipeline.fail(error)
        return True
