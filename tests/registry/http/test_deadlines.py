"""Every phase of a request has a deadline: the name, the connection, the proxy, TLS, the form, the headers, the body.

The other waits have theirs where they are tested: bodies that drip (``test_throughput``), helpers
(``test_helper_process``), tokens (``test_tokens``), digests of other processes (``test_waiting``), locks
(``test_locks``).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import uvloop
from yarl import URL

from fastoci.errors import TimedOutError, TransportError
from fastoci.registry.http.transport import Transport
from fastoci.registry.http.urls import parse_url

uvloop.new_event_loop().close()  # opens a pipe for the life of the process, which is no test's leak

CONNECT_S = 0.2
READ_S = 0.3
SOON_S = 20.0  # a wait without a deadline has none; the others end in a second
DRIP_S = 0.02

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[int]:
    """Serve on a free loopback port; each connection ends with the server."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(run(reader, writer)))

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1 << 16):
        pass


async def reads_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def dripping(first: bytes, drop: bytes) -> Talk:
    """Send something, and then a little, now and then, for ever."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        writer.write(first)
        while True:
            await asyncio.sleep(DRIP_S)
            writer.write(drop)
            await writer.drain()

    return talk


def once(answer: bytes) -> Talk:
    """Answer the first request, and fall silent."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await silence(reader, writer)

    return talk


@dataclass(frozen=True, slots=True)
class Phase:
    """Where a server stops, and how the request ends."""

    talk: Talk
    error: str
    url: str = "http://127.0.0.1:{port}/v2/"
    proxied: bool = False
    body: bytes | None = None


TUNNEL = "https://registry.test/v2/"
TLS = "https://127.0.0.1:{port}/v2/"
NO_CONNECTION = "no connection in time"
NO_ANSWER = "silence for too long after 0 bytes"
NO_TUNNEL = "no connection in time, through the proxy http://127.0.0.1"

PHASES = {
    "a TLS handshake that is not answered": Phase(silence, NO_CONNECTION, TLS),
    "a TLS handshake that drips": Phase(dripping(b"\x16\x03\x03\x10\x00\x02\x00\x0f\xfc", b"\x00"), NO_CONNECTION, TLS),
    "a proxy that is silent": Phase(silence, NO_TUNNEL, TUNNEL, proxied=True),
    "a proxy that drips its answer": Phase(
        dripping(b"HTTP/1.1 200 OK\r\nX-Drip: ", b"x"), NO_TUNNEL, TUNNEL, proxied=True
    ),
    "a proxy that drips headers": Phase(
        dripping(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"), NO_TUNNEL, TUNNEL, proxied=True
    ),
    "a proxy that says to go on": Phase(
        dripping(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), NO_TUNNEL, TUNNEL, proxied=True
    ),
    "silence behind the proxy": Phase(once(b"HTTP/1.1 200 OK\r\n\r\n"), NO_CONNECTION, TUNNEL, proxied=True),
    "a proxy for plain http that is silent": Phase(silence, NO_ANSWER, "http://registry.test/v2/", proxied=True),
    "a form that is not read": Phase(reads_nothing, NO_ANSWER, body=b"x" * 1_000_000),
    "headers that do not come": Phase(silence, NO_ANSWER),
    "headers that drip": Phase(dripping(b"HTTP/1.1 200 OK\r\nX-Drip: ", b"x"), NO_ANSWER),
    "a body that does not come": Phase(
        once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), "silence for too long after 0 bytes"
    ),
    "a body that stops": Phase(
        once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234"), "silence for too long after 4 bytes"
    ),
    "a chunk that stops": Phase(
        once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n1234"), "silence for too long after 4 bytes"
    ),
    "the body of a refused redirect": Phase(
        once(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 9\r\n\r\n"), "connection refused"
    ),
}


async def ask(url: str, *, proxy: str = "", body: bytes | None = None) -> None:
    """One whole request, within ``SOON_S``."""
    client = Transport(
        tls_verify=True,
        connect_s=CONNECT_S,
        read_s=READ_S,
        connections=2,
        proxy=lambda url: URL(proxy) if proxy else None,
    )
    try:
        async with asyncio.timeout(SOON_S):
            reply = await client.request("GET" if body is None else "POST", parse_url(url), headers={}, body=body)
            try:
                await reply.read(1 << 20)
            finally:
                reply.close()
    finally:
        await client.aclose()


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
async def test_a_request_ends_wherever_the_other_side_stops(phase: Phase) -> None:
    async with talking(phase.talk) as port:
        proxy = f"http://127.0.0.1:{port}" if phase.proxied else ""
        with pytest.raises(TransportError, match=phase.error):
            await ask(phase.url.format(port=port), proxy=proxy, body=phase.body)


async def test_a_connection_that_nobody_takes_ends() -> None:
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # its queue is full: the kernel drops whoever comes
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        with pytest.raises(TimedOutError, match=NO_CONNECTION):
            await ask(f"http://127.0.0.1:{listener.getsockname()[1]}/v2/")


@pytest.fixture
def name_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str] | threading.Event]]:
    """Names and their addresses, or what is waited for before there are any."""
    table: dict[str, list[str] | threading.Event] = {}
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *arguments: int, **options: int) -> list[tuple[object, ...]]:
        found = table.get(host, [host])
        if isinstance(found, threading.Event):
            assert found.wait(2 * SOON_S)
            found = ["127.0.0.1"]
        return [info for address in found for info in real(address, port, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield table
    for found in table.values():
        if isinstance(found, threading.Event):
            found.set()


async def test_a_name_that_no_server_answers_for_ends(
    name_service: dict[str, list[str] | threading.Event],
) -> None:
    name_service["registry.test"] = threading.Event()
    with pytest.raises(TimedOutError, match=NO_CONNECTION):
        await ask("http://registry.test/v2/")


async def test_a_name_with_any_number_of_silent_addresses_ends_as_soon_as_one_with_a_few(
    name_service: dict[str, list[str] | threading.Event],
) -> None:
    async with talking(silence) as port:
        name_service["registry.test"] = ["127.0.0.1"] * 200
        begun = time.monotonic()
        with pytest.raises(TimedOutError, match=NO_CONNECTION):
            await ask(f"https://registry.test:{port}/v2/")
        assert time.monotonic() - begun < 200 * CONNECT_S / 4


def test_on_uvloop_the_deadlines_are_the_same() -> None:
    async def end(phase: Phase) -> str:
        async with talking(phase.talk) as port:
            try:
                proxy = f"http://127.0.0.1:{port}" if phase.proxied else ""
                await ask(phase.url.format(port=port), proxy=proxy, body=phase.body)
            except TransportError as error:
                return str(error)
        return "no error"

    async def ends() -> list[str]:
        return await asyncio.gather(*map(end, PHASES.values()))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = dict(zip(PHASES, runner.run(ends()), strict=True))
    assert not {name: text for name, text in found.items() if PHASES[name].error not in text}
