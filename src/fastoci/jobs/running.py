"""The jobs that run in an engine, and their end when it is left: what they work with is closed after them.

Spec: asyncio, "Task Cancellation" (``uncancel``).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from fastoci.aio import wait_to_end

P = ParamSpec("P")
T = TypeVar("T")


class RunningJobs:
    """The tasks that are inside a job of one engine. Used on the engine's loop."""

    def __init__(self) -> None:
        self._jobs: Counter[asyncio.Task[object]] = Counter()  # a job may do others
        self._ended: set[asyncio.Task[object]] = set()  # cancelled by ``end``
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_over = False

    @contextmanager
    def job(self) -> Iterator[None]:
        """This task does a job.

        Raises:
            RuntimeError: the engine was left, before or meanwhile.
        """
        if self._is_over:
            raise RuntimeError("the engine was left: it and its images are used inside `async with Engine(...)`")
        task = asyncio.current_task()
        assert task is not None
        self._jobs[task] += 1
        self._idle.clear()
        try:
            yield
        except asyncio.CancelledError:
            if self._jobs[task] == 1 and task in self._ended and task.cancelling() == 1:
                raise RuntimeError("the engine was left while this job ran: what was finished stays") from None
            raise
        finally:
            self._leave(task)

    def _leave(self, task: asyncio.Task[object]) -> None:
        self._jobs[task] -= 1
        if self._jobs[task]:
            return
        del self._jobs[task]
        if task in self._ended:
            self._ended.discard(task)
            task.uncancel()
        if not self._jobs:
            self._idle.set()

    async def end(self) -> bool:
        """Cancel all jobs, wait until each has cleaned up, and let none begin; whether this task was cancelled."""
        self._is_over = True
        for task in list(self._jobs):
            self._ended.add(task)
            task.cancel()
        return (await wait_to_end(self._idle.wait()))[1]


class _Face(Protocol):
    @property
    def _running(self) -> RunningJobs: ...


F = TypeVar("F", bound=_Face)


def job(method: Callable[Concatenate[F, P], Awaitable[T]]) -> Callable[Concatenate[F, P], Coroutine[object, object, T]]:
    """A method that is a job of its engine: it ends before the engine closes what it works with."""

    @wraps(method)
    async def run(face: F, /, *args: P.args, **keywords: P.kwargs) -> T:
        with face._running.job():
            return await method(face, *args, **keywords)

    return run
