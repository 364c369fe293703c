"""One digest in flight once, whoever asks, whoever goes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastoci._core import Buffer
from fastoci.errors import DigestMismatchError, IntegrityError, NotFoundError, TruncatedError
from fastoci.events import BlobProgress, BlobWaiting, FetchDuplicated
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import BufferSource
from fastoci.limits import Limits
from fastoci.store.store import Store
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.scheduler import BytesSource, Scheduler
from fastoci.transfer.tee import Tee
from support.engine_parts import EngineParts, open_parts
from support.store_shelf import Shelf

DATA = b"0123456789" * 300_000


def blob(data: bytes, algorithm: str = "sha256") -> Descriptor:
    return Descriptor("application/octet-stream", Digest.of(data, algorithm), len(data))


class Source:
    """A blob source of one blob that counts, waits, and breaks off where it is told to."""

    def __init__(self, data: bytes, *, name: str = "source", cut: int | None = None) -> None:
        self.name = name
        self.offsets: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.half = asyncio.Event()
        self._data = data
        self._cut = cut

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        self.offsets.append(offset)
        while offset < len(self._data):
            if self._cut is not None and offset >= self._cut:
                raise TruncatedError("cut", url="test", received=offset)
            buffer = await buffers.take()
            offset += buffer.append(self._data[offset : offset + (1 << 20)])
            yield buffer
            self.half.set()
            await self.gate.wait()


class Refusing(Source):
    """A source that does not have the blob."""

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        self.offsets.append(offset)
        await self.gate.wait()
        raise NotFoundError("no such blob", url="test", status=404)
        yield


class InParts(Source):
    """A source of a small blob that gives a few bytes at a time."""

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        for start in range(offset, blob.size, 1000):
            buffer = await buffers.take()
            buffer.append(self._data[start : start + 1000])
            yield buffer
            await asyncio.sleep(0)  # others come to the same point


async def test_a_reader_has_a_small_blob_once_in_however_many_parts_it_comes(tmp_path: Path) -> None:
    data, tee, seen = DATA[:9500], Tee(), b""
    async with open_parts(tmp_path) as parts, parts.writer([blob(data)]) as writer:
        await parts.scheduler.fetch(writer, blob(data), InParts(data), tee=tee)
        tee.end()
        async for buffer in tee.buffers():
            seen += bytes(buffer)
            buffer.release()
        assert await parts.store.read(blob(data)) == data
    assert seen == data


async def test_more_small_blobs_in_parts_than_there_are_buffers_all_arrive(tmp_path: Path) -> None:
    blobs = [b"%d" % start + DATA[:2500] for start in range(1, 60)]
    async with open_parts(tmp_path, Limits(memory=4 << 20)) as parts:
        fetches = [parts.fetch(blob(data), InParts(data)) for data in blobs]
        await asyncio.wait_for(asyncio.gather(*fetches), 20)
        for data in blobs:
            assert await parts.store.read(blob(data)) == data


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_blob_arrives_whole_and_is_read_back(tmp_path: Path, algorithm: str) -> None:
    async with open_parts(tmp_path) as parts:
        await parts.fetch(blob(DATA, algorithm), Source(DATA))
        assert await parts.store.read(blob(DATA, algorithm)) == DATA


async def test_a_hundred_tasks_that_want_a_blob_share_one_flight(tmp_path: Path) -> None:
    source = Source(DATA)
    async with open_parts(tmp_path) as parts:
        await asyncio.gather(*(parts.fetch(blob(DATA), source) for _ in range(100)))
    assert source.offsets == [0]


async def test_the_flight_goes_on_when_the_task_that_started_it_is_cancelled(tmp_path: Path) -> None:
    source = Source(DATA)
    source.gate.clear()
    async with open_parts(tmp_path) as parts, parts.writer([blob(DATA)]) as writer:
        first = asyncio.create_task(parts.scheduler.fetch(writer, blob(DATA), source))
        await source.half.wait()
        second = asyncio.create_task(parts.scheduler.fetch(writer, blob(DATA), source))
        await asyncio.sleep(0)
        first.cancel()
        source.gate.set()
        await second
        assert first.cancelled()
        assert parts.store.holds(blob(DATA))
    assert source.offsets == [0]


async def test_a_flight_whose_first_session_is_over_begins_for_one_that_still_waits(tmp_path: Path) -> None:
    other = Store.at(tmp_path)
    held = await other.blobs.begin(blob(DATA))
    assert held is not None
    async with open_parts(tmp_path) as parts, parts.writer([blob(DATA)]) as writer:
        first = asyncio.create_task(parts.fetch(blob(DATA), Source(DATA)))
        await parts.events.until(lambda: any(isinstance(event, BlobWaiting) for event in parts.events))
        second = asyncio.create_task(parts.scheduler.fetch(writer, blob(DATA), Source(DATA)))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        await held.abort()
        await second
        assert parts.store.holds(blob(DATA))
    other.close()


async def test_what_another_process_had_and_lost_is_fetched_with_an_event(tmp_path: Path) -> None:
    other = Shelf(tmp_path)
    held = await other.store.blobs.begin(blob(DATA))
    assert held is not None
    async with open_parts(tmp_path) as parts:
        task = asyncio.create_task(parts.fetch(blob(DATA), Source(DATA)))
        other.feed(held, DATA, until=2_000_000)
        digest = str(blob(DATA).digest)
        await parts.events.until(lambda: BlobProgress(digest, 2_000_000) in parts.events)
        await held.abort(discard=True)
        await task
        reason = "the fetch of another process was lost"
        again = [event for event in parts.events if isinstance(event, FetchDuplicated)]
        assert again == [FetchDuplicated("", digest, "", 0, 2_000_000, reason)]
    other.store.close()


async def test_the_last_task_to_go_ends_the_flight_and_the_next_goes_on_from_there(tmp_path: Path) -> None:
    source = Source(DATA)
    source.gate.clear()
    async with open_parts(tmp_path) as parts:
        task = asyncio.create_task(parts.fetch(blob(DATA), source))
        await source.half.wait()
        task.cancel()
        await asyncio.wait([task])
        source.gate.set()
        await parts.fetch(blob(DATA), source)
        assert await parts.store.read(blob(DATA)) == DATA
    assert source.offsets[0] == 0
    assert 0 < source.offsets[1] <= 2 << 20


async def test_a_task_that_comes_while_a_flight_is_being_cancelled_waits_for_its_end(tmp_path: Path) -> None:
    source = Source(DATA)
    source.gate.clear()
    async with open_parts(tmp_path) as parts, parts.writer([blob(DATA)]) as writer:
        task = asyncio.create_task(parts.scheduler.fetch(writer, blob(DATA), source))
        await source.half.wait()
        task.cancel()
        await asyncio.sleep(0)
        source.gate.set()
        await parts.scheduler.fetch(writer, blob(DATA), source)
        assert await parts.store.read(blob(DATA)) == DATA


async def test_a_blob_that_was_cut_keeps_what_came(tmp_path: Path) -> None:
    async with open_parts(tmp_path) as parts:
        with pytest.raises(TruncatedError) as caught:
            await parts.fetch(blob(DATA), Source(DATA, cut=1 << 20))
        assert caught.value.blob == str(blob(DATA).digest)
        rest = Source(DATA)
        await parts.fetch(blob(DATA), rest)
    assert rest.offsets == [1 << 20]


async def test_wrong_bytes_are_never_visible_and_never_resumed_from(tmp_path: Path) -> None:
    wrong = bytearray(DATA)
    wrong[1_500_000] ^= 1
    async with open_parts(tmp_path) as parts:
        with pytest.raises(DigestMismatchError):
            await parts.fetch(blob(DATA), Source(bytes(wrong)))
        assert not parts.store.holds(blob(DATA))
        good = Source(DATA)
        await parts.fetch(blob(DATA), good)
    assert good.offsets == [0]


async def test_a_waiter_with_another_source_takes_over_when_the_flight_fails(tmp_path: Path) -> None:
    async with open_parts(tmp_path) as parts, parts.writer([blob(DATA)]) as writer:
        bad, good = Refusing(b"", name="bad"), Source(DATA, name="good")
        bad.gate.clear()
        first = asyncio.create_task(parts.scheduler.fetch(writer, blob(DATA), bad))
        await asyncio.sleep(0)
        second = asyncio.create_task(parts.scheduler.fetch(writer, blob(DATA), good))
        await asyncio.sleep(0)
        bad.gate.set()
        await second
        with pytest.raises(NotFoundError):
            await first
        assert parts.store.holds(blob(DATA))


async def test_closing_cancels_every_flight_and_waits(tmp_path: Path) -> None:
    source = Source(DATA)
    source.gate.clear()
    async with open_parts(tmp_path) as parts:
        task = asyncio.create_task(parts.fetch(blob(DATA), source))
        await source.half.wait()
        await parts.scheduler.close()
        assert parts.pool.in_use == 0
        await asyncio.wait([task])
    assert task.cancelled()


async def test_an_empty_blob_and_a_blob_in_memory_are_stored(tmp_path: Path) -> None:
    async with open_parts(tmp_path) as parts:
        for data in (b"", b"{}"):
            await parts.fetch(blob(data), BytesSource(data))
            assert await parts.store.read(blob(data)) == data


async def test_more_blobs_than_buffers_all_arrive(tmp_path: Path) -> None:
    async def fetch(parts: EngineParts, number: int) -> None:
        data = number.to_bytes(2, "big") * 1_000_000
        await parts.fetch(blob(data), Source(data))

    async with open_parts(tmp_path, Limits(memory=4 << 20, connections=16)) as parts:
        await asyncio.gather(*(fetch(parts, number) for number in range(20)))


class Flights:
    """Blobs of several registries that are held after their first bytes."""

    def __init__(self, parts: EngineParts, *names: str, scheduler: Scheduler | None = None) -> None:
        self.sources = [Source(b"%d" % number, name=name) for number, name in enumerate(names)]
        for source in self.sources:
            source.gate.clear()
        self.tasks = [
            asyncio.create_task(parts.fetch(blob(b"%d" % number), source, scheduler=scheduler))
            for number, source in enumerate(self.sources)
        ]

    async def begun(self, count: int) -> None:
        """Wait until so many are held, and no more."""
        halves = [asyncio.create_task(source.half.wait()) for source in self.sources]
        for arrived in itertools.islice(asyncio.as_completed(halves), count):
            await arrived
        for half in halves:
            half.cancel()
        await asyncio.sleep(0.05)  # for one too many
        assert sum(bool(source.offsets) for source in self.sources) == count

    async def end(self) -> None:
        for source in self.sources:
            source.gate.set()
        await asyncio.gather(*self.tasks)


async def test_a_registry_that_is_dead_holds_only_flights_of_its_own(tmp_path: Path) -> None:
    async with open_parts(tmp_path, Limits(memory=24 << 20, connections=2)) as parts:
        flights = Flights(parts, *(f"dead.test/{number}" for number in range(10)))
        await flights.begun(2)
        async with asyncio.timeout(10):
            await parts.fetch(blob(DATA), Source(DATA, name="alive.test/app"))
        await flights.end()


class Forewarned(Source):
    """A source that keeps what it is told of."""

    def __init__(self, data: bytes, expected: list[int]) -> None:
        super().__init__(data)
        self.expected = expected

    @contextmanager
    def expecting(self, blob: Descriptor) -> Iterator[None]:
        self.expected.append(blob.size)
        try:
            yield
        finally:
            self.expected.remove(blob.size)


async def test_a_source_knows_all_that_it_will_be_asked_for_before_the_first_blob_begins(tmp_path: Path) -> None:
    blobs, expected = [DATA[: 2_000_000 + count] for count in range(6)], list[int]()
    sources = [Forewarned(data, expected) for data in blobs]
    for source in sources:
        source.gate.clear()
    wanted = [blob(data) for data in blobs]
    async with open_parts(tmp_path, Limits(connections=2)) as parts, parts.writer(wanted) as writer:
        fetch = parts.scheduler.fetch
        fetches = [asyncio.create_task(fetch(writer, *order)) for order in zip(wanted, sources, strict=True)]
        await sources[0].half.wait()
        assert sorted(expected) == [len(data) for data in blobs]  # with those that wait for a slot
        fetches[-1].cancel()
        for source in sources:
            source.gate.set()
        await asyncio.wait(fetches)
    assert expected == []


async def test_no_more_blobs_are_in_flight_than_the_total_says(tmp_path: Path) -> None:
    async with open_parts(tmp_path, Limits(memory=24 << 20, total_connections=3)) as parts:
        flights = Flights(parts, *(f"host{number}.test/app" for number in range(8)))
        await flights.begun(3)
        await flights.end()


async def test_flights_of_more_registries_leave_less_memory_to_what_is_fetched_ahead(tmp_path: Path) -> None:
    limits = Limits(memory=24 << 20, connections=2)
    async with open_parts(tmp_path, limits) as parts:
        buffers = Buffers(parts.pool, ahead=8 << 20)
        scheduler = Scheduler(parts.worker, buffers, limits, parts.events.append)
        flights = Flights(parts, *(f"host{number}.test/app" for number in range(5)), scheduler=scheduler)
        await flights.begun(5)
        assert buffers.ahead == 5 << 20
        await flights.end()
        assert buffers.ahead == 8 << 20


class WrongMirrorFirst(Source):
    """A source with a wrong mirror in front, until that is reported."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reported: set[str] = set()

    def served_by(self, blob: Descriptor) -> tuple[str, ...]:
        return ("http://mirror.test",)

    def report_corrupt(self, blob: Descriptor, servers: Collection[str]) -> None:
        assert tuple(servers) == self.served_by(blob)
        self.reported |= set(servers)
        self._data = DATA


