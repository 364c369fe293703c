"""The budget as the loop sees it, and stages that outlive a cancelled task.

Covers: transfer/buffers.py.
"""

from __future__ import annotations

import asyncio
import threading

import pytest

from fastoci import _core
from fastoci.errors import FormatError
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.pipeline import PushPipeline
from fastoci.transfer.workers import WorkerPool


class Slow:
    """A sink that lets the test say when a buffer may be through."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.seen: list[bytes] = []
        self.aborted = False

    def feed(self, buffer: _core.Buffer) -> None:
        self.entered.set()
        assert self.gate.wait(20)
        self.seen.append(bytes(buffer))

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


def pipeline(worker: WorkerPool, sink: Slow, through: list[int]) -> PushPipeline:
    return PushPipeline(worker, sink, None, depth=3, progressed=through.append)


async def fill(buffers: Buffers, data: bytes) -> _core.Buffer:
    buffer = await buffers.take()
    buffer.append(data)
    return buffer


async def test_waiting_tasks_get_buffers_in_the_order_they_came_also_past_cancelled_ones() -> None:
    buffers = Buffers(_core.Pool(_core.BUFFER_SIZE))
    held = await buffers.take()
    order: list[int] = []

    async def want(number: int) -> None:
        buffer = await buffers.take()
        order.append(number)
        buffer.release()

    tasks = [asyncio.create_task(want(number)) for number in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[3].cancel()
    held.release()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [1, 2, 4]
    assert buffers.pool.in_use == 0


async def test_a_turn_given_to_a_task_that_is_cancelled_goes_to_the_next() -> None:
    buffers = Buffers(_core.Pool(_core.BUFFER_SIZE))
    held = await buffers.take()
    first, second = asyncio.create_task(buffers.take()), asyncio.create_task(buffers.take())
    await asyncio.sleep(0)
    held.release()
    await asyncio.sleep(0)  # the wake-up is on its way to the first
    first.cancel()
    buffer = await asyncio.wait_for(second, 5)
    buffer.release()
    assert first.cancelled()


async def test_abort_waits_for_the_thread_and_keeps_what_is_through() -> None:
    worker, buffers, sink = WorkerPool(1), Buffers(_core.Pool(4 << 20, poison=True)), Slow()
    through: list[int] = []
    stage = pipeline(worker, sink, through)
    await stage.feed(await fill(buffers, b"abc"))
    await stage.feed(await fill(buffers, b"def"))
    await asyncio.to_thread(sink.entered.wait)
    abort = asyncio.create_task(stage.abort())
    await asyncio.sleep(0.05)
    assert not abort.done()
    assert not sink.aborted
    sink.gate.set()
    await abort
    assert sink.aborted
    assert sink.seen == [b"abc"]
    await settled()
    assert through == [3]
    assert buffers.pool.in_use == 0
    worker.close()


async def test_a_cancelled_abort_still_waits_for_the_thread() -> None:
    worker, buffers, sink = WorkerPool(1), Buffers(_core.Pool(4 << 20, poison=True)), Slow()
    stage = pipeline(worker, sink, [])
    await stage.feed(await fill(buffers, b"abc"))
    await asyncio.to_thread(sink.entered.wait)
    abort = asyncio.create_task(stage.abort())
    await asyncio.sleep(0)
    abort.cancel()
    await asyncio.sleep(0.05)
    assert not abort.done()
    sink.gate.set()
    await asyncio.wait([abort])
    assert sink.seen == [b"abc"]
    assert sink.aborted
    worker.close()


async def test_a_full_queue_makes_the_source_wait() -> None:
    worker, buffers, sink = WorkerPool(1), Buffers(_core.Pool(8 << 20)), Slow()
    through: list[int] = []
    stage = pipeline(worker, sink, through)
    fed = 0

    async def feed() -> None:
        nonlocal fed
        for _ in range(4):
            await stage.feed(await fill(buffers, b"a"))
            fed += 1

    task = asyncio.create_task(feed())
    await asyncio.to_thread(sink.entered.wait)
    await asyncio.sleep(0.05)
    assert fed < 4
    sink.gate.set()
    await task
    await stage.finish()
    await settled()
    assert sum(through) == 4
    worker.close()


class Failing(Slow):
    """A sink that refuses its second buffer."""

    def feed(self, buffer: _core.Buffer) -> None:
        if self.seen:
            raise FormatError("the second")
        self.seen.append(bytes(buffer))


async def test_an_error_on_the_thread_reaches_the_feeder() -> None:
    worker, buffers, sink = WorkerPool(1), Buffers(_core.Pool(8 << 20, poison=True)), Failing()
    through: list[int] = []
    stage = pipeline(worker, sink, through)
    with pytest.raises(FormatError, match="the second"):
        for _ in range(10):
            await stage.feed(await fill(buffers, b"abc"))
            await asyncio.sleep(0.01)
    await stage.abort()
    assert through == [3]
    assert buffers.pool.in_use == 0
    worker.close()


class Counting:
    """A sink that counts."""

    def __init__(self) -> None:
        self.count = 0

    def feed(self, buffer: _core.Buffer) -> None:
        self.count += 1

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        pass


async def test_a_buffer_that_may_wait_goes_with_another_pipelines() -> None:
    worker, buffers = WorkerPool(1), Buffers(_core.Pool(8 << 20, poison=True))
    patient, other = Counting(), Counting()
    waiting = PushPipeline(worker, patient, None, depth=1, progressed=lambda size: None)
    waiting.let_wait(1)
    await waiting.feed(await fill(buffers, b"abc"))
    await worker.run(lambda: None)
    assert patient.count == 0
    urgent = PushPipeline(worker, other, None, depth=1, progressed=lambda size: None)
    await urgent.feed(await fill(buffers, b"def"))
    await urgent.used()
    if _core.lanes() > 1:
        assert (patient.count, other.count) == (1, 1)
    await waiting.used()
    assert patient.count == 1
    worker.close()


async def test_pipelines_that_let_buffers_wait_share_lanes_also_when_a_thread_is_idle() -> None:
    pool, buffers = WorkerPool(2), Buffers(_core.Pool(8 << 20, poison=True))
    stages = [PushPipeline(pool, Counting(), None, depth=1, progressed=lambda size: None) for _ in range(2)]
    for stage in stages:
        stage.let_wait(1)
        for _ in range(2):  # one more than may wait
            stage._queue.append((await fill(buffers, b"abc")).retain())
    with pool._lock:  # both are ready before a thread can choose
        for stage in stages:
            pool._enqueue(stage)
        chosen = pool._choose()
        pool._to_use.clear()
    assert chosen == (None, stages[: _core.lanes()])
    for stage in stages:
        stage.busy = False
        await stage.abort()
    assert buffers.pool.in_use == 0
    pool.close()


async def test_no_more_buffers_wait_than_may() -> None:
    worker, buffers, sink = WorkerPool(1), Buffers(_core.Pool(8 << 20, poison=True)), Counting()
    stage = PushPipeline(worker, sink, None, depth=1, progressed=lambda size: None)
    stage.let_wait(1)
    for number in range(1, 4):
        await stage.feed(await fill(buffers, b"abc"))
        await worker.run(lambda: None)
        assert sink.count == number - 1
    await stage.finish()
    assert sink.count == 3
    worker.close()


async def test_a_pipeline_ends_whose_buffer_waits() -> None:
    worker, buffers, sink = WorkerPool(1), Buffers(_core.Pool(8 << 20, poison=True)), Counting()
    stage = PushPipeline(worker, sink, None, depth=1, progressed=lambda size: None)
    stage.let_wait(1)
    await stage.feed(await fill(buffers, b"abc"))
    await asyncio.wait_for(stage.abort(), 20)
    assert sink.count == 0
    assert buffers.pool.in_use == 0
    worker.close()


async def settled() -> None:
    """Let callbacks run that are due already."""
    for _ in range(3):
        await asyncio.sleep(0)
