"""HTTP/1.1 from the server's side, over raw streams: requests as they came, answers and ends of every kind.

It knows no registry, and checks nothing of what a handler sends, so that what must not be sent can be.
Spec: RFC 9112 (framing of requests).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import ssl
import struct
import sys
import tempfile
import termios
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

_HEAD_SIZE: Final = 256 << 10
_BODY_SIZE: Final = 1 << 20
_HANDSHAKE: Final = b"\x16"
_PIECE: Final = 256 << 10
_ARRIVAL_S: Final = 5.0  # for a client that reads nothing


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came; header names are lower case, several of one name joined by ``, ``."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    reused: bool  # not the first of its connection
    file: Path | None = None  # where a body is that is not held in memory; gone when the answer is sent
    taken: bool = False  # an ``Intake`` had the body

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, list[str]]:
        """The fields of the query."""
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True)

    @property
    def form(self) -> dict[str, list[str]]:
        """The fields of an urlencoded body."""
        return parse_qs(self.body.decode("latin-1"), keep_blank_values=True)


class Malformed(Exception):
    """The client did not send a request; the connection ends."""


class Peer:
    """The way back to one client. ``sent`` counts the bytes written since it was last set to 0."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sent = 0
        self.writer = writer
        self.reader = reader

    async def write(self, data: bytes) -> None:
        """Send bytes, in pieces, no faster than the client takes them.

        Raises:
            ConnectionResetError: the client left.
        """
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            piece = view[start : start + _PIECE]
            self.writer.write(piece)
            await asyncio.sleep(0)  # over TLS nothing else lets the loop see that the connection is lost
            await self.writer.drain()
            if self.writer.transport.is_closing():
                raise ConnectionResetError("the client left")
            self.sent += len(piece)

    async def write_file(self, path: Path, start: int, length: int) -> None:
        """Send a part of a file, by ``sendfile`` where the event loop has it."""
        loop = asyncio.get_running_loop()
        await self.writer.drain()
        with path.open("rb", buffering=0) as file:
            try:
                await loop.sendfile(self.writer.transport, file, start, length)
                self.sent += length
            except NotImplementedError:  # uvloop has none
                for at in range(start, start + length, _PIECE):
                    count = min(_PIECE, start + length - at)
                    await self.write(await loop.run_in_executor(None, os.pread, file.fileno(), count, at))

    async def arrived(self) -> None:
        """Wait until the client's kernel has all that was written, so that a reset loses nothing of it."""
        loop, descriptor = asyncio.get_running_loop(), self._socket().fileno()
        until = loop.time() + _ARRIVAL_S
        while loop.time() < until and not self.writer.transport.is_closing():
            unsent = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
            if not self.writer.transport.get_write_buffer_size() and not int.from_bytes(unsent, sys.byteorder):
                return
            await asyncio.sleep(0.001)

    async def reset(self) -> None:
        """End the connection with RST, after the client has what was written."""
        await self.arrived()
        if not self.writer.transport.is_closing():
            # Zero linger: close sends RST.
            self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def cut(self) -> None:
        """End the connection with FIN, over TLS without the close_notify that makes it an end."""
        await self.arrived()
        self.writer.transport.abort()

    async def stall(self) -> None:
        """Send nothing more, until the client leaves."""
        while await self.reader.read(_PIECE):
            pass

    def _socket(self) -> socket.socket:
        found: socket.socket = self.writer.get_extra_info("socket")
        return found


Handler = Callable[[Request, Peer], Awaitable[bool]]
# Takes a body as it comes, piece by piece; a ``ConnectionError`` from it ends the connection.
Intake = Callable[[bytes], Awaitable[None]]


class Listener:
    """Accepts connections, and gives the requests of each to a handler, one after another.

    The handler answers by the ``Peer``, and returns whether the connection is kept. ``failures`` holds what handlers
    raised, other than the client's leaving.

    Args:
        spool: a directory for bodies of more than 1 MiB, which are refused without one.
        intake: who takes the body of a request, of which it has the head; None for what becomes of others.
    """

    def __init__(
        self,
        handle: Handler,
        *,
        spool: Path | None = None,
        intake: Callable[[Request], Intake | None] | None = None,
    ) -> None:
        self._intake = intake
        self._spool = spool
        self.failures: list[BaseException] = []
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, bound: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept connections to a bound socket, which now belongs to the listener."""
        self._server = await asyncio.start_server(self._connected, sock=bound, ssl=tls, limit=_HEAD_SIZE)

    async def aclose(self) -> None:
        """Accept no more, and end all connections at once."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._talk(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self.failures.append(failure)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer, reused = Peer(reader, writer), False
        self._writers.add(writer)
        try:
            kept = True
            while kept:
                request = await _read(reader, reused, self._spool, self._intake)
                try:
                    kept = reused = await self._handle(request, peer)
                finally:
                    if request.file is not None:
                        request.file.unlink(missing_ok=True)
        except (Malformed, asyncio.LimitOverrunError):
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # the client left
        finally:
            self._writers.discard(writer)
            writer.close()


async def _read(
    reader: asyncio.StreamReader,
    reused: bool,
    spool: Path | None,
    intake: Callable[[Request], Intake | None] | None,
) -> Request:
    begin = await reader.readexactly(1)
    if begin == _HANDSHAKE:  # would wait for an answer for ever
        raise Malformed("TLS, where plain HTTP is spoken")
    head = (begin + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    try:
        method, target, _ = first.split(" ")
        headers: dict[str, str] = {}
        for name, _, value in (line.partition(":") for line in lines):
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        length = int(headers.get("content-length", "0"))
    except ValueError:
        raise Malformed(first) from None
    bare = Request(method, target, headers, b"", reused)
    if length > 0 and intake is not None and (take := intake(bare)) is not None:
        await _take(reader, length, take)
        return replace(bare, taken=True)
    if length > _BODY_SIZE and spool is not None:
        return Request(method, target, headers, b"", reused, await _spooled(reader, length, spool))
    if not 0 <= length <= _BODY_SIZE:
        raise Malformed(f"a body of {length} bytes")
    return Request(method, target, headers, await reader.readexactly(length), reused)


async def _take(reader: asyncio.StreamReader, length: int, take: Intake) -> None:
    while length:
        piece = await reader.read(min(_PIECE, length))
        if not piece:
            raise asyncio.IncompleteReadError(b"", length)
        length -= len(piece)
        await take(piece)


async def _spooled(reader: asyncio.StreamReader, length: int, spool: Path) -> Path:
    """A body in a new file."""
    fd, name = tempfile.mkstemp(dir=spool)
    try:
        while length:
            piece = await reader.read(min(_PIECE, length))
            if not piece:
                raise asyncio.IncompleteReadError(b"", length)
            length -= os.write(fd, piece)
    except BaseException:
        os.unlink(name)
        raise
    finally:
        os.close(fd)
    return Path(name)


def bind(host: str, port: int = 0) -> socket.socket:
    """A socket that a ``Listener`` can take, on this address.

    Raises:
        OSError: the address is not this machine's, or the port is taken or reserved.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Its connections inherit that: a body would wait 40 ms for word that the head has come.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)
    return bound
