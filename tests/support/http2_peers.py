"""Peers of HTTP/2 that send what they like, frame by frame, and servers of calls on a socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from hpack import Decoder, Encoder

from fastoci.containerd.rpc import Bounds, Handler, Peer, Server

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

OPENING = {":status": "200", "content-type": "application/grpc"}
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Any frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(fields: Mapping[str, str], *, stream: int = 1, end: bool = False) -> bytes:
    """A list of headers, in frames of 16 KiB."""
    block = Encoder().encode(list(fields.items()), huffman=False)
    parts = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    out = b""
    for number, part in enumerate(parts):
        flags = (END_HEADERS if part is parts[-1] else 0) | (END_STREAM if end and not number else 0)
        out += frame(CONTINUATION if number else HEADERS, part, flags=flags, stream=stream)
    return out


def request(path: str = "/t.T/Echo", *, stream: int = 1, end: bool = False, **others: str) -> bytes:
    """The headers of a call."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
    fields["content-type"] = "application/grpc"
    return headers(
        {**fields, **{name.replace("_", "-"): value for name, value in others.items()}}, stream=stream, end=end
    )


def message(data: bytes, *, stream: int = 1, end: bool = False) -> bytes:
    """A message in one frame."""
    flags = END_STREAM if end else 0
    return frame(DATA, b"\0" + len(data).to_bytes(4, "big") + data, flags=flags, stream=stream)


def trailers(status: int, *, stream: int = 1) -> bytes:
    """The end of a call."""
    return headers({"grpc-status": str(status)}, stream=stream, end=True)


def setting(number: int, value: int) -> bytes:
    """SETTINGS with one setting."""
    return frame(SETTINGS, number.to_bytes(2, "big") + value.to_bytes(4, "big"))


def number(value: int) -> bytes:
    """Four bytes."""
    return value.to_bytes(4, "big")


@asynccontextmanager
async def scripted(path: Path, script: Script) -> AsyncIterator[None]:
    """A server that does for each connection what the script says, and then hangs up."""
    running: set[asyncio.Task[object]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        with suppress(ConnectionError, asyncio.CancelledError):
            await script(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_unix_server(connected, str(path))
    try:
        yield
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def answering(*frames: bytes, stay: bool = True) -> Script:
    """A script: settings, and these frames after the first call's headers; the rest of what comes is read."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(SETTINGS))
        while (await frame_of(reader))[0] != HEADERS:
            pass
        for each in frames:
            writer.write(each)
            await writer.drain()
        while stay and await reader.read(1 << 16):
            pass

    return script


async def frame_of(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
    """The next frame: kind, flags, stream and payload. The preface is passed over."""
    head = await reader.readexactly(9)
    if head == PREFACE[:9]:
        await reader.readexactly(len(PREFACE) - 9)
        head = await reader.readexactly(9)
    size = int.from_bytes(head[:3], "big")
    return head[3], head[4], int.from_bytes(head[5:], "big"), await reader.readexactly(size)


async def frames_until(reader: asyncio.StreamReader, *kinds: int) -> list[tuple[int, int, int, bytes]]:
    """The frames up to the first of these kinds."""
    found = [await frame_of(reader)]
    while found[-1][0] not in kinds:
        found.append(await frame_of(reader))
    return found


class Caller:
    """A client, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer
        self._decoder = Decoder()

    def send(self, *frames: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(b"".join(frames))

    async def answer(self, stream: int = 1) -> tuple[dict[str, str], bytes]:
        """All headers of a call's answer, and its data; to the end of it."""
        found: dict[str, str] = {}
        data = b""
        while True:
            kind, flags, number, payload = await frame_of(self.reader)
            if kind == HEADERS:
                found |= {str(name): str(value) for name, value in self._decoder.decode(payload)}
            data += payload if kind == DATA else b""
            if number == stream and kind == RST_STREAM:
                return {**found, "reset": str(int.from_bytes(payload, "big"))}, data
            if number == stream and kind in (HEADERS, DATA) and flags & END_STREAM:
                return found, data

    async def over(self) -> list[int]:
        """Read until the server hangs up; the kinds of the frames that come."""
        kinds = []
        async with asyncio.timeout(10):
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    kinds.append((await frame_of(self.reader))[0])
        return kinds


@asynccontextmanager
async def calling(path: Path, *frames: bytes, preface: bytes = PREFACE + frame(SETTINGS)) -> AsyncIterator[Caller]:
    """A client that has sent its preface, its settings and these frames."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(preface + b"".join(frames))
        yield Caller(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def served(
    path: Path,
    handlers: Mapping[str, Handler],
    *,
    allow: Callable[[Peer], bool] = lambda peer: True,
    bounds: Bounds | None = None,
    grace_s: float = 5.0,
) -> AsyncIterator[Server]:
    """A server of calls, which is stopped in the end."""
    server = Server(handlers, allow=allow, bounds=bounds or Bounds())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        task = asyncio.create_task(server.serve(listener, grace_s=grace_s))
        try:
            yield server
        finally:
            server.stop()
            await task


def repeated(data: bytes, times: int) -> Iterable[bytes]:
    """The same many times, in pieces of about 64 KiB."""
    piece = data * max(1, 65536 // len(data))
    return [piece] * (times * len(data) // len(piece) + 1)


async def until(condition: Callable[[], object]) -> None:
    """Wait until this is so."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
