"""Records of TLS that lie or are cut, new keys in mid-body, and a server that wants to begin anew: on both loops.

What was received is the beginning of the body, or all of it; never a byte that the server did not encipher.
Covers: registry/http/direct_receiver.py, registry/http/tls.py.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme
import uvloop

from fastoci.errors import FastociError, TransportError, TruncatedError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.registry.fetch.body import Body
from fastoci.registry.http.transport import Transport
from fastoci.registry.http.urls import parse_url
from support.scripted_server import Buffers

uvloop.new_event_loop().close()  # opens a pipe for the life of the process, which is no test's leak

BODY = bytes(range(256)) * (6 << 10)
_RECORD = 16 << 10
_GOOD = 40 * _RECORD  # bytes before the record that is spoiled
_HEADER = 5  # bytes of a record

T = TypeVar("T")

Run = Callable[[Coroutine[Any, Any, None]], None]
Spoil = Callable[[bytes], tuple[bytes, bool]]  # a record; what is sent in its place, and whether that is the end


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a test's coroutine on a loop of each kind."""

    def runner(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(work)

    return runner


class Client:
    """Fetches by one transport, into buffers that must all be back at the end."""

    def __init__(self, port: int) -> None:
        self.body: Body | None = None
        self.data = bytearray()  # of the last body
        self.transport = Transport(tls_verify=True, connect_s=10.0, read_s=10.0, connections=1)
        self._url = parse_url(f"https://127.0.0.1:{port}/body")
        self._buffers = Buffers(2 << 20)

    async def fetch(self, size: int) -> bytes:
        reply = await self.transport.request("GET", self._url, headers={})
        blob = Descriptor("application/octet-stream", Digest.of(b""), size)
        body = self.body = Body(reply, blob, self.transport.servers.of(reply.origin), skip=0, left=size)
        self.data.clear()
        try:
            while body.left:
                buffer = await self._buffers.take()
                try:
                    await body.fill(buffer, body.left)
                finally:
                    self.data += buffer
                    buffer.release()
        finally:
            body.close()
            self.body = None
        return bytes(self.data)

    async def until(self, size: int) -> None:
        """Wait until so many bytes of the body have come."""
        while self.body is None or self.body.received() < size:  # noqa: ASYNC110 - a count, which tells nobody
            await asyncio.sleep(0.001)

    async def fails(self, size: int) -> FastociError:
        try:
            await self.fetch(size)
        except FastociError as error:
            return error
        raise AssertionError("all of it came")


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    client = Client(port)
    try:
        yield client
        assert client._buffers.pool.in_use == 0
    finally:
        client._buffers.pool.on_release = None
        await client.transport.aclose()


class Server:
    """Answers on a thread, record by record: one of them may be spoiled, and the end comes without close_notify."""

    def __init__(self, context: ssl.SSLContext, spoil: Spoil | None) -> None:
        self.connections = 0
        self.closed = threading.Event()
        self._context, self._spoil = context, spoil
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                with connection, suppress(OSError, EOFError):
                    connection.settimeout(20)
                    self._talk(connection)
                self.closed.set()

    def _talk(self, connection: socket.socket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context.wrap_bio(incoming, outgoing, server_side=True)

        def more() -> None:
            connection.sendall(outgoing.read())
            if not (data := connection.recv(1 << 16)):
                raise EOFError
            incoming.write(data)

        def when_it_came(work: Callable[[], T]) -> T:
            while True:
                try:
                    return work()
                except ssl.SSLWantReadError:
                    more()

        when_it_came(tls.do_handshake)
        when_it_came(lambda: tls.read(1 << 16))
        tls.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        for start in range(0, len(BODY), _RECORD):
            connection.sendall(outgoing.read())
            tls.write(BODY[start : start + _RECORD])
            if start == _GOOD and self._spoil is not None:
                record, over = self._spoil(outgoing.read())
                connection.sendall(record)
                if over:
                    break
        connection.sendall(outgoing.read())
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):  # else what it has not read becomes a reset
            pass


SPOILS: dict[str, Spoil] = {
    "one bit is another": lambda record: (record[:-9] + bytes([record[-9] ^ 4]) + record[-8:], False),
    "comes twice": lambda record: (record * 2, False),
    "is left out": lambda record: (b"", False),
    "is longer than it says": lambda record: (record[:3] + (len(record) - 100).to_bytes(2) + record[_HEADER:], False),
    "says that it is longer than any": lambda record: (record[:3] + b"\xff\xff" + record[_HEADER:], False),
    "is not enciphered": lambda record: (b"\x17\x03\x03\x00\x04evil" + record, False),
    "is an alert that nobody enciphered": lambda record: (b"\x15\x03\x03\x00\x02\x01\x00" + record, False),
    "is of an unknown kind": lambda record: (b"\x63" + record[1:], False),
    "is cut": lambda record: (record[: len(record) // 2], True),
    "is where it ends, without a word": lambda record: (b"", True),
}


@pytest.mark.parametrize("how", SPOILS)
def test_a_record_that_lies_or_is_cut_ends_the_body_before_it(
    run: Run, certified: Callable[..., ssl.SSLContext], trusted: None, how: str
) -> None:
    async def work() -> None:
        async with connected(server.port) as client:
            error = await client.fails(len(BODY))
        assert isinstance(error, TransportError)
        assert error.retryable
        assert 0 < len(client.data) < len(BODY)
        assert BODY.startswith(client.data)
        if "cut" in how or "ends" in how:
            assert isinstance(error, TruncatedError)
            assert error.received == len(client.data) == _GOOD

    with Server(certified("127.0.0.1"), SPOILS[how]) as server:
        run(work())


def test_a_connection_that_ends_without_close_notify_after_the_body_is_no_error(
    run: Run, certified: Callable[..., ssl.SSLContext], trusted: None
) -> None:
    async def work() -> None:
        async with connected(server.port) as client:
            for count in (1, 2):
                assert await client.fetch(len(BODY)) == BODY
                assert server.connections == count
                while not server.closed.is_set():  # noqa: ASYNC110 - set by a thread
                    await asyncio.sleep(0.001)
                server.closed.clear()

    with Server(certified("127.0.0.1"), None) as server:
        run(work())


class OpensslServer:
    """``openssl s_server``, which does on request what Python's ssl cannot."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._in, self._out = process.stdin, process.stdout

    async def says(self, words: bytes) -> bytes:
        return await asyncio.wait_for(self._out.readuntil(words), 20)

    async def send(self, data: bytes) -> None:
        self._in.write(data)
        await self._in.drain()

    async def command(self, letter: bytes) -> None:
        """What it does as soon as a line begins with a letter; done when it says so."""
        await self.send(letter + b"\n")
        await self.says(b"SSL_do_handshake -> ")


@asynccontextmanager
async def openssl(version: str, authority: trustme.CA, directory: Path) -> AsyncIterator[tuple[OpensslServer, int]]:
    issued = authority.issue_cert("127.0.0.1")
    pem = directory / "server.pem"
    pem.write_bytes(issued.private_key_and_cert_chain_pem.bytes())
    listen = ["openssl", "s_server", "-accept", "127.0.0.1:0", f"-{version}"]
    command = ["stdbuf", "-oL", *listen, "-cert", str(pem), "-key", str(pem)]  # else what it says waits in it
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)
    try:
        server = OpensslServer(process)
        await server.says(b"ACCEPT 127.0.0.1:")
        yield server, int(await server.says(b"\n"))
    finally:
        process.kill()
        await process.communicate()


HALF = b"." * (300 << 10)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * len(HALF))


@pytest.mark.parametrize("letter", [b"k", b"K"], ids=["its own", "both"])
def test_new_keys_in_mid_body_change_nothing(
    run: Run, authority: trustme.CA, trusted: None, tmp_path: Path, peer: Callable[[str], str], letter: bytes
) -> None:
    peer("openssl")

    async def work() -> None:
        async with openssl("tls1_3", authority, tmp_path) as (server, port), connected(port) as client:
            for _ in range(2):  # the second on the same connection: it takes no other
                fetch = asyncio.create_task(client.fetch(2 * len(HALF)))
                await server.says(b"User-Agent")
                await server.send(HEAD + HALF)
                await client.until(len(HALF))  # else the command would be a part of the body
                await server.command(letter)
                await server.send(HALF)
                assert await fetch == 2 * HALF

    run(work())


def test_a_server_that_wants_to_begin_anew_is_refused(
    run: Run, authority: trustme.CA, trusted: None, tmp_path: Path, peer: Callable[[str], str]
) -> None:
    peer("openssl")

    async def work() -> None:
        async with openssl("tls1_2", authority, tmp_path) as (server, port), connected(port) as client:
            fetch = asyncio.create_task(client.fails(2 * len(HALF)))
            await server.says(b"User-Agent")
            await server.send(HEAD + HALF)
            await client.until(len(HALF))
            await server.command(b"r")
            assert b"no renegotiation" in await server.says(b"renegotiation")
            error = await fetch
            assert isinstance(error, TransportError)
            assert HALF.startswith(client.data)

    run(work())
