"""The budget as the loop sees it, and stages that outlive a cancelled task."""

from __future__ import annotations

import asyncio
import threading

import pytest

from fastoci import _core
from fastoci.errors import SizeMismatchError
from fastoci.image.digest import Digest
from fastoci.stream.verify import Verifier, Verify
from fastoci.transfer.worker import Pipeline, Spans, Worker


class Slow:
    """A sink that lets the test say when a span may be through."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.seen: list[bytes] = []
        self.aborted = False

    def feed(self, span: _core.Span) -> None:
        self.entered.set()
        assert self.gate.wait(20)
        self.seen.append(bytes(span))

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


def pipeline(worker: Worker, data: bytes, sink: Slow, saved: list[tuple[int, bytes]], *, size: int = -1) -> Pipeline:
    verifier = Verifier(Digest.of(data), len(data) if size < 0 else size)
    return Pipeline(
        worker,
        Verify(verifier, sink),
        depth=3,
        progressed=lambda offset: None,
        checkpoint=lambda offset, state: saved.append((offset, state)),
        every=1 << 30,
    )


async def fill(spans: Spans, data: bytes) -> _core.Span:
    span = await spans.take()
    span.append(data)
    return span


async def test_waiting_tasks_get_spans_in_the_order_they_came_also_past_cancelled_ones() -> None:
    spans = Spans(_core.Pool(_core.SPAN_SIZE))
    held = await spans.take()
    order: list[int] = []

    async def want(number: int) -> None:
        span = await spans.take()
        order.append(number)
        span.release()

    tasks = [asyncio.create_task(want(number)) for number in range(5)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[3].cancel()
    held.release()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [1, 2, 4]
    assert spans.pool.in_use == 0


async def test_a_turn_given_to_a_task_that_is_cancelled_goes_to_the_next() -> None:
    spans = Spans(_core.Pool(_core.SPAN_SIZE))
    held = await spans.take()
    first, second = asyncio.create_task(spans.take()), asyncio.create_task(spans.take())
    await asyncio.sleep(0)
    held.release()
    await asyncio.sleep(0)  # the wake-up is on its way to the first
    first.cancel()
    span = await asyncio.wait_for(second, 5)
    span.release()
    assert first.cancelled()


async def test_abort_waits_for_the_thread_and_keeps_what_is_through() -> None:
    worker, spans, sink, saved = Worker(1), Spans(_core.Pool(4 << 20, poison=True)), Slow(), []
    stage = pipeline(worker, b"abcdef", sink, saved)
    await stage.feed(await fill(spans, b"abc"))
    await stage.feed(await fill(spans, b"def"))
    await asyncio.to_thread(sink.entered.wait)
    abort = asyncio.create_task(stage.abort())
    await asyncio.sleep(0.05)
    assert not abort.done()
    assert not sink.aborted
    sink.gate.set()
    await abort
    assert sink.aborted
    assert sink.seen == [b"abc"]
    assert [offset for offset, _ in saved] == [3]
    assert spans.pool.in_use == 0
    worker.close()


async def test_a_cancelled_abort_still_waits_for_the_thread() -> None:
    worker, spans, sink = Worker(1), Spans(_core.Pool(4 << 20, poison=True)), Slow()
    stage = pipeline(worker, b"abc", sink, [])
    await stage.feed(await fill(spans, b"abc"))
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
    worker, spans, sink = Worker(1), Spans(_core.Pool(8 << 20)), Slow()
    stage = pipeline(worker, b"aaaa", sink, [])
    fed = 0

    async def feed() -> None:
        nonlocal fed
        for _ in range(4):
            await stage.feed(await fill(spans, b"a"))
            fed += 1

    task = asyncio.create_task(feed())
    await asyncio.to_thread(sink.entered.wait)
    await asyncio.sleep(0.05)
    assert fed < 4
    sink.gate.set()
    await task
    assert (await stage.finish()).size == 4
    worker.close()


async def test_an_error_on_the_thread_reaches_the_feeder_and_nothing_after_it_is_saved() -> None:
    worker, spans, sink, saved = Worker(1), Spans(_core.Pool(8 << 20, poison=True)), Slow(), []
    sink.gate.set()
    stage = pipeline(worker, b"abc", sink, saved, size=5)
    with pytest.raises(SizeMismatchError):
        for _ in range(10):
            await stage.feed(await fill(spans, b"abc"))
            await asyncio.sleep(0.01)
    await stage.abort()
    assert [offset for offset, _ in saved] == [3]
    assert spans.pool.in_use == 0
    worker.close()
