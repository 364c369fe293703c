"""Whatever is raised on a thread reaches all who wait for it, and nobody else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from fastoci import _core
from fastoci.aio import all_or_first
from fastoci.events import BlobProgress, Event
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import BufferSource
from fastoci.stream.verify import Verifier
from fastoci.threads import Threads
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.pipeline import PullPipeline, PushPipeline
from fastoci.transfer.scheduler import BytesSource, Scheduler
from fastoci.transfer.workers import WorkerPool
from support.engine_parts import EngineParts, open_parts
from support.scratch import SOURCE

DATA = bytes(range(256)) * 12_000  # 3 MB
SOON_S = 20.0  # nothing here takes a second


class UnexpectedError(BaseException):
    """What no code knows, and no ``except Exception`` catches."""


KINDS: list[type[BaseException]] = [MemoryError, RuntimeError, KeyError, UnexpectedError, asyncio.CancelledError]


def blob_of(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", Digest.of(data), len(data))


async def in_pieces(blob: Descriptor, data: bytes, offset: int, buffers: BufferSource) -> AsyncGenerator[Any, None]:
    async for buffer in BytesSource(data).fetch(blob, offset, buffers):
        yield buffer


class Own:
    """A source of somebody who did not read the contract."""

    name = "mine"

    def __init__(self, break_it: Callable[[_core.Buffer], Any], data: bytes = DATA) -> None:
        self._break = break_it
        self._data = data

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Any, None]:
        async for buffer in in_pieces(blob, self._data, offset, buffers):
            yield self._break(buffer)


def as_bytes(buffer: _core.Buffer) -> bytes:
    data = bytes(buffer)
    buffer.release()
    return data


def released(buffer: _core.Buffer) -> _core.Buffer:
    buffer.release()
    return buffer


async def fetch_beside(parts: EngineParts, source: Own) -> BaseException | None:
    """How a fetch from a source ends while another one, of a good source, is under way and succeeds."""
    other = DATA + b"other"
    async with asyncio.timeout(SOON_S):
        bad, good = await asyncio.gather(
            parts.fetch(blob_of(DATA), source),
            parts.fetch(blob_of(other), BytesSource(other)),
            return_exceptions=True,
        )
    assert good is None
    assert await parts.store.read(blob_of(other)) == other
    return bad


async def test_a_source_that_yields_bytes_is_told_so_and_harms_nobody(tmp_path: Path) -> None:
    async with open_parts(tmp_path) as parts:
        error = await fetch_beside(parts, Own(as_bytes))
        assert isinstance(error, TypeError)
        assert str(error) == "mine yields bytes, not the Buffers that it is given"
        await parts.fetch(blob_of(DATA), BytesSource(DATA))


async def test_a_source_that_releases_what_it_gives_is_told_so_and_harms_nobody(tmp_path: Path) -> None:
    async with open_parts(tmp_path) as parts:
        error = await fetch_beside(parts, Own(released))
        assert isinstance(error, ValueError)
        assert str(error) == "the buffer was released"
        await parts.fetch(blob_of(DATA), BytesSource(DATA))


async def test_a_source_that_releases_a_buffer_later_is_no_reason_for_wrong_bytes(tmp_path: Path) -> None:
    class Late(Own):
        async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Any, None]:
            async for buffer in in_pieces(blob, DATA, offset, buffers):
                yield buffer
                buffer.release()

    async with open_parts(tmp_path) as parts:
        error = await fetch_beside(parts, Late(released))
        assert isinstance(error, ValueError)
        await parts.fetch(blob_of(DATA), BytesSource(DATA))
        assert await parts.store.read(blob_of(DATA)) == DATA


async def test_the_fault_of_one_source_is_no_fault_of_a_job_that_waits_for_its_flight(tmp_path: Path) -> None:
    gate = asyncio.Event()

    class Gated(Own):
        async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Any, None]:
            await gate.wait()
            yield 1 // offset

    async with open_parts(tmp_path) as parts, asyncio.timeout(SOON_S):
        first = asyncio.create_task(parts.fetch(blob_of(DATA), Gated(as_bytes)))
        await parts.events.until(lambda: bool(parts.events))
        second = asyncio.create_task(parts.fetch(blob_of(DATA), Own(lambda buffer: buffer)))
        await asyncio.sleep(0)
        gate.set()
        await second
        with pytest.raises(ZeroDivisionError):
            await first
        assert await parts.store.read(blob_of(DATA)) == DATA


async def test_a_source_that_is_cancelled_by_itself_is_an_error_and_no_success(tmp_path: Path) -> None:
    def cancelled(buffer: _core.Buffer) -> None:
        buffer.release()
        raise asyncio.CancelledError

    async with open_parts(tmp_path) as parts, asyncio.timeout(SOON_S):
        with pytest.raises(RuntimeError, match=r"mine ended the fetch of sha256:\w+ by itself"):
            await parts.fetch(blob_of(DATA), Own(cancelled))


async def test_one_of_several_tasks_that_somebody_else_cancelled_is_no_success() -> None:
    async def nothing() -> None:
        await asyncio.sleep(0)

    tasks = [asyncio.create_task(nothing()) for _ in range(2)]
    tasks[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await all_or_first(tasks)


async def test_an_observer_that_raises_ends_its_own_job(tmp_path: Path) -> None:
    def observe(event: Event) -> None:
        if isinstance(event, BlobProgress):
            raise UnexpectedError

    async with open_parts(tmp_path) as parts, asyncio.timeout(SOON_S):
        scheduler = Scheduler(parts.worker, parts.buffers, parts.job.limits, observe)
        with pytest.raises(UnexpectedError):
            await parts.fetch(blob_of(DATA), BytesSource(DATA), scheduler=scheduler)
        await scheduler.close()
        await parts.fetch(blob_of(DATA), BytesSource(DATA))


class Collected:
    """A sink that works, and counts."""

    def __init__(self) -> None:
        self.size = 0
        self.aborted = 0

    def feed(self, buffer: _core.Buffer) -> None:
        self.size += len(buffer)

    def finish(self) -> None: ...

    def abort(self) -> None:
        self.aborted += 1

    def stop(self) -> None: ...


class Breaking(Collected):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def feed(self, buffer: _core.Buffer) -> None:
        raise self._error


class Keeping(Collected):
    """A sink that breaks its contract: it lends a buffer for longer than it may."""

    def feed(self, buffer: _core.Buffer) -> None:
        self.kept = memoryview(buffer)


class BreakingVerifier(Verifier):
    def __init__(self, error: BaseException) -> None:
        super().__init__(Digest.of(b""), None)
        self._raised = error

    def expect(self, buffer: _core.Buffer) -> None:
        raise self._raised


@asynccontextmanager
async def workers(threads: int = 1) -> AsyncIterator[tuple[WorkerPool, Buffers]]:
    """One thread, so that pipelines share it and its batches; at the end all buffers are back."""
    pool = WorkerPool(threads)
    buffers = Buffers(_core.Pool(64 << 20, poison=True))
    try:
        async with asyncio.timeout(SOON_S):
            yield pool, buffers
    finally:
        pool.close()
    assert buffers.pool.in_use == 0


async def filled(buffers: Buffers) -> _core.Buffer:
    buffer = await buffers.take()
    buffer.append(b"some bytes")
    return buffer


@asynccontextmanager
async def held(pool: WorkerPool) -> AsyncIterator[None]:
    """Keep the only thread busy, so that what is fed meanwhile is one batch."""
    gate, entered = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait() -> None:
        loop.call_soon_threadsafe(entered.set)
        assert gate.wait(SOON_S)

    running = asyncio.create_task(pool.run(wait))
    await entered.wait()
    try:
        yield
    finally:
        gate.set()
        await running


async def end_of(pipeline: PushPipeline | PullPipeline) -> BaseException | None:
    """How a pipeline ends: its error, after which it was aborted, or None."""
    try:
        await pipeline.finish()
    except BaseException as error:
        await pipeline.abort()
        return error
    return None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["sink", "verifier"])
async def test_what_one_stream_raises_is_its_own_also_among_streams_that_are_hashed_together(
    kind: type[BaseException], place: str
) -> None:
    raised = kind("it")
    async with workers() as (pool, buffers):
        sinks = [Collected(), Breaking(raised) if place == "sink" else Collected(), Collected()]
        verifiers = [Verifier(Digest.of(b"some bytes"), 10) for _ in sinks]
        if place == "verifier":
            verifiers[1] = BreakingVerifier(raised)
        pipelines = [
            PushPipeline(pool, sink, verifier, depth=2, progressed=lambda size: None)
            for sink, verifier in zip(sinks, verifiers, strict=True)
        ]
        async with held(pool):
            for pipeline in pipelines:
                await pipeline.feed(await filled(buffers))
        ends = [await end_of(pipeline) for pipeline in pipelines]
        assert ends == [None, raised, None]
        assert sinks[1].aborted == 1


async def test_what_cannot_be_told_apart_reaches_every_stream_of_the_batch() -> None:
    async with workers() as (pool, buffers):
        verifiers = [Verifier(Digest.of(b"some bytes", name), 10) for name in ("sha256", "sha512", "sha256")]
        verifiers[1]._hash = cast(Any, None)
        pipelines = [
            PushPipeline(pool, Collected(), verifier, depth=2, progressed=lambda size: None) for verifier in verifiers
        ]
        async with held(pool):
            for pipeline in pipelines:
                await pipeline.feed(await filled(buffers))
        ends = [await end_of(pipeline) for pipeline in pipelines]
        assert [type(end) for end in ends] == [AttributeError] * 3


class Maker:
    """Makes one buffer, or raises at one of its doors."""

    def __init__(self, door: str = "", error: BaseException | None = None) -> None:
        self.ended = False
        self._door = door
        self._error = error
        self._thread = threading.get_ident()

    def _enter(self, door: str) -> None:
        if self._error is not None and door == self._door:
            raise self._error

    @property
    def demanded(self) -> int:
        return 0

    def ready(self) -> bool:
        self._enter("ready")
        return not self.ended

    def hungry(self) -> bool:
        self._enter("hungry")
        return False

    def make(self, out: _core.Buffer) -> _core.Buffer | None:
        self._enter("make")
        if self.ended:
            return None
        self.ended = True
        out.append(b"some bytes")
        return out


async def pull_pipeline(pool: WorkerPool, buffers: Buffers, maker: Maker, sink: Collected) -> PullPipeline:
    async def grant(window: int) -> None:
        raise AssertionError

    own = [await buffers.take() for _ in range(2)]
    return PullPipeline(pool, sink, None, maker=maker, buffers=own, grant=grant, progressed=lambda size: None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("door", ["ready", "hungry", "make"])
async def test_what_the_maker_of_one_stream_raises_is_its_own(kind: type[BaseException], door: str) -> None:
    raised = kind("it")
    async with workers() as (pool, buffers):
        bad = await pull_pipeline(pool, buffers, Maker(door, raised), Collected())
        good = await pull_pipeline(pool, buffers, Maker(), Collected())
        ends = await asyncio.gather(end_of(bad), end_of(good))
        assert tuple(ends) == (raised, None)


async def test_a_sink_that_keeps_what_it_is_lent_fails_and_the_buffer_comes_back_with_it() -> None:
    async with workers() as (pool, buffers):
        sink = Keeping()
        bad = await pull_pipeline(pool, buffers, Maker(), sink)
        good = await pull_pipeline(pool, buffers, Maker(), Collected())
        ends = await asyncio.gather(end_of(bad), end_of(good))
        assert isinstance(ends[0], ValueError)
        assert ends[1] is None
        sink.kept.release()


@pytest.mark.parametrize("kind", [*KINDS, StopIteration])
async def test_what_work_raises_on_a_thread_is_what_its_caller_gets(kind: type[BaseException]) -> None:
    def work() -> None:
        raise kind("it")

    threads = Threads()
    expected = RuntimeError if kind is StopIteration else kind
    async with workers() as (pool, _):
        for run in (pool.run, threads.run):
            with pytest.raises(expected):
                await run(work)
    threads.close()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_on_a_thread_ends_its_work_and_not_the_loop(kind: type[BaseException]) -> None:
    def work() -> None:
        raise kind("it")

    async def ends() -> list[BaseException | None]:
        threads = Threads()
        try:
            async with workers() as (pool, _):
                tasks = [asyncio.create_task(run(work)) for run in (pool.run, threads.run)]
                await asyncio.wait(tasks)
                return [task.exception() for task in tasks]
        finally:
            threads.close()

    left: list[BaseException | None] = []
    try:
        left += [error for error in asyncio.run(ends()) if not isinstance(error, RuntimeError)]
    except (KeyboardInterrupt, SystemExit) as error:
        left.append(error)
    assert left == []


async def test_threads_that_have_ended_say_so() -> None:
    pool, buffers = WorkerPool(1), Buffers(_core.Pool(4 << 20))
    pool.close()
    with pytest.raises(RuntimeError):
        await pool.run(int)
    pipeline = PushPipeline(pool, Collected(), None, depth=2, progressed=lambda size: None)
    with pytest.raises(RuntimeError, match="the engine is closed"):
        await pipeline.feed(await filled(buffers))
    pipeline._drop()
    assert buffers.pool.in_use == 0


_FEW_THREADS = """
import asyncio, threading
from fastoci._core import Pool
from fastoci.image.digest import Digest
from fastoci.stream.verify import Verifier
from fastoci.threads import Executor, Threads
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.workers import WorkerPool
from transfer.test_exceptions_on_threads import Collected, end_of, filled, PushPipeline

