"""Answers whose bodies have come, and that are read later: their connection is another request's by then."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop

from fastoci.errors import RegistryError, TransportError, TruncatedError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.registry.fetch.body import Body
from fastoci.registry.http.error_response import error_of
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.transport import Transport
from fastoci.registry.http.urls import parse_url
from support.scripted_server import Buffers

DATA = random.Random(3).randbytes(3 << 20)
SMALL, BIG = 40_000, 3 << 20

Run = Callable[[Coroutine[Any, Any, None]], None]

uvloop.new_event_loop().close()  # opens a pipe for the life of the process, which is no test's leak


class Server:
    """Serves ``/SIZE`` and ``/error/SIZE``, each connection's answers in pieces, as ``paces`` says.

    Args:
        paces: seconds before the next piece, which is as long as the second number says.
    """

    def __init__(self, paces: Callable[[], tuple[float, int]]) -> None:
        self.url = ""
        self.connections = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self._paces = paces

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self.talk(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
                size = int(path.rpartition("/")[2])
                status = 404 if path.startswith("/error") else 200
                answer = memoryview(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, size) + DATA[:size])
                while answer and not writer.is_closing():
                    pause, step = self._paces()
                    writer.write(answer[:step])
                    await writer.drain()
                    await asyncio.sleep(pause)
                    answer = answer[step:]
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


class Client:
    """Requests to one server over few connections."""

    def __init__(self, transport: Transport, server: Server) -> None:
        self.transport = transport
        self.server = server
        self.buffers = Buffers(6 << 20)

    async def ask(self, path: str | int) -> Reply:
        return await self.transport.request("GET", parse_url(f"{self.server.url}/{path}"), headers={})

    def body(self, reply: Reply, size: int) -> Body:
        blob = Descriptor("application/octet-stream", Digest.of(b""), size)
        return Body(reply, blob, self.transport.servers.of(reply.origin), skip=0, left=size)

    async def fill(self, body: Body, *, between: Callable[[], Coroutine[Any, Any, None]] | None = None) -> bytes:
        """All bytes of a body; it is closed."""
        data = bytearray()
        try:
            while body.left:
                buffer = await self.buffers.take()
                try:
                    if between is not None:
                        await between()
                    await body.fill(buffer, body.left)
                    data += buffer
                finally:
                    buffer.release()
        finally:
            body.close()
        return bytes(data)


@asynccontextmanager
async def connected(
    tls: ssl.SSLContext | None,
    *,
    paces: Callable[[], tuple[float, int]] = lambda: (0.0, 1 << 18),
    connections: int = 1,
) -> AsyncIterator[Client]:
    server = Server(paces)
    listener = await asyncio.start_server(server.connected, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    server.url = f"http{'s' if tls else ''}://127.0.0.1:{port}"
    transport = Transport(tls_verify=True, connect_s=10.0, read_s=20.0, connections=connections)
    client = Client(transport, server)
    try:
        yield client
    finally:
        client.buffers.pool.on_release = None
        await transport.aclose()
        listener.close()
        for task in list(server.tasks):
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)
        await listener.wait_closed()
    assert client.buffers.pool.in_use == 0


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a test's coroutine on a loop of each kind; what the loop is told of as an error fails the test."""
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


async def arrive() -> None:
    """Let what was sent arrive."""
    await asyncio.sleep(0.03)


@pytest.mark.attack
@pytest.mark.parametrize("kind", ["manifest", "error", "body"])
def test_an_answer_that_is_read_late_leaves_the_next_transfer_on_its_connection_alone(
    run: Run, tls: ssl.SSLContext | None, kind: str
) -> None:
    async def work() -> None:
        async with connected(tls, paces=lambda: (0.002, 100_000)) as client:
            late = await client.ask(f"error/{SMALL}" if kind == "error" else SMALL)
            await arrive()
            big = client.body(await client.ask(BIG), BIG)
            if kind == "manifest":
                assert await late.read(1 << 20) == DATA[:SMALL]
                late.close()
            elif kind == "error":
                assert (await error_of(late)).url == late.url
            else:
                assert await client.fill(client.body(late, SMALL)) == DATA[:SMALL]
            await arrive()  # nobody is ready for the bytes that come
            assert await client.fill(big) == DATA[:BIG]
            assert client.server.connections == 1

    run(work())


