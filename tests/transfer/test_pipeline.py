"""How work ends: a cancellation is never lost, the first error is the one that is told, nobody waits for nothing.

Covers: stream/sink.py.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Collection
from pathlib import Path
from types import MethodType

import pytest

from fastoci import _core
from fastoci._core import Buffer
from fastoci.errors import FormatError, StoreError, TruncatedError
from fastoci.events import BlobFailed, Event
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import BufferSource
from fastoci.limits import Limits
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.pipeline import PushPipeline
from fastoci.transfer.scheduler import BytesSource, Scheduler
from fastoci.transfer.workers import WorkerPool
from support.engine_parts import open_parts

DATA = b"0123456789" * 200_000
BLOB = Descriptor("application/octet-stream", Digest.of(DATA), len(DATA))


class Cut:
    """A source that breaks off after one buffer."""

    def __init__(self, name: str = "cut") -> None:
        self.name = name

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        buffer = await buffers.take()
        buffer.append(DATA[:1000])
        yield buffer
        raise TruncatedError("cut", url="test", received=1000)


async def test_a_flight_that_has_just_failed_is_not_joined(tmp_path: Path) -> None:
    """Whoever tries elsewhere the moment he hears of a failure."""
    async with open_parts(tmp_path) as parts:
        again: list[asyncio.Task[None]] = []

        def observe(event: Event) -> None:
            if isinstance(event, BlobFailed) and not again:
                again.append(asyncio.create_task(parts.fetch(BLOB, BytesSource(DATA), scheduler=scheduler)))

        scheduler = Scheduler(parts.worker, parts.buffers, Limits(), observe)
        with pytest.raises(TruncatedError):
            await parts.fetch(BLOB, Cut(), scheduler=scheduler)
        await again[0]
        assert parts.store.holds(BLOB)


async def test_a_disk_that_refuses_to_clean_up_does_not_hide_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_parts(tmp_path) as parts:
        real = parts.store.blobs.begin

        async def begin(self: object, blob: Descriptor, *, cached: bool = False) -> object:
            ingest = await real(blob, cached=cached)
            assert ingest is not None
            end = ingest.abort

            async def abort(self: object, *, discard: bool = False, corrupt: Collection[str] = ()) -> None:
                await end(discard=discard, corrupt=corrupt)
                raise StoreError("refused", path="data")

            monkeypatch.setattr(ingest, "abort", MethodType(abort, ingest))
            return ingest

        monkeypatch.setattr(parts.store.blobs, "begin", MethodType(begin, parts.store.blobs))
        with pytest.raises(TruncatedError, match="cut"):
            await parts.fetch(BLOB, Cut())


async def test_everybody_who_waited_for_a_flight_has_an_error_of_his_own(tmp_path: Path) -> None:
    """Each error names the image it is for."""
    async with open_parts(tmp_path) as parts:
        source = Cut()
        async with parts.writer([BLOB]) as writer:  # both ask before the flight can end
            fetches = (parts.scheduler.fetch(writer, BLOB, source) for _ in range(2))
            first, second = await asyncio.gather(*fetches, return_exceptions=True)
        assert sum(isinstance(event, BlobFailed) for event in parts.events) == 1
    for error in (first, second):
        assert isinstance(error, TruncatedError)
        assert (error.message, error.received, error.blob) == ("cut", 1000, str(BLOB.digest))
    assert first is not second


class Gated:
    """A sink that waits in ``feed`` until it is let on."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()

    def feed(self, buffer: Buffer) -> None:
        self.entered.set()
        assert self.gate.wait(20)

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        pass


class Broken(Gated):
    """A sink that fails, once."""

    def __init__(self) -> None:
        super().__init__()
        self.fed = 0

    def feed(self, buffer: Buffer) -> None:
        self.fed += 1
        self.entered.set()
        raise FormatError(f"buffer {self.fed}")


def stage(worker: WorkerPool, sink: Gated) -> PushPipeline:
    return PushPipeline(worker, sink, None, depth=4, progressed=lambda size: None)


async def test_an_idle_thread_takes_the_stream_that_comes_while_another_is_at_work() -> None:
    worker, buffers = WorkerPool(2), Buffers(_core.Pool(4 << 20))
    first, second = Gated(), Gated()
    stages = [stage(worker, first), stage(worker, second)]
    await stages[0].feed(await buffers.take())
    assert await asyncio.to_thread(first.entered.wait, 10)
    await stages[1].feed(await buffers.take())
    served = await asyncio.to_thread(second.entered.wait, 2)
    first.gate.set()
    second.gate.set()
    for each in stages:
        await each.finish()
    worker.close()
    assert served


async def test_a_sink_that_failed_is_fed_no_more() -> None:
    worker, buffers, sink = WorkerPool(1), Buffers(_core.Pool(8 << 20, poison=True)), Broken()
    pipeline = stage(worker, sink)
    await pipeline.feed(await buffers.take())
    assert await asyncio.to_thread(sink.entered.wait, 10)
    await worker.run(lambda: None)  # the thread is through
    for _ in range(3):
        with pytest.raises(FormatError, match="buffer 1"):
            await pipeline.feed(await buffers.take())
        await worker.run(lambda: None)
    await pipeline.abort()
    assert sink.fed == 1
    assert buffers.pool.in_use == 0
    worker.close()


async def test_whoever_comes_later_does_not_overtake_a_task_that_waits_for_a_buffer() -> None:
    buffers = Buffers(_core.Pool(_core.BUFFER_SIZE))
    held = await buffers.take()
    order: list[int] = []

    async def want(number: int) -> None:
        buffer = await buffers.take()
        order.append(number)
        await asyncio.sleep(0)
        buffer.release()

    early = [asyncio.create_task(want(number)) for number in (1, 2)]
    await asyncio.sleep(0)
    held.release()
    late = asyncio.create_task(want(3))  # runs before the wake-up of the first
    await asyncio.wait_for(asyncio.gather(*early, late), 10)
    assert order == [1, 2, 3]
    assert buffers.pool.in_use == 0
