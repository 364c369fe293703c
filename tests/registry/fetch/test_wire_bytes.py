"""How much a server sends for a blob: what is needed, whatever the fetch changes its mind about; refused parts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest

from fastoci.events import Event, FetchDuplicated, FetchResumed
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.limits import Limits
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.fetch.retry import RetryPolicy
from support.scripted_server import Asked, Buffers, Raw, drain, serving

MIB = 1 << 20
SIZE = 48 * MIB
BLOB = bytes(range(256)) * (SIZE // 256)
DESCRIPTOR = Descriptor(mediatype.OCI_LAYER, Digest("sha256", "1" * 64), SIZE)
SMALL = Descriptor(mediatype.OCI_LAYER, Digest("sha256", "2" * 64), 4 * MIB)


class Counting:
    """A server of one blob that sends as fast as its kernel takes it, and counts that.

    Args:
        spoil: may answer a request in its own way.
    """

    def __init__(self, spoil: Callable[[str], bytes | None] = lambda wanted: None) -> None:
        self.spoil = spoil
        self.sent = 0
        self.asked: list[str] = []
        self.learned: Callable[[], object] = lambda: None
        self.tasks: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self.talk(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                if "/blobs/" not in head:
                    writer.write(b"HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n")
                    continue
                wanted = next((line[7:] for line in head.split("\r\n") if line.startswith("Range: ")), "")
                self.asked.append(wanted)
                await self.answer(writer, wanted)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, writer: asyncio.StreamWriter, wanted: str) -> None:
        spoiled = self.spoil(wanted)
        if spoiled is not None:
            writer.write(spoiled)
            return
        first, last = map(int, wanted.removeprefix("bytes=").split("-")) if wanted else (0, SIZE - 1)
        status = b"206 X\r\nContent-Range: bytes %d-%d/%d" % (first, last, SIZE) if wanted else b"200 OK"
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status, last + 1 - first))
        for start in range(first, last + 1, MIB // 8):
            piece = BLOB[start : min(start + MIB // 8, last + 1)]
            writer.write(piece)
            await writer.drain()
            self.sent += len(piece)


async def fetched(
    server: Counting, *, connections: int = 4, slow_reader: float = 0.0, more_at: int = SIZE, seen: list[Event]
) -> bytes:
    """The blob; from ``more_at`` on four connections are worth having."""
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    address = "{}:{}".format(*listener.sockets[0].getsockname())
    limits, retry = Limits(connections=connections, read_s=5.0), RetryPolicy(rng=lambda: 0.0)
    registry = Registry(credentials=Credentials(), limits=limits, retry=retry, observer=seen.append)
    buffers, data = Buffers(24 * MIB, ahead=16 * MIB), bytearray()
    async with listener, registry:
        repository = registry.repository(Reference.parse(f"{address}/a:1"))
        async for buffer in repository.fetch(DESCRIPTOR, 0, buffers):
            data += buffer
            buffer.release()
            if slow_reader:
                await asyncio.sleep(slow_reader)
            if len(data) >= more_at:
                for known in registry._transport.servers._servers.values():
                    known.limit.connections = connections
    await asyncio.gather(*server.tasks)
    assert buffers.pool.in_use == 0
    buffers.pool.on_release = None
    return bytes(data)


@pytest.mark.parametrize("more_at", [0, 1, 2, 7, 20, 48], ids=lambda count: f"after_{count}")
@pytest.mark.parametrize("slow_reader", [0.0, 0.01], ids=["fast", "busy"])
async def test_nothing_arrives_for_nothing_when_ranges_take_over(more_at: int, slow_reader: float) -> None:
    server, seen = Counting(), list[Event]()
    assert await fetched(server, slow_reader=slow_reader, more_at=more_at * MIB, seen=seen) == BLOB
    assert server.sent <= SIZE + MIB
    assert not [event for event in seen if isinstance(event, FetchDuplicated | FetchResumed)]
    ends = sorted(tuple(map(int, asked.removeprefix("bytes=").split("-"))) for asked in server.asked)
    assert all(one[1] + 1 == two[0] for one, two in itertools.pairwise(ends))  # closed, and each byte once


async def test_one_connection_is_asked_for_everything_at_once() -> None:
    server = Counting()
    assert await fetched(server, connections=1, seen=[]) == BLOB
    assert (server.asked, server.sent) == ([""], SIZE)


async def test_a_small_blob_is_asked_for_without_a_range() -> None:
    def small(asked: Asked) -> Raw:
        return Raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SMALL.size + BLOB[: SMALL.size])

    buffers = Buffers(24 * MIB, ahead=16 * MIB)
    async with serving(small) as server, Registry(credentials=Credentials(), limits=Limits()) as registry:
        repository = registry.repository(Reference.parse(f"{server.address}/a:1"))
        assert await drain(repository.fetch(SMALL, 0, buffers)) == BLOB[: SMALL.size]
        assert ["Range" in asked.headers for asked in server.asked] == [False]
    buffers.pool.on_release = None


def refusing(status: int) -> Callable[[str], bytes | None]:
    return lambda wanted: b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status if wanted else None


@pytest.mark.parametrize("status", [400, 403, 416, 500, 501])
async def test_a_server_that_refuses_ranges_is_asked_once_more_for_everything(status: int) -> None:
    server = Counting(refusing(status))
    assert await fetched(server, more_at=0, seen=[]) == BLOB
    assert [bool(asked) for asked in server.asked] == [True, False]
    assert server.sent == SIZE


async def test_a_server_that_answers_with_everything_is_asked_once_and_never_cut() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE
    server, seen = Counting(lambda wanted: head + BLOB), list[Event]()
    assert await fetched(server, more_at=0, seen=seen) == BLOB
    assert len(server.asked) == 1
    assert not [event for event in seen if isinstance(event, FetchDuplicated | FetchResumed)]


@pytest.mark.parametrize("shift", [1, -1, SIZE // 2])
async def test_a_first_part_from_another_place_is_no_part_of_the_blob(shift: int) -> None:
    def elsewhere(wanted: str) -> bytes | None:
        if not wanted:
            return None
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        head = b"HTTP/1.1 206 X\r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n"
        return head % (max(0, first + shift), last + shift, SIZE, 10) + bytes(10)

    server = Counting(elsewhere)
    assert await fetched(server, more_at=0, seen=[]) == BLOB
    assert server.sent == SIZE


async def test_a_part_that_is_refused_early_is_asked_for_in_its_turn() -> None:
    refused: list[str] = []

    def once(wanted: str) -> bytes | None:
        if wanted.startswith("bytes=0-") or refused:
            return None
        refused.append(wanted)
        return b"HTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n"

    server, seen = Counting(once), list[Event]()
    assert await fetched(server, slow_reader=0.005, seen=seen) == BLOB
    beginnings = [asked.partition("-")[0] for asked in server.asked]
    assert beginnings.count(refused[0].partition("-")[0]) == 2
    assert server.sent == SIZE


async def test_a_server_that_has_honoured_parts_and_fails_is_asked_for_a_part_again() -> None:
    failed: list[str] = []

    def twice(wanted: str) -> bytes | None:
        first = wanted.partition("-")[0]
        if first == "bytes=0" or len(failed) == 2 or (failed and first != failed[0]):
            return None
        failed.append(first)
        return b"HTTP/1.1 502 X\r\nContent-Length: 0\r\n\r\n"

    server = Counting(twice)
    assert await fetched(server, seen=[]) == BLOB
    again = [asked for asked in server.asked if asked.partition("-")[0] == failed[0]]
    assert len(again) == 3
    assert all(int(asked.partition("-")[2]) < SIZE - 1 for asked in again)