@pytest.mark.attack
def test_bytes_that_nobody_is_ready_for_are_kept(run: Run, tls: ssl.SSLContext | None) -> None:
    async def work() -> None:
        async with connected(tls, paces=lambda: (0.002, 100_000)) as client:
            reply = await client.ask(BIG)
            transport = reply._response.connection.transport  # type: ignore[union-attr]
            body = client.body(reply, BIG)
            assert transport is not None
            for _ in range(5):
                transport.resume_reading()  # as whoever still had the connection would
                await arrive()
            assert await client.fill(body) == DATA[:BIG]
            assert await (await client.ask(SMALL)).read(1 << 20) == DATA[:SMALL]
            assert client.server.connections == 1

    run(work())


@pytest.mark.attack
@pytest.mark.parametrize("seed", range(4))
def test_answers_read_in_any_order_are_right(run: Run, tls: ssl.SSLContext | None, seed: int) -> None:
    rng = random.Random(seed)

    async def pause() -> None:
        """A wait for memory, a helper, a plugin."""
        await asyncio.sleep(rng.choice([0, 0, 0.001, 0.005, 0.02]))

    async def one(client: Client) -> None:
        size = rng.choice([0, 1, 700, SMALL, (128 << 10) - 1, 128 << 10, 300_000, 600_000, 1 << 20, BIG])
        kind = rng.choice(["read", "error", "body", "leave"])
        reply = await client.ask(f"error/{size}" if kind == "error" else size)
        await pause()
        if kind == "error":
            assert isinstance(await error_of(reply), RegistryError)
        elif kind == "body" and size:
            body = client.body(reply, size)
            await pause()
            assert await client.fill(body, between=pause) == DATA[:size]
        else:
            if kind != "leave":
                assert await reply.read(size) == DATA[:size]
            reply.close()

    async def several(client: Client) -> None:
        for _ in range(8):
            await pause()
            await one(client)

    async def work() -> None:
        def paces() -> tuple[float, int]:
            return rng.choice([0, 0, 0.001, 0.01]), rng.choice([1000, 50_000, 1 << 19])

        async with connected(tls, paces=paces, connections=2) as client:
            await asyncio.gather(*(several(client) for _ in range(4)))

    run(work())


async def test_a_body_is_never_asked_beyond_its_end() -> None:
    async with connected(None) as client:
        body = client.body(await client.ask(BIG), BIG)
        buffer = await client.buffers.take()
        try:
            while body.left:
                await body.fill(buffer, BIG + 1)
                buffer.clear()
            for _ in range(2):
                with pytest.raises(TruncatedError, match="no more than"):
                    await body.fill(buffer, 1)
        finally:
            buffer.release()
            body.close()


@pytest.mark.attack
def test_a_server_that_speaks_before_it_is_asked_is_not_connected_to_for_ever(run: Run) -> None:
    connections = 0
    ended: list[asyncio.Future[None]] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        ended.append(asyncio.get_running_loop().create_future())
        here = ended[-1]
        writer.write(b"220 mail.example.org ESMTP\r\n")
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        here.set_result(None)

    async def work() -> None:
        listener = await asyncio.start_server(greet, "127.0.0.1", 0)
        url = "http://{}:{}/v2/".format(*listener.sockets[0].getsockname())
        transport = Transport(tls_verify=True, connect_s=10.0, read_s=20.0, connections=3)
        try:
            async with asyncio.timeout(20):
                with pytest.raises(TransportError):
                    await transport.request("GET", parse_url(url), headers={})
        finally:
            await transport.aclose()
            listener.close()
            await asyncio.gather(*ended)
            await listener.wait_closed()
        assert connections <= 4

    run(work())
