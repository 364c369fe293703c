"""The direct receiver against the aiohttp that is installed, on both loops, plain and over TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
import uvloop

from fastoci._core import Buffer
from fastoci.errors import FastociError, TimedOutError, TruncatedError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.registry.fetch.body import Body
from fastoci.registry.http import servers
from fastoci.registry.http.direct_receiver import DirectReceiver
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.transport import Transport
from fastoci.registry.http.urls import parse_url
from support.scripted_server import Buffers, drain, drain_until_error

LEAST = 128 << 10
SIZES = [LEAST - 1, LEAST, 1 << 20, (1 << 20) + 1, 5 << 20]
BIG = 3 << 20
SHORT = 200_000  # less than a buffer
PART = (1 << 20) + 300_000  # a whole buffer, and a part of the next
DATA = bytes(range(256)) * (20 << 10)

Talk = Callable[["Wire", str], Awaitable[None]]

uvloop.new_event_loop().close()  # opens a pipe for the life of the process, which is no test's leak


class Wire:
    """One connection, as the server has it."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def ended(self) -> None:
        """Wait until the client has closed."""
        with suppress(ConnectionError, ssl.SSLError):
            assert await self.reader.read() == b""
        self.server.ended.set()

    def reset(self) -> None:
        """Close by RST."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


class Server:
    """What was asked, by which port of the client."""

    def __init__(self) -> None:
        self.url = ""
        self.ports: list[int] = []
        self.ended = asyncio.Event()


def head(size: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode()


@asynccontextmanager
async def serving(talk: Talk, tls: ssl.SSLContext | None) -> AsyncIterator[Server]:
    """Serve on a free loopback port; ``talk`` answers each request."""
    server = Server()
    tasks: set[asyncio.Task[None]] = set()

    async def converse(wire: Wire) -> None:
        try:
            while request := (await wire.reader.readuntil(b"\r\n\r\n")).decode():
                server.ports.append(wire.writer.get_extra_info("peername")[1])
                await talk(wire, request.split(" ")[1])
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            wire.writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(converse(Wire(server, reader, writer)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    server.url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()


async def pour(
    reply: Reply, blob: Descriptor, server: servers.Server, buffers: Buffers
) -> AsyncGenerator[Buffer, None]:
    """The buffers of a whole body; what came before an error comes first."""
    body = Body(reply, blob, server, skip=0, left=blob.size)
    buffer: Buffer | None = None
    try:
        while body.left:
            buffer = await buffers.take()
            try:
                await body.fill(buffer, body.left)
            except FastociError:
                if len(buffer):
                    last, buffer = buffer, None
                    yield last
                raise
            full, buffer = buffer, None
            yield full
    finally:
        if buffer is not None:
            buffer.release()
        body.close()


class Client:
    """Requests through one transport into buffers of one pool that must be whole at the end."""

    def __init__(self, transport: Transport, server: Server) -> None:
        self.transport = transport
        self.server = server
        self.buffers = Buffers(4 << 20)

    @asynccontextmanager
    async def body(self, size: int, *, late: bool = False) -> AsyncIterator[AsyncGenerator[Buffer, None]]:
        """The buffers of a body; ``late``: aiohttp has read as much as it wants to before they are asked for."""
        reply = await self.transport.request("GET", parse_url(f"{self.server.url}/body"), headers={})
        if late:
            await asyncio.sleep(0.02)
        blob = Descriptor("application/octet-stream", Digest.of(b""), size)
        sender = self.transport.servers.of(reply.origin)
        async with aclosing(pour(reply, blob, sender, self.buffers)) as buffers:
            yield buffers

    async def fetch(self, size: int, *, late: bool = False) -> bytes:
        async with self.body(size, late=late) as buffers:
            return await drain(buffers)

    async def fetch_until_error(self, size: int) -> tuple[bytes, Exception]:
        async with self.body(size) as buffers:
            return await drain_until_error(buffers)

    async def manifest(self) -> bytes:
        """A small answer, by aiohttp's own reader."""
        reply = await self.transport.request("GET", parse_url(f"{self.server.url}/manifest"), headers={})
        try:
            return await reply.read(1 << 20)
        finally:
            reply.close()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a test's coroutine on a loop of each kind."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(work: Coroutine[Any, Any, None]) -> None:
        failures: list[dict[str, Any]] = []

        async def watched() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
            await work

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(watched())
        assert not failures

    return runner


