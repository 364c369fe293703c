"""A server that answers exactly the bytes a test gives, and buffers from a real pool."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from fastoci._core import Buffer, Pool
from fastoci.errors import FastociError

End = Literal["keep", "close", "reset", "hold"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes to send, and what becomes of the connection."""

    data: bytes
    end: End = "keep"
    rate: int = 0  # bytes of the body a second; 0: as fast as it goes
    silence: asyncio.Event | None = None  # nothing is sent before it is over


Script = Callable[[Asked], Raw]


def answer(status: int = 200, body: bytes = b"", headers: dict[str, str] | None = None, *, end: End = "keep") -> Raw:
    """A well-framed answer."""
    fields = {"Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return Raw(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body, end)


def as_json(document: object, status: int = 200) -> Raw:
    return answer(status, json.dumps(document).encode(), {"Content-Type": "application/json"})


def unauthorized(challenge: str) -> Raw:
    body = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
    return answer(401, body, {"WWW-Authenticate": challenge})


@dataclass(slots=True)
class Server:
    """What was asked, over how many connections, and where."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def until(self, count: int, path: str = "") -> None:
        """Wait for so many requests, of this path if one is given."""
        while sum(asked.path == (path or asked.path) for asked in self.asked) < count:
            self.came.clear()
            await self.came.wait()

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]


@asynccontextmanager
async def serving(script: Script, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve on a free loopback port."""
    server = Server()
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        task = asyncio.ensure_future(_talk(script, server, reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls, limit=1 << 20)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()


async def _talk(script: Script, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            first = await reader.readexactly(1)
            if first == b"\x16":  # a TLS handshake, answered as common servers do
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                return
            asked = await _read(reader, first)
            server.asked.append(asked)
            server.came.set()
            raw = script(asked)
            if raw.silence is not None:
                await raw.silence.wait()
            await _send(raw, writer)
            if raw.end == "hold":
                await asyncio.Event().wait()
            if raw.end == "reset":
                # Zero linger: the close sends RST. Only after the client has read what was sent, or it is dropped.
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            if raw.end != "keep":
                return
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.close()


async def _send(raw: Raw, writer: asyncio.StreamWriter) -> None:
    begin = raw.data.index(b"\r\n\r\n") + 4 if raw.rate else len(raw.data)
    writer.write(raw.data[:begin])
    for start in range(begin, len(raw.data), max(1, raw.rate // 50)):
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(raw.data[start : start + max(1, raw.rate // 50)])
    await writer.drain()


async def _read(reader: asyncio.StreamReader, begin: bytes) -> Asked:
    head = (begin + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    url = urlsplit(target)
    return Asked(method, url.path, tuple(parse_qsl(url.query)), headers, body)


class Buffers:
    """A ``BufferSource`` over a pool: waits on the loop until a buffer is free."""

    def __init__(self, capacity: int, *, ahead: int = 0) -> None:
        self.ahead = ahead
        self.pressed: set[Callable[[], object]] = set()
        self.pool = Pool(capacity, poison=True)
        self._freed = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.pool.on_release = lambda: loop.call_soon_threadsafe(self._freed.set)
        self.taken = 0

    async def take(self) -> Buffer:
        while (buffer := self.pool.take()) is None:
            self._freed.clear()
            await self._freed.wait()
        self.taken += 1
        return buffer

    def spare(self) -> Buffer | None:
        return self.pool.take()


async def drain(buffers: AsyncIterator[Buffer]) -> bytes:
    """All bytes of a fetch."""
    data = bytearray()
    async for buffer in buffers:
        data += buffer
        buffer.release()
    return bytes(data)


async def drain_until_error(buffers: AsyncIterator[Buffer]) -> tuple[bytes, FastociError]:
    """The bytes that came, and the error that ended them."""
    data = bytearray()
    try:
        async for buffer in buffers:
            data += buffer
            buffer.release()
    except FastociError as error:
        return bytes(data), error
    raise AssertionError(f"no error after {len(data)} bytes")
