"""Threads, and a few of them that wait for the disk, so that an fsync never takes a thread from hashing.

Knows no files: work is any function, which may call ``check`` to end early when nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

from fastoci.aio import wait_to_end

_THREADS: Final = 4  # commits of small blobs overlap, and the disk merges their syncs

T = TypeVar("T")
U = TypeVar("U")
Check = Callable[[], None]  # called now and then; what it raises ends the work


def go_on() -> None:
    """Nobody wants to end the work."""


class _StoppedError(Exception):
    """Work ended because nobody waits for it any more."""


class _Stop:
    """Whether the task that waits for some work was cancelled: set by the loop, seen by the thread."""

    __slots__ = ("wanted",)

    def __init__(self) -> None:
        self.wanted = False


class _Work(threading.local):
    """What a store's thread is at: ``stopped`` is set when the task that waits for it was cancelled."""

    stopped: _Stop | None = None


_work = _Work()


def check() -> None:
    """In work that may take long, or wait for others, now and then: end it when nobody waits for it any more."""
    if _work.stopped is not None and _work.stopped.wanted:
        raise _StoppedError


class Executor(ThreadPoolExecutor):
    """Threads up to a number; where the machine allows no more, those that are there do all the work.

    Raises:
        RuntimeError: not even the first thread can be started.
    """

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self.closed = False
        self.submit(_nothing)

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Run ``work`` after all that was started before. Whatever it raises is the future's.

        Raises:
            RuntimeError: the threads have ended; ``work`` never runs.
        """
        outcome: Future[T] = Future()

        def run() -> None:
            try:
                outcome.set_result(work())
            except BaseException as error:
                outcome.set_exception(_safe(error))

        self._queue(run)
        return outcome

    def ask(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """``start`` for a task on this thread's loop: without the locks of a future for threads, a third of its cost.

        Raises:
            RuntimeError: as ``start``.
        """
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                result = work()
            except BaseException as error:
                _tell(loop, _failed, outcome, _safe(error))
            else:
                _tell(loop, _succeeded, outcome, result)

        self._queue(run)
        return outcome

    def _queue(self, run: Callable[[], None]) -> None:
        try:
            self.submit(run)
        except RuntimeError as error:
            if self.closed:
                text = "the store is closed: an engine and its images are used inside `async with Engine(...)`"
                raise RuntimeError(text) from error
            # else no further thread could be started: it waits for one of those that are there

    def close(self) -> None:
        """End the threads, after all that was started. Idempotent."""
        self.closed = True
        self.shutdown()


def _safe(error: BaseException) -> BaseException:
    """What a future can hold: StopIteration would leave asyncio's without an end, the others would end the loop."""
    if isinstance(error, StopIteration | KeyboardInterrupt | SystemExit):
        return RuntimeError(f"{error!r} on a thread")
    return error


def _tell(
    loop: asyncio.AbstractEventLoop, how: Callable[[asyncio.Future[T], U], None], of: asyncio.Future[T], what: U
) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(how, of, what)


def _succeeded(outcome: asyncio.Future[T], result: T) -> None:
    if not outcome.done():
        outcome.set_result(result)


def _failed(outcome: asyncio.Future[T], error: BaseException) -> None:
    if not outcome.done():
        outcome.set_exception(error)


def _nothing() -> None:
    """Work that is over at once."""


class Threads:
    """Runs functions for tasks of one event loop. ``start`` may be called from any thread."""

    def __init__(self) -> None:
        self._executor = Executor(_THREADS, "fastoci-store")

    async def run(self, work: Callable[[], T]) -> T:
        """What ``work`` returns. Once started it is waited for, also by a task that is cancelled meanwhile.

        Then ``check`` in it raises, so that what takes long ends early.
        """
        result, cancelled = await self.run_to_end(work)
        if cancelled:
            raise asyncio.CancelledError
        return result

    async def run_to_end(self, work: Callable[[], T]) -> tuple[T, bool]:
        """``run`` for a task that has to undo the result when it is cancelled: the result, and whether it was.

        Raises:
            asyncio.CancelledError: it was cancelled, and there is nothing to undo.
            RuntimeError: the threads have ended.
        """
        stopped = _Stop()

        def stoppable() -> T:
            _work.stopped = stopped
            try:
                return work()
            finally:
                _work.stopped = None

        future = self._executor.ask(stoppable)
        try:
            return await asyncio.shield(future), False
        except asyncio.CancelledError:
            stopped.wanted = True
            try:
                result, _ = await wait_to_end(future)
            except Exception as error:
                raise asyncio.CancelledError from error
            return result, True

    @classmethod
    async def acquire(cls, work: Callable[[], T], undo: Callable[[T], object]) -> T:
        """``run`` before there is a store, for what opens one: ``undo`` it when this task was cancelled meanwhile."""
        threads = cls()
        try:
            result, cancelled = await threads.run_to_end(work)
        finally:
            threads.close()
        if cancelled:
            undo(result)
            raise asyncio.CancelledError
        return result

    def ask(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """``Executor.ask``, for work that nothing is to end early."""
        return self._executor.ask(work)

    async def run_stoppable(self, work: Callable[[Check], T]) -> T:
        """``run`` for work that gets ``check``, because it cannot know it from here."""
        return await self.run(lambda: work(check))

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Run ``work`` after all that was started before."""
        return self._executor.start(work)

    def close(self) -> None:
        """End the threads; nothing is started any more. Idempotent."""
        self._executor.close()