def refused(start):
    try:
        start()
    except RuntimeError:
        return True

async def main():
    pool, threads, buffers = WorkerPool(4), Threads(), Buffers(Pool(64 << 20))
    threading.stack_size(1 << 47)  # more than there are addresses
    assert refused(threading.Thread(target=int).start)
    assert await asyncio.gather(*(pool.run(int) for _ in range(20))) == [0] * 20
    assert await asyncio.gather(*(threads.run(int) for _ in range(20))) == [0] * 20
    pipelines = [
        PushPipeline(pool, Collected(), Verifier(Digest.of(b"some bytes"), 10), depth=2, progressed=lambda size: None)
        for _ in range(8)
    ]
    for pipeline in pipelines:
        await pipeline.feed(await filled(buffers))
    assert await asyncio.gather(*map(end_of, pipelines)) == [None] * 8
    threads.close()
    pool.close()
    assert refused(lambda: Executor(1, "refused"))

asyncio.run(main())
"""


def test_where_no_more_threads_can_be_started_those_that_are_there_do_all() -> None:
    # A process of its own: in CPython 3.11 a thread that could not be started leaves a state behind.
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{Path(__file__).parents[1]}"}
    command = [sys.executable, "-c", _FEW_THREADS]
    done = subprocess.run(command, env=environment, timeout=100, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