@pytest.fixture(params=["plain", "tls"])
def tls(
    request: pytest.FixtureRequest, certified: Callable[..., ssl.SSLContext], trusted: None
) -> ssl.SSLContext | None:
    return certified("127.0.0.1") if request.param == "tls" else None


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[DirectReceiver]:
    """The direct receivers so far."""
    found: list[DirectReceiver] = []
    real = DirectReceiver.begin

    def begin(response: aiohttp.ClientResponse, left: int, read_s: float) -> DirectReceiver | None:
        receiver = real(response, left, read_s)
        if receiver is not None:
            found.append(receiver)
        return receiver

    monkeypatch.setattr(DirectReceiver, "begin", begin)
    return found


@asynccontextmanager
async def connected(talk: Talk, tls: ssl.SSLContext | None, *, read_s: float = 20.0) -> AsyncIterator[Client]:
    async with serving(talk, tls) as server:
        transport = Transport(tls_verify=True, connect_s=10.0, read_s=read_s, connections=1)
        client = Client(transport, server)
        try:
            yield client
            assert client.buffers.pool.in_use == 0
        finally:
            client.buffers.pool.on_release = None
            await transport.aclose()


async def until(condition: Callable[[], bool]) -> None:
    """Give the loop to others until it is so."""
    while not condition():  # noqa: ASYNC110 - a count inside the protocol, which tells nobody
        await asyncio.sleep(0.001)


Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("size", [*SIZES, 520_000, 524_288, 524_289, 600_000, 786_432])  # aiohttp pauses after 512 KiB
def test_a_body_that_comes_with_its_headers_is_right(
    run: Run, tls: ssl.SSLContext | None, size: int, late: bool
) -> None:
    async def talk(wire: Wire, path: str) -> None:
        await wire.send(head(size) + DATA[:size])

    async def work() -> None:
        async with connected(talk, tls) as client:
            for _ in range(3):
                assert await client.fetch(size, late=late) == DATA[:size]
            assert len(set(client.server.ports)) == 1

    run(work())


@pytest.mark.parametrize("size", SIZES)
def test_a_body_that_comes_after_its_headers_is_received_past_aiohttp(
    run: Run, tls: ssl.SSLContext | None, size: int, taken: list[DirectReceiver]
) -> None:
    async def talk(wire: Wire, path: str) -> None:
        before = len(taken)
        await wire.send(head(size))
        if size >= LEAST:
            await until(lambda: len(taken) > before)
        await wire.send(DATA[:size])

    async def work() -> None:
        async with connected(talk, tls) as client:
            for _ in range(3):
                assert await client.fetch(size) == DATA[:size]
            assert len(set(client.server.ports)) == 1
        assert len(taken) == (3 if size >= LEAST else 0)

    run(work())


@pytest.mark.parametrize("size", SIZES)
def test_a_body_that_comes_in_dribs_is_right(
    run: Run, tls: ssl.SSLContext | None, size: int, taken: list[DirectReceiver]
) -> None:
    async def talk(wire: Wire, path: str) -> None:
        data = head(size) + DATA[:size]
        start, step = 0, 7
        while start < len(data):
            await wire.send(data[start : start + step])
            await asyncio.sleep(0)
            start, step = start + step, step * 2 + 1 if step < 60_000 else 7

    async def work() -> None:
        async with connected(talk, tls) as client:
            for _ in range(2):
                assert await client.fetch(size) == DATA[:size]
            assert len(set(client.server.ports)) == 1
        assert len(taken) == (2 if size >= LEAST else 0)

    run(work())


