"""How many buffers of tar a layer holds: many while it is alone, few beside others; and what threads do first."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastoci import _core
from fastoci.limits import Limits
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.layer_reading import LayerReader, OpenLayer
from fastoci.transfer.pipeline import PullPipeline
from fastoci.transfer.workers import WorkerPool

MIB = 1 << 20
SOURCE = 1  # buffer that a layer is read into
SOON_S = 20.0


class Gated:
    """A sink that uses as many buffers as the test allows."""

    name = "layer"

    def __init__(self) -> None:
        self.allowed = threading.Semaphore(0)
        self.fed = 0

    def feed(self, buffer: _core.Buffer) -> None:
        assert self.allowed.acquire(timeout=SOON_S)
        self.fed += 1

    def finish(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def abort(self) -> None:
        pass


@dataclass
class Scene:
    """A reader of one layer of 30 buffers, again and again."""

    reader: LayerReader
    buffers: Buffers
    layer: Path

    def read(self, sink: Gated) -> asyncio.Task[object]:
        def open_layer() -> OpenLayer:
            return OpenLayer(os.open(self.layer, os.O_RDONLY | os.O_CLOEXEC))

        return asyncio.create_task(self.reader.from_file(open_layer, sink, None, lambda offset, size: None))

    async def holds(self, count: int) -> None:
        """Wait until so many buffers are in use."""
        while self.buffers.pool.in_use != count * MIB:  # noqa: ASYNC110 - of threads
            await asyncio.sleep(0.001)


@asynccontextmanager
async def scene(tmp_path: Path, limits: Limits, *, threads: int) -> AsyncIterator[Scene]:
    layer = tmp_path / "layer"
    with layer.open("wb") as file:
        file.truncate(30 * MIB)
    pool = WorkerPool(threads)
    buffers = Buffers(_core.Pool(limits.memory, poison=True), ahead=limits.ahead)
    try:
        async with asyncio.timeout(SOON_S):
            yield Scene(LayerReader(pool, buffers, limits), buffers, layer)
    finally:
        pool.close()
    assert buffers.pool.in_use == 0


async def test_a_layer_that_is_alone_is_inflated_far_ahead_and_gives_that_back_to_the_next_one(tmp_path: Path) -> None:
    first, second = Gated(), Gated()
    async with scene(tmp_path, Limits(workers=2), threads=4) as it:
        reading = it.read(first)
        await it.holds(16 + SOURCE)
        first.allowed.release(3)
        while first.fed < 3:  # noqa: ASYNC110 - by a thread
            await asyncio.sleep(0.001)
        beside = it.read(second)
        first.allowed.release(17)  # what is full is used before it is given back
        await it.holds(4 + SOURCE + 4 + SOURCE)
        for sink in (first, second):
            sink.allowed.release(30)
        await asyncio.gather(reading, beside)
    assert (first.fed, second.fed) == (30, 30)


@pytest.mark.parametrize("limits", [Limits(workers=1), Limits(workers=2, memory=12 << 20)], ids=["core", "memory"])
async def test_a_layer_is_not_inflated_far_ahead_where_few_can_be_read_at_once(tmp_path: Path, limits: Limits) -> None:
    sink = Gated()
    async with scene(tmp_path, limits, threads=2) as it:
        reading = it.read(sink)
        await it.holds(4 + SOURCE)
        sink.allowed.release(30)
        await reading
    assert sink.fed == 30


class Recorded(Gated):
    """A maker of eight buffers, and their sink: what was done in which order."""

    demanded = 0

    def __init__(self) -> None:
        super().__init__()
        self.ended = False
        self.done = list[str]()

    def ready(self) -> bool:
        return not self.ended

    def hungry(self) -> bool:
        return False

    def make(self, out: _core.Buffer) -> _core.Buffer | None:
        self.done.append("make")
        self.ended = self.done.count("make") == 8
        out.append(b"some bytes")
        return out

    def feed(self, buffer: _core.Buffer) -> None:
        self.done.append("use")


async def order(threads: int, busy: int) -> list[str]:
    """What the threads that are not busy do for one stream with four buffers."""
    pool, buffers = WorkerPool(threads), Buffers(_core.Pool(64 * MIB))
    gate, both = threading.Event(), Recorded()

    async def grant(window: int) -> None:
        raise AssertionError

    try:
        async with asyncio.timeout(SOON_S):
            held = [asyncio.create_task(pool.run(lambda: gate.wait(SOON_S))) for _ in range(busy)]
            await asyncio.sleep(0)
            own = [await buffers.take() for _ in range(4)]
            pipeline = PullPipeline(
                pool, both, None, maker=both, buffers=own, grant=grant, progressed=lambda size: None
            )
            await pipeline.finish()
            gate.set()
            await asyncio.gather(*held)
    finally:
        pool.close()
    return both.done


async def test_a_stream_with_a_thread_to_itself_is_made_until_its_buffers_are_full() -> None:
    assert (await order(2, busy=1))[:5] == ["make"] * 4 + ["use"]


async def test_on_one_thread_making_and_using_take_turns() -> None:
    assert await order(1, busy=0) == ["make", "use"] * 8


async def test_a_buffer_that_is_given_back_while_a_thread_comes_for_it_is_not_missed() -> None:
    pool, buffers = WorkerPool(2), Buffers(_core.Pool(64 * MIB, poison=True))
    both = Recorded()

    async def grant(window: int) -> None:
        raise AssertionError

    own = [await buffers.take() for _ in range(4)]
    pipeline = PullPipeline(pool, both, None, maker=both, buffers=own, grant=grant, progressed=lambda size: None)
    pipeline.keep(0)
    assert buffers.pool.in_use == 0
    pipeline.make()  # by a thread that was told that there is one
    assert both.done == []
    await pipeline.abort()
    pool.close()
