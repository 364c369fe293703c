"""Blobs on their way through an engine: hashed, counted, and never whole when they are wrong.

Covers: transfer/streaming.py, transfer/file_pipeline.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from fastoci import _core
from fastoci._core import Buffer
from fastoci.errors import DigestMismatchError, SizeMismatchError, StoreError
from fastoci.events import BlobProgress, Event
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import BufferSource, HashPoint
from fastoci.limits import Limits
from fastoci.testing.suites.filling import blob_of, collect
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.scheduler import BytesSource
from fastoci.transfer.streaming import Streams
from fastoci.transfer.workers import WorkerPool
from support.file_source import InFile

BLOB, DATA = blob_of((3 << 20) + 7)
WRONG = DATA[:-1] + bytes([DATA[-1] ^ 1])


class Other:
    """A source that sends all of ``BLOB``, whatever is asked for."""

    name = "other"

    def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        return BytesSource(DATA).fetch(BLOB, offset, buffers)


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.calls: list[str] = []

    def feed(self, buffer: Buffer) -> None:
        self.data += memoryview(buffer)

    def finish(self) -> None:
        self.calls.append("finish")

    def abort(self) -> None:
        self.calls.append("abort")


@asynccontextmanager
async def streams(
    events: list[Event] | None = None, *, memory: int = 8 << 20, ahead: int = 7 << 20
) -> AsyncIterator[Streams]:
    workers, pool = WorkerPool(1), _core.Pool(memory, poison=True)
    buffers = Buffers(pool, ahead=ahead)
    try:
        yield Streams(workers, buffers, Limits(), ([] if events is None else events).append)
    finally:
        workers.close()
        assert pool.in_use == 0
        assert buffers.ahead == ahead


async def test_a_sink_has_all_bytes_and_the_proof_says_which() -> None:
    events: list[Event] = []
    sink = Kept()
    async with streams(events) as through:
        proof = await through.into(BLOB, BytesSource(DATA), sink)
    assert (proof.digest, proof.size) == (BLOB.digest, BLOB.size)
    assert bytes(sink.data) == DATA
    assert sink.calls == ["finish"]
    assert [event.offset for event in events if isinstance(event, BlobProgress)][-1] == BLOB.size


async def test_a_sink_of_wrong_bytes_is_aborted() -> None:
    sink = Kept()
    async with streams() as through:
        with pytest.raises(DigestMismatchError):
            await through.into(BLOB, BytesSource(WRONG), sink)
    assert sink.calls[-1] == "abort"


async def test_what_is_yielded_is_all_there_is() -> None:
    for size in (0, 1, 1 << 20, (3 << 20) + 7):
        blob, data = blob_of(size)
        async with streams() as through:
            assert await collect(through.verified(blob, BytesSource(data))) == data


@pytest.mark.parametrize("ahead", [0, 7 << 20], ids=["nothing ahead", "buffers ahead"])
async def test_nobody_gets_the_whole_of_wrong_bytes(ahead: int) -> None:
    for size in (1, 1000, 1 << 20, (3 << 20) + 7, 6 << 20):
        blob, data = blob_of(size)
        got = bytearray()
        async with streams(ahead=ahead) as through:
            with pytest.raises(DigestMismatchError):
                async with aclosing(through.verified(blob, BytesSource(bytes([data[0] ^ 1]) + data[1:]))) as buffers:
                    async for buffer in buffers:
                        got += memoryview(buffer)
                        buffer.release()
        assert len(got) < size


async def test_streams_go_on_with_one_buffer_for_all_of_them() -> None:
    blobs = [blob_of((3 << 20) + 7, seed) for seed in range(3)]
    async with streams(memory=1 << 20, ahead=0) as through:
        got = await asyncio.wait_for(
            asyncio.gather(*(collect(through.verified(blob, BytesSource(data))) for blob, data in blobs)), 30
        )
    assert got == [data for _, data in blobs]


async def test_streams_that_hold_buffers_leave_one_to_those_that_may_not() -> None:
    blobs = [blob_of((9 << 20) + 7, seed) for seed in range(3)]
    async with streams(memory=6 << 20, ahead=5 << 20) as through:
        got = await asyncio.wait_for(
            asyncio.gather(*(collect(through.verified(blob, BytesSource(data))) for blob, data in blobs)), 30
        )
    assert got == [data for _, data in blobs]


async def test_bytes_beyond_the_size_are_an_error_at_once() -> None:
    short = Descriptor(BLOB.media_type, BLOB.digest, 10)
    async with streams() as through:
        with pytest.raises(SizeMismatchError):
            await collect(through.verified(short, Other()))


async def test_a_consumer_that_ends_early_leaves_no_buffer_behind() -> None:
    async with streams() as through:
        assert DATA.startswith(await collect(through.verified(BLOB, BytesSource(DATA)), until=1))


async def test_what_is_yielded_of_a_file_is_all_there_is(tmp_path: Path) -> None:
    for size in (0, 1, 1 << 20, (3 << 20) + 7):
        blob, data = blob_of(size)
        async with streams() as through:
            assert await collect(through.verified(blob, InFile(tmp_path / "blob", data))) == data


async def test_a_file_is_gone_on_with_where_it_was_hashed_to(tmp_path: Path) -> None:
    blob, data = blob_of((40 << 20) + 7)
    points: list[HashPoint] = []
    async with streams() as through:
        source = InFile(tmp_path / "blob", data)
        await collect(through.verified(blob, source, points=points), until=36 << 20)
        points = points[:2]
        assert [point.offset for point in points] == [16 << 20, 32 << 20]
        assert await collect(through.verified(blob, source, points=points)) == data[32 << 20 :]


@pytest.mark.parametrize("ahead", [0, 7 << 20], ids=["nothing ahead", "buffers ahead"])
async def test_nobody_gets_the_whole_of_a_wrong_file(ahead: int, tmp_path: Path) -> None:
    for size in (1, 1000, 1 << 20, (3 << 20) + 7, 6 << 20):
        blob, data = blob_of(size)
        got = bytearray()
        async with streams(ahead=ahead) as through:
            source = InFile(tmp_path / "blob", bytes([data[0] ^ 1]) + data[1:])
            with pytest.raises(DigestMismatchError):
                async with aclosing(through.verified(blob, source)) as buffers:
                    async for buffer in buffers:
                        got += memoryview(buffer)
                        buffer.release()
        assert len(got) < size


@pytest.mark.parametrize("left", [0, 1 << 20, (4 << 20) + 1, (9 << 20) + 6])
async def test_a_file_that_becomes_shorter_is_an_error(left: int, tmp_path: Path) -> None:
    blob, data = blob_of((9 << 20) + 7)
    source = InFile(tmp_path / "blob", data)
    got = 0
    async with streams() as through:
        with pytest.raises(StoreError, match=rf"blob.*ends after \d+ of {blob.size} bytes"):
            async with aclosing(through.verified(blob, source)) as buffers:
                async for buffer in buffers:
                    if not got:
                        os.truncate(source.path, left)
                    got += len(buffer)
                    buffer.release()
    assert got < blob.size


async def test_a_file_that_becomes_longer_is_an_error(tmp_path: Path) -> None:
    async with streams() as through:
        with pytest.raises(SizeMismatchError):
            await collect(through.verified(BLOB, InFile(tmp_path / "blob", DATA + b"x")))


async def test_files_go_on_with_one_buffer_for_all_of_them(tmp_path: Path) -> None:
    blobs = [blob_of((3 << 20) + 7, seed) for seed in range(3)]
    async with streams(memory=1 << 20, ahead=0) as through:
        read = [through.verified(blob, InFile(tmp_path / str(blob.digest), data)) for blob, data in blobs]
        got = await asyncio.wait_for(asyncio.gather(*map(collect, read)), 30)
    assert got == [data for _, data in blobs]


async def test_a_consumer_that_ends_early_leaves_no_file_open(tmp_path: Path) -> None:
    opened = len(os.listdir("/proc/self/fd"))
    async with streams() as through:
        before = len(os.listdir("/proc/self/fd"))
        assert DATA.startswith(await collect(through.verified(BLOB, InFile(tmp_path / "blob", DATA)), until=1))
        assert len(os.listdir("/proc/self/fd")) == before
    assert len(os.listdir("/proc/self/fd")) == opened