def test_the_connection_serves_bodies_and_manifests_in_turn(
    run: Run, tls: ssl.SSLContext | None, taken: list[DirectReceiver]
) -> None:
    async def talk(wire: Wire, path: str) -> None:
        body = b"{}" if path == "/manifest" else DATA[:BIG]
        await wire.send(head(len(body)))
        await wire.send(body)

    async def work() -> None:
        async with connected(talk, tls) as client:
            for _ in range(3):
                assert await client.fetch(BIG) == DATA[:BIG]
                assert await client.fetch(BIG) == DATA[:BIG]
                assert await client.manifest() == b"{}"
            assert len(client.server.ports) == 9
            assert len(set(client.server.ports)) == 1
        assert len(taken) == 6

    run(work())


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("part", [0, 300_000, 1 << 20, PART, BIG - 1])
def test_what_came_before_a_cut_is_yielded_before_the_error(
    run: Run, tls: ssl.SSLContext | None, taken: list[DirectReceiver], part: int, how: str
) -> None:
    async def talk(wire: Wire, path: str) -> None:
        await wire.send(head(BIG))
        await until(lambda: bool(taken))
        await wire.send(DATA[:part])
        if how == "RST":
            await until(lambda: taken[-1].left == BIG - part)  # an RST overtakes what was not read
            wire.reset()
        else:
            wire.writer.close()

    async def work() -> None:
        async with connected(talk, tls) as client:
            data, error = await client.fetch_until_error(BIG)
        assert data == DATA[:part]
        assert isinstance(error, TruncatedError)
        assert error.received == part

    run(work())


def test_silence_is_a_timeout_after_what_came(
    run: Run, tls: ssl.SSLContext | None, taken: list[DirectReceiver]
) -> None:
    async def talk(wire: Wire, path: str) -> None:
        await wire.send(head(BIG))
        await wire.send(DATA[:PART])
        await wire.ended()

    async def work() -> None:
        async with connected(talk, tls, read_s=0.3) as client:
            data, error = await client.fetch_until_error(BIG)
            await client.server.ended.wait()
        assert data == DATA[:PART]
        assert isinstance(error, TimedOutError)
        assert error.received == PART
        assert len(taken) == 1

    run(work())


def test_a_server_that_is_slow_but_not_silent_is_waited_for(run: Run, tls: ssl.SSLContext | None) -> None:
    async def talk(wire: Wire, path: str) -> None:
        await wire.send(head(BIG))
        step = BIG // 12
        for start in range(0, BIG, step):
            await wire.send(DATA[start : start + step])
            await asyncio.sleep(0.1)

    async def work() -> None:
        async with connected(talk, tls, read_s=0.5) as client:
            assert await client.fetch(BIG) == DATA[:BIG]

    run(work())


@pytest.mark.parametrize("extra", [head(4) + b"evil", b"more", b"many " * 60_000], ids=["an answer", "text", "much"])
def test_bytes_beyond_the_end_are_no_answer_to_the_next_request(
    run: Run, tls: ssl.SSLContext | None, taken: list[DirectReceiver], extra: bytes
) -> None:
    async def talk(wire: Wire, path: str) -> None:
        if path == "/manifest":
            await wire.send(head(2) + b"{}")
            return
        before = len(taken)
        await wire.send(head(BIG))
        await until(lambda: len(taken) > before)
        await wire.send(DATA[:BIG] + extra)

    async def work() -> None:
        async with connected(talk, tls) as client:
            fetch = asyncio.create_task(client.fetch(BIG))
            await until(lambda: bool(taken))
            # waits for the only connection, so that it is used the moment it is free
            manifest = asyncio.create_task(client.manifest())
            assert await fetch == DATA[:BIG]
            assert await manifest == b"{}"
            assert await client.fetch(BIG) == DATA[:BIG]
            assert await client.manifest() == b"{}"
            assert len(set(client.server.ports)) == 3

    run(work())


def test_bytes_that_come_later_than_the_end_are_no_answer_either(
    run: Run, tls: ssl.SSLContext | None, taken: list[DirectReceiver]
) -> None:
    async def work() -> None:
        whole = asyncio.Event()

        async def talk(wire: Wire, path: str) -> None:
            if path == "/manifest":
                await wire.send(head(2) + b"{}")
                return
            await wire.send(head(BIG))
            await wire.send(DATA[:BIG])
            await whole.wait()
            await wire.send(head(4) + b"evil")

        async with connected(talk, tls) as client:
            assert await client.fetch(BIG) == DATA[:BIG]
            whole.set()
            await asyncio.sleep(0.05)  # idle; and were the bytes not there yet, the answer would be right all the same
            assert await client.manifest() == b"{}"
            assert len(set(client.server.ports)) == 2
        assert len(taken) == 1

    run(work())


