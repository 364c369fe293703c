"""One blob over several connections: in order, whatever becomes of the parts."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from fastoci.events import ConnectionLimitChanged, Event, FetchDuplicated, FetchResumed, Observer
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.limits import Limits
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.fetch import parallel_ranges, resuming_range
from fastoci.registry.fetch.repository import Repository
from fastoci.registry.fetch.retry import RetryPolicy
from fastoci.registry.http import connection_limit, servers, throughput
from support.scripted_server import Buffers, drain

MIB = 1 << 20
BLOB = random.Random(7).randbytes(10 * MIB + 12345)
SIZE = len(BLOB)
DESCRIPTOR = Descriptor(mediatype.OCI_LAYER, Digest("sha256", hashlib.sha256(BLOB).hexdigest()), SIZE)


@dataclass
class Throttled:
    """A server of one blob that sends at most ``rate`` bytes a second on each connection.

    Args:
        spoil: may answer for a range in its own way: head and body, or None for the right answer.
    """

    rate: float = 4 * MIB
    spoil: Callable[[int, int], tuple[bytes, bytes] | None] = lambda first, last: None
    ranges: list[tuple[int, int]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    connections: int = 0
    address: str = ""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self.talk(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.transport.set_write_buffer_limits(64 << 10)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                wanted = [line[13:] for line in head.split("\r\n") if line.lower().startswith("range: bytes=")]
                first, last = map(int, wanted[0].split("-")) if wanted else (0, SIZE - 1)
                self.ranges.append((first, last))
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                try:
                    await self.answer(writer, first, last, whole=not wanted)
                finally:
                    self.at_once -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, writer: asyncio.StreamWriter, first: int, last: int, *, whole: bool) -> None:
        spoiled = None if whole else self.spoil(first, last)
        if spoiled is not None:
            head, body = spoiled
        else:
            status = b"200 OK" if whole else b"206 Partial\r\nContent-Range: bytes %d-%d/%d" % (first, last, SIZE)
            head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, last + 1 - first)
            body = BLOB[first : last + 1]
        writer.write(head)
        step = int(self.rate / 100)
        for start in range(0, len(body), step):
            writer.write(body[start : start + step])
            await writer.drain()
            await asyncio.sleep(0.01)
        if spoiled is not None and head.endswith(b"close\r\n\r\n"):
            raise ConnectionError


@asynccontextmanager
async def fetching(
    server: Throttled, *, ahead: int = 6 * MIB, connections: int = 4, observer: Observer = lambda event: None
) -> AsyncIterator[tuple[Repository, Buffers]]:
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    server.address = "{}:{}".format(*listener.sockets[0].getsockname())
    registry = Registry(
        credentials=Credentials(),
        limits=Limits(connections=connections, read_s=5.0),
        retry=RetryPolicy(rng=lambda: 0.0),
        observer=observer,
    )
    buffers = Buffers(ahead + 4 * MIB, ahead=ahead)
    async with listener:
        try:
            async with registry:
                yield registry.repository(Reference.parse(f"{server.address}/a:1")), buffers
        finally:
            await asyncio.gather(*server.tasks)
    assert buffers.pool.in_use == 0
    buffers.pool.on_release = None


class Eager(connection_limit.ConnectionLimit):
    """As many connections as there may be, from the start: how many are worth it is not these tests' question."""

    def __init__(self, clock: Callable[[], float], maximum: int) -> None:
        super().__init__(clock, maximum)
        self.connections = maximum

    def update(self, busy: int, flowing: int, received: int) -> str:
        """Nothing to learn."""
        return ""


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are small and many, so that a small blob is enough."""
    monkeypatch.setattr(servers, "ConnectionLimit", Eager)
    monkeypatch.setattr(parallel_ranges, "RANGE_SIZE", MIB)


async def test_a_server_that_is_slow_on_each_connection_soon_has_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "ConnectionLimit", connection_limit.ConnectionLimit)
    monkeypatch.setattr(connection_limit, "RAMP_S", 0.1)
    server, seen = Throttled(), list[Event]()
    async with fetching(server, observer=seen.append) as (source, buffers):
        assert await drain(source.fetch(DESCRIPTOR, 0, buffers)) == BLOB
    assert server.most_at_once > 1
    changes = [event for event in seen if isinstance(event, ConnectionLimitChanged)]
    assert changes[0] == ConnectionLimitChanged(f"http://{server.address}", 2, 1, "trial")
    assert {event.reason for event in changes[1:]} <= {"faster", "no gain", "not needed", "trial"}


async def test_ranges_are_closed_and_the_bytes_come_in_order() -> None:
    server = Throttled()
    async with fetching(server) as (source, buffers):
        assert await drain(source.fetch(DESCRIPTOR, 0, buffers)) == BLOB
    assert server.most_at_once == 4
    assert server.ranges[0] == (0, MIB - 1)
    assert all(last - first < MIB for first, last in server.ranges)
    asked = sorted(server.ranges)
    assert all(one[1] + 1 == two[0] for one, two in itertools.pairwise(asked))  # each byte once
    assert asked[-1][1] == SIZE - 1


async def test_a_blob_that_is_resumed_is_split_too() -> None:
    server = Throttled()
    async with fetching(server) as (source, buffers):
        assert await drain(source.fetch(DESCRIPTOR, 777, buffers)) == BLOB[777:]
    assert server.ranges[0] == (777, MIB + 776)
    assert server.most_at_once > 1


@pytest.mark.parametrize(("ahead", "connections"), [(6 * MIB, 1), (0, 4)])
async def test_without_room_or_connections_there_is_one_request(ahead: int, connections: int) -> None:
    server = Throttled(rate=64 * MIB)
    async with fetching(server, ahead=ahead, connections=connections) as (source, buffers):
        assert await drain(source.fetch(DESCRIPTOR, 0, buffers)) == BLOB
    assert server.ranges == [(0, SIZE - 1)]


async def test_two_blobs_share_the_room_and_both_arrive() -> None:
    server = Throttled()
    async with fetching(server, ahead=4 * MIB) as (source, buffers):
        fetches = [drain(source.fetch(DESCRIPTOR, offset, buffers)) for offset in (0, 1)]
        assert await asyncio.gather(*fetches) == [BLOB, BLOB[1:]]
    assert server.most_at_once <= 4


def status(code: int) -> Callable[[int, int], tuple[bytes, bytes]]:
    return lambda first, last: (b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % code, b"")


def lying(first: int, last: int) -> tuple[bytes, bytes]:
    """The right number of bytes, from another place."""
    head = b"HTTP/1.1 206 X\r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n"
    return head % (first + 1, last + 1, SIZE + 1, last + 1 - first), bytes(last + 1 - first)


def ignoring(first: int, last: int) -> tuple[bytes, bytes]:
    return b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n" % SIZE, BLOB


def cutting(first: int, last: int) -> tuple[bytes, bytes]:
    head = b"HTTP/1.1 206 X\r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    size = last + 1 - first
    return head % (first, last, SIZE, size), BLOB[first : first + max(1, size // 3)]


@pytest.mark.parametrize(
    "spoil",
    [status(416), status(404), status(429), status(500), lying, ignoring, cutting],
    ids=lambda spoil: spoil.__name__,
)
async def test_parts_that_fail_leave_their_bytes_to_the_stream(
    spoil: Callable[[int, int], tuple[bytes, bytes] | None],
) -> None:
    left = 3

    def some(first: int, last: int) -> tuple[bytes, bytes] | None:
        nonlocal left
        left -= first > 0  # what a stream begins with is its own
        return spoil(first, last) if first and left >= 0 else None

    server = Throttled(rate=12 * MIB, spoil=some)
    async with fetching(server) as (source, buffers):
        assert await drain(source.fetch(DESCRIPTOR, 0, buffers)) == BLOB
        if spoil in (lying, ignoring):
            before = len(server.ranges)
            assert await drain(source.fetch(DESCRIPTOR, 5, buffers)) == BLOB[5:]
            assert server.ranges[before:] == [(0, SIZE - 1)]  # no range is asked of it again
    assert left < 3


@pytest.mark.parametrize("status", [429, 503])
async def test_ranges_that_are_refused_at_once_halve_the_connections_once(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    halved: list[int] = []

    class Recorded(Eager):
        def refused(self) -> None:
            super().refused()
            halved.append(self.connections)

    def spoil(first: int, last: int) -> tuple[bytes, bytes] | None:
        if not first or len(server.ranges) > 3:
            return None
        return b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status, b""

    monkeypatch.setattr(servers, "ConnectionLimit", Recorded)
    server, seen = Throttled(spoil=spoil), list[Event]()
    async with fetching(server, observer=seen.append) as (source, buffers):
        assert await drain(source.fetch(DESCRIPTOR, 0, buffers)) == BLOB
    assert halved == [2]
    changed = [event for event in seen if isinstance(event, ConnectionLimitChanged)]
    assert changed == [ConnectionLimitChanged(f"http://{server.address}", 2, 4, f"refused ({status})")]


async def test_a_range_that_starves_is_renewed_from_its_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "PEERS_S", 0.5)
    monkeypatch.setattr("fastoci.registry.fetch.body._CHECK_S", 0.1)
    server = Throttled()
    answer, starved = server.answer, []

    async def starving(writer: asyncio.StreamWriter, first: int, last: int, *, whole: bool) -> None:
        if len(server.ranges) == 7:
            starved.append((first, last))
            head = b"HTTP/1.1 206 X\r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % (first, last, SIZE, last + 1 - first) + BLOB[first : first + 500_000])
            for byte in BLOB[first + 500_000 : first + 501_000]:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.01)
        await answer(writer, first, last, whole=whole)

    server.answer = starving  # type: ignore[method-assign]
    big = Descriptor(DESCRIPTOR.media_type, DESCRIPTOR.digest, SIZE)
    seen = list[Event]()
    async with fetching(server, ahead=6 * MIB, observer=seen.append) as (source, buffers):
        assert await drain(source.fetch(big, 0, buffers)) == BLOB
    (slow,) = starved
    again = [first for first, last in server.ranges if last == slow[1] and first > slow[0]]
    assert len(again) == 1
    (resumed,) = [event for event in seen if isinstance(event, FetchResumed)]
    assert (resumed.offset, resumed.cause.partition(" at ")[0]) == (again[0], "starved")
    assert slow[0] + 500_000 <= again[0] <= slow[0] + 501_000


async def test_a_fetch_that_is_closed_or_cancelled_anywhere_gives_everything_back() -> None:
    server = Throttled(rate=16 * MIB)
    async with fetching(server) as (source, buffers):
        for count in (1, 4, 8):
            fetch = source.fetch(DESCRIPTOR, 0, buffers)
            for _ in range(count):
                (await anext(fetch)).release()
            await fetch.aclose()
            assert buffers.pool.in_use == 0
            task = asyncio.ensure_future(drain(source.fetch(DESCRIPTOR, 0, buffers)))
            asked = len(server.ranges)
            while len(server.ranges) - asked < count / 3 and not task.done():  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert buffers.pool.in_use == 0
        assert await drain(source.fetch(DESCRIPTOR, 0, buffers)) == BLOB


async def test_when_less_may_be_held_what_is_farthest_ahead_is_given_up_and_fetched_later() -> None:
    server, seen = Throttled(), list[Event]()
    async with fetching(server, observer=seen.append) as (source, buffers):
        fetch, data, shed = source.fetch(DESCRIPTOR, 0, buffers), bytearray(), False
        async for buffer in fetch:
            data += buffer
            buffer.release()
            if buffers.pool.in_use >= 3 * MIB and not shed:
                shed, buffers.ahead = True, 0
                for press in list(buffers.pressed):
                    press()
                while buffers.pool.in_use:  # noqa: ASYNC110 - the fetch itself does nothing now
                    await asyncio.sleep(0.001)
                buffers.ahead = 6 * MIB
        assert shed
        assert data == BLOB
    given_up = [event for event in seen if isinstance(event, FetchDuplicated)]
    assert {(event.blob, event.reason) for event in given_up} == {(str(DESCRIPTOR.digest), "the memory was needed")}
    assert all(0 < event.size <= MIB for event in given_up)


@pytest.mark.attack
async def test_a_range_that_may_begin_late_begins_where_a_part_of_the_stream_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel_ranges, "RANGE_SIZE", 3 * MIB)
    server = Throttled(rate=16 * MIB)
    async with fetching(server, ahead=3 * MIB) as (source, buffers):
        data = bytearray()
        async with aclosing(source.fetch(DESCRIPTOR, 0, buffers)) as arriving:
            async for buffer in arriving:
                data += buffer
                buffer.release()
                buffers.ahead = 0 if len(data) in (2 * MIB, 3 * MIB, 4 * MIB) else 3 * MIB  # memory for parts
                for shed in list(buffers.pressed):
                    shed()
        assert data == BLOB
    ends = {0, *(last + 1 for _, last in server.ranges)}
    assert len(server.ranges) > 3
    assert all(first in ends for first, _ in server.ranges)


def other(name: str, size: int) -> Descriptor:
    return Descriptor(mediatype.OCI_LAYER, Digest("sha256", hashlib.sha256(name.encode()).hexdigest()), size)


async def test_no_range_has_the_connection_that_a_blob_is_about_to_need() -> None:
    server = Throttled()
    async with fetching(server) as (source, buffers), AsyncExitStack() as expected:
        for name in ("one", "two", "three"):
            expected.enter_context(source.expecting(other(name, 1000)))
        assert await drain(source.fetch(DESCRIPTOR, 0, buffers)) == BLOB
        assert server.most_at_once == 1
        await expected.aclose()
        assert await drain(source.fetch(DESCRIPTOR, 0, buffers)) == BLOB
    assert server.most_at_once == 4


async def test_a_blob_under_way_needs_no_connection_beside_its_own() -> None:
    server = Throttled()
    async with fetching(server) as (source, buffers):
        with source.expecting(DESCRIPTOR):
            assert await drain(source.fetch(DESCRIPTOR, 0, buffers)) == BLOB
    assert server.most_at_once == 4


async def test_the_first_part_is_a_connections_share_when_each_is_another_blobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel_ranges, "_LONG", MIB)
    server = Throttled(rate=64 * MIB)
    async with fetching(server) as (source, buffers), AsyncExitStack() as expected:
        expected.enter_context(source.expecting(DESCRIPTOR))
        for name in ("one", "two", "three"):
            expected.enter_context(source.expecting(other(name, 4 * MIB)))
        assert await drain(source.fetch(DESCRIPTOR, 0, buffers)) == BLOB
    share = -(-(SIZE + 3 * 4 * MIB) // 4)
    first, last = min(server.ranges)
    assert first == 0 and share <= last + 1 < share + MIB


async def test_what_was_expected_is_forgotten_with_its_fetch_or_without_one() -> None:
    budget = parallel_ranges.ReadAheadBudget()
    with pytest.raises(KeyError), budget.expecting(DESCRIPTOR), budget.expecting(other("one", 10)):
        assert (budget.waiting, budget.large, budget.share(1)) == (2, 1, SIZE + 10)
        budget.begin(DESCRIPTOR, 0)
        assert (budget.waiting, budget.large, budget.blobs) == (1, 1, 1)
        budget.end(DESCRIPTOR, 0)
        assert (budget.waiting, budget.large, budget.share(1)) == (1, 0, 10)
        raise KeyError
    assert (budget.waiting, budget.large, budget.share(1), budget.blobs) == (0, 0, 0, 0)


async def test_on_a_line_so_long_that_ranges_would_mostly_wait_blobs_keep_to_their_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resuming_range.ResumingRange, "in_flight", 2 * MIB)
    server = Throttled()
    async with fetching(server) as (source, buffers):
        budget = source._read_ahead
        budget.blobs += 1  # another blob
        assert await drain(source.fetch(DESCRIPTOR, 0, buffers)) == BLOB
        budget.blobs -= 1
        assert server.most_at_once <= 2  # one of which asks early
        assert await drain(source.fetch(DESCRIPTOR, 0, buffers)) == BLOB
    assert server.most_at_once > 2