async def test_wrong_bytes_are_fetched_once_more_from_a_source_that_can_be_doubted(tmp_path: Path) -> None:
    async with open_parts(tmp_path) as parts:
        source = WrongMirrorFirst(bytes(len(DATA)))
        await parts.fetch(blob(DATA), source)
        assert (source.offsets, source.reported) == ([0, 0], {*source.served_by(blob(DATA))})
        digest, size = str(blob(DATA).digest), len(DATA)
        assert FetchDuplicated("", digest, "http://mirror.test", 0, size, "wrong bytes") in parts.events
        assert await parts.store.read(blob(DATA)) == DATA


async def test_bytes_that_stay_wrong_are_an_error_after_the_second_time(tmp_path: Path) -> None:
    other = DATA + b"x"
    async with open_parts(tmp_path) as parts:
        source = WrongMirrorFirst(bytes(len(other)))
        with pytest.raises(IntegrityError):
            await parts.fetch(blob(other), source)
        assert source.offsets == [0, 0]
        assert not parts.store.holds(blob(other))


async def test_a_beginning_that_was_wrong_is_fetched_again_and_nobody_is_blamed_for_it(tmp_path: Path) -> None:
    async with open_parts(tmp_path) as parts:
        with pytest.raises(TruncatedError):
            await parts.fetch(blob(DATA), Source(bytes(len(DATA)), cut=1 << 20))
        source = WrongMirrorFirst(DATA)
        await parts.fetch(blob(DATA), source)
        assert (source.offsets, source.reported) == ([1 << 20, 0], set())
        again = [event for event in parts.events if isinstance(event, FetchDuplicated)]
        reason = "what an earlier attempt left is wrong"
        assert again == [FetchDuplicated("", str(blob(DATA).digest), "", 0, len(DATA), reason)]
        assert await parts.store.read(blob(DATA)) == DATA