@pytest.mark.parametrize("part", [0, 1, 300_000, 1 << 20, PART])
def test_a_cancelled_fetch_gives_its_buffer_back_and_ends_the_connection(
    run: Run, tls: ssl.SSLContext | None, taken: list[DirectReceiver], part: int
) -> None:
    async def talk(wire: Wire, path: str) -> None:
        if path == "/manifest":
            await wire.send(head(2) + b"{}")
            return
        await wire.send(head(BIG))
        await until(lambda: bool(taken))
        if part:  # else the client may have left
            await wire.send(DATA[:part])
        await wire.ended()

    async def work() -> None:
        async with connected(talk, tls) as client:
            task = asyncio.create_task(client.fetch(BIG))
            await until(lambda: bool(taken) and taken[-1].left == BIG - part)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert client.buffers.pool.in_use == 0
            await client.server.ended.wait()
            assert await client.manifest() == b"{}"
            assert len(set(client.server.ports)) == 2

    run(work())


def test_a_fetch_cancelled_while_it_waits_for_a_buffer_ends_the_connection(
    run: Run, tls: ssl.SSLContext | None, taken: list[DirectReceiver]
) -> None:
    async def talk(wire: Wire, path: str) -> None:
        await wire.send(head(BIG))
        await wire.send(DATA[:BIG])
        await wire.ended()

    async def work() -> None:
        async with connected(talk, tls) as client:
            held = [await client.buffers.take() for _ in range(3)]
            async with client.body(BIG) as buffers:
                held.append(await anext(buffers))
                second = asyncio.ensure_future(anext(buffers))
                await asyncio.sleep(0)
                second.cancel()
                await asyncio.wait([second])
            for buffer in held:
                buffer.release()
            await client.server.ended.wait()
        assert len(taken) == 1

    run(work())


@pytest.mark.parametrize("framing", ["chunked", "no length"])
def test_a_body_without_a_length_is_left_to_aiohttp(
    run: Run, tls: ssl.SSLContext | None, taken: list[DirectReceiver], framing: str
) -> None:
    async def talk(wire: Wire, path: str) -> None:
        if framing == "chunked":
            await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await wire.send(b"%x\r\n" % BIG + DATA[:BIG] + b"\r\n0\r\n\r\n")
        else:
            await wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + DATA[:BIG])
            wire.writer.close()

    async def work() -> None:
        async with connected(talk, tls) as client:
            for _ in range(2):
                assert await client.fetch(BIG) == DATA[:BIG]
        assert not taken

    run(work())


def test_a_server_that_closes_after_the_last_byte_is_asked_again_on_a_new_connection(
    run: Run, tls: ssl.SSLContext | None, taken: list[DirectReceiver]
) -> None:
    async def talk(wire: Wire, path: str) -> None:
        await wire.send(head(BIG))
        await wire.send(DATA[:BIG])
        wire.writer.close()

    async def work() -> None:
        async with connected(talk, tls) as client:
            for _ in range(3):
                assert await client.fetch(BIG) == DATA[:BIG]
            assert len(client.server.ports) == 3
        assert len(taken) == 3

    run(work())


def test_a_transport_that_claims_more_bytes_than_there_was_room_for_is_not_believed(
    run: Run, tls: ssl.SSLContext | None, taken: list[DirectReceiver]
) -> None:
    async def work() -> None:
        claimed = asyncio.Event()

        async def talk(wire: Wire, path: str) -> None:
            await wire.send(head(SHORT))
            await claimed.wait()
            await wire.send(DATA[:SHORT])

        async with connected(talk, tls) as client:
            fetch = asyncio.create_task(client.fetch(SHORT))
            await until(lambda: bool(taken) and taken[0]._waiter is not None)
            room = len(taken[0].get_buffer(-1))
            for count in (room + 1, -1):
                with pytest.raises(ValueError, match="bytes"):
                    taken[0].buffer_updated(count)
            claimed.set()
            assert await fetch == DATA[:SHORT]

    run(work())
