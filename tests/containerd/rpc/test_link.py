"""Servers that lie, flood, stall or vanish, against a client: every call ends, with the right error, and nothing stays.

Covers: containerd/rpc/link.py, containerd/rpc/exchange.py.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from fastoci.containerd.rpc import Bounds, Code, Connection
from fastoci.errors import ContainerdError
from support import http2_peers as h
from support.http2_peers import (
    OPENING,
    answering,
    frame,
    headers,
    message,
    number,
    repeated,
    scripted,
    setting,
    trailers,
)

OPENED = headers(OPENING)
METHOD = "/t.T/Echo"
BIG = 1 << 20


def bounds(wait_s: float = 20) -> Bounds:
    """Short waits are for those that last as long; a busy machine needs the others."""
    return Bounds(connect_s=wait_s, wait_s=wait_s, memory=1 << 20, message=1 << 20)


async def fails(path: Path, *, wait_s: float = 20, request: bytes = b"") -> ContainerdError:
    """Why a call fails; nothing of it is left in the connection."""
    connection = await Connection.open(str(path), bounds=msgspec.structs.replace(bounds(wait_s), connect_s=20))
    try:
        with pytest.raises(ContainerdError) as caught:
            await connection.call(METHOD, request)
        assert connection._link.held.size == 0
        assert not connection._link._exchanges
        return caught.value
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("frames", "code", "text"),
    [
        pytest.param([], Code.DEADLINE_EXCEEDED, "sent nothing in time", id="nothing"),
        pytest.param([OPENED], Code.DEADLINE_EXCEEDED, "sent nothing", id="headers alone"),
        pytest.param([OPENED, h.frame(h.DATA, b"\0\0\0\0\x05ab", stream=1)], 4, "sent nothing", id="half a message"),
        pytest.param([OPENED, frame(h.DATA, b"\0\0\0\0\x05", flags=1, stream=1)], 13, "middle", id="ends in a message"),
        pytest.param([OPENED, frame(h.DATA, b"\0\0\x10\0\1", stream=1)], 8, "1048577 bytes", id="a message too long"),
        pytest.param([OPENED, frame(h.DATA, b"\1\0\0\0\0", stream=1)], 12, "compressed", id="a compressed message"),
        pytest.param([OPENED, message(b"a"), message(b"b"), trailers(0)], 13, "one answer", id="two messages"),
        pytest.param([headers({**OPENING, "grpc-status": "0"}, end=True)], 13, "one answer", id="OK without a message"),
        pytest.param([headers({**OPENING, "grpc-status": "5"}, end=True)], 5, "status 5", id="trailers only"),
        pytest.param([OPENED, message(b"a"), trailers(5)], Code.NOT_FOUND, "status 5", id="an error after a message"),
        pytest.param([OPENED, message(b"a", end=True)], Code.UNKNOWN, "without a status", id="no status"),
        pytest.param([headers({":status": "404"}, end=True)], Code.UNKNOWN, "not gRPC's .HTTP 404", id="HTTP 404"),
        pytest.param([headers({":status": "200"}, end=True)], Code.UNKNOWN, "not gRPC's", id="another type"),
        pytest.param([frame(h.RST_STREAM, number(8), stream=1)], Code.CANCELLED, "ended the call", id="reset"),
        pytest.param([frame(h.RST_STREAM, number(7), stream=1)], Code.UNAVAILABLE, "ended the call", id="refused"),
        pytest.param([frame(h.RST_STREAM, number(99), stream=1)], 13, "ended the call", id="an unknown reset"),
        pytest.param([frame(h.GOAWAY, bytes(8))], Code.UNAVAILABLE, "ends the connection", id="GOAWAY"),
        pytest.param([frame(h.DATA, bytes(16385), stream=1)], 13, "16385 bytes", id="a frame too long"),
        pytest.param([headers({":status": "200", "a": "x" * 70_000})], 13, "Oversized", id="huge headers"),
        pytest.param([frame(h.HEADERS, b"\xff" * 9, flags=4, stream=1)], 13, "header", id="headers that are none"),
        pytest.param([frame(h.WINDOW_UPDATE, number(0x7FFFFFFF))], 13, "HTTP/2", id="a window too wide"),
        pytest.param([frame(h.WINDOW_UPDATE, number(0))], 13, "HTTP/2", id="a window opened by nothing"),
        pytest.param([frame(h.PUSH_PROMISE, number(2), flags=4, stream=1)], 13, "HTTP/2", id="a push"),
        pytest.param([headers(OPENING, stream=3)], Code.INTERNAL, "HTTP/2", id="an answer to no call"),
        pytest.param([headers(OPENING, stream=2)], Code.INTERNAL, "HTTP/2", id="a call of the server"),
        pytest.param([frame(h.SETTINGS, b"abc")], Code.INTERNAL, "HTTP/2", id="settings that are none"),
        pytest.param([frame(h.DATA, b"\x09ab", flags=8, stream=1)], 13, "HTTP/2", id="more padding than data"),
    ],
)
async def test_a_call_to_a_bad_server_ends_with_the_right_error(
    tmp_path: Path, frames: list[bytes], code: int, text: str
) -> None:
    async with scripted(tmp_path / "s", answering(*frames)):
        error = await fails(tmp_path / "s", wait_s=0.1 if code == Code.DEADLINE_EXCEEDED else 20)
    assert error.code == code, error
    with pytest.raises(ContainerdError, match=text):
        raise error


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(frame(h.PING, bytes(8)), id="PING"),
        pytest.param(frame(h.PING, bytes(8), flags=1), id="answers to no PING"),
        pytest.param(frame(h.SETTINGS), id="SETTINGS"),
        pytest.param(frame(h.DATA, stream=1), id="empty DATA"),
        pytest.param(frame(h.DATA, b"\xfe" + bytes(254), flags=8, stream=1), id="padding"),
        pytest.param(frame(h.WINDOW_UPDATE, number(1)), id="WINDOW_UPDATE"),
        pytest.param(frame(h.PRIORITY, bytes(5), stream=1), id="PRIORITY"),
        pytest.param(frame(h.RST_STREAM, bytes(4), stream=99), id="RST_STREAM of what never was"),
        pytest.param(frame(0xEE, bytes(100)), id="frames that nobody knows"),
        pytest.param(headers({":status": "103"}), id="interim answers"),
    ],
)
async def test_a_server_that_sends_frames_without_end_loses_the_connection(tmp_path: Path, flood: bytes) -> None:
    pieces = [] if flood[3] in (h.HEADERS,) or not flood[8] else [OPENED]
    async with scripted(tmp_path / "s", answering(*pieces, *repeated(flood, 2000))):
        error = await fails(tmp_path / "s")
    assert error.code in (Code.RESOURCE_EXHAUSTED, Code.INTERNAL), error


async def test_a_server_that_only_asks_and_does_not_read_loses_the_connection(tmp_path: Path) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(h.SETTINGS))
        await h.frames_until(reader, h.HEADERS)
        writer.write(OPENED)
        while True:  # with a message now and then, so that it is no chatter
            writer.write((frame(h.PING, bytes(8)) * 14 + message(b"x")) * 100)
            await writer.drain()

    async with (
        scripted(tmp_path / "s", script),
        await Connection.open(str(tmp_path / "s")) as connection,
        connection.stream(METHOD) as stream,
    ):
        stream.end()
        await asyncio.wait_for(asyncio.wait([connection._link.lost]), 20)
        with pytest.raises(ContainerdError, match="does not read"):
            await stream.receive()


@pytest.mark.parametrize(
    ("first", "code", "text"),
    [
        pytest.param(None, Code.DEADLINE_EXCEEDED, "does it hang", id="silence"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", Code.INTERNAL, "does not speak HTTP/2", id="HTTP 1"),
        pytest.param(b"\0" * 9, Code.INTERNAL, "does not speak HTTP/2", id="zeros"),
        pytest.param(b"", Code.UNAVAILABLE, "closed", id="the end"),
        pytest.param(frame(h.SETTINGS)[:5], Code.UNAVAILABLE, "closed", id="half a frame"),
    ],
)
async def test_a_connection_is_there_when_the_server_has_answered(
    tmp_path: Path, first: bytes | None, code: int, text: str
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)  # or the end would be a reset
        writer.write(first or b"")
        while first is None and await reader.read(1 << 16):
            pass

    async with scripted(tmp_path / "s", script):
        with pytest.raises(ContainerdError, match=text) as caught:
            await Connection.open(str(tmp_path / "s"), bounds=bounds(0.1 if first is None else 20))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "drip", [pytest.param(0, id="a closed window"), pytest.param(1, id="a window opened byte by byte")]
)
async def test_a_server_that_takes_no_bytes_is_not_waited_for(tmp_path: Path, drip: int) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(setting(4, 0))  # the initial window of a stream
        await h.frames_until(reader, h.HEADERS)
        while True:
            if drip:
                writer.write(frame(h.WINDOW_UPDATE, number(drip), stream=1))
            await asyncio.sleep(0.01)

    async with scripted(tmp_path / "s", script):
        error = await fails(tmp_path / "s", wait_s=0.2, request=b"x" * BIG)
    assert error.code == Code.DEADLINE_EXCEEDED, error


async def test_a_message_goes_through_a_window_of_single_bytes(tmp_path: Path) -> None:
    sent = b""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(setting(4, 0))
        await h.frames_until(reader, h.HEADERS)
        while len(sent) < 5 + 20:
            writer.write(frame(h.WINDOW_UPDATE, number(1), stream=1))
            sent += (await h.frames_until(reader, h.DATA))[-1][3]
        writer.write(OPENED + message(b"done") + trailers(0))
        await reader.read()

    async with scripted(tmp_path / "s", script), await Connection.open(str(tmp_path / "s")) as connection:
        assert await connection.call(METHOD, bytes(range(20))) == b"done"
    assert sent == b"\0\0\0\0\x14" + bytes(range(20))


async def test_a_socket_that_is_not_read_is_not_waited_for(tmp_path: Path) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(setting(4, 0x7FFFFFFF) + frame(h.WINDOW_UPDATE, number(0x7FFFFFFF - 65535)))
        await asyncio.sleep(30)

    async with scripted(tmp_path / "s", script):
        error = await fails(tmp_path / "s", wait_s=0.2, request=b"x" * (8 * BIG))
    assert error.code == Code.DEADLINE_EXCEEDED, error


async def test_a_server_that_takes_no_calls_says_so(tmp_path: Path) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(setting(3, 0))
        await reader.read()

    async with scripted(tmp_path / "s", script):
        error = await fails(tmp_path / "s")
    assert (error.code, error.retryable) == (Code.RESOURCE_EXHAUSTED, True)


async def test_a_connection_that_breaks_ends_all_its_calls(tmp_path: Path) -> None:
    async with scripted(tmp_path / "s", answering(stay=False)):
        connection = await Connection.open(str(tmp_path / "s"))
        calls = [connection.call(METHOD, b"") for _ in range(3)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [error.code for error in found if isinstance(error, ContainerdError)] == [Code.UNAVAILABLE] * 3
        assert connection.closed
        with pytest.raises(ContainerdError, match="broke"):
            await connection.call(METHOD, b"")
        await connection.close()


async def test_what_waits_to_be_read_is_bounded_over_all_calls(tmp_path: Path) -> None:
    frames = [part for stream in (1, 3) for part in (headers(OPENING, stream=stream), message(b"", stream=stream))]
    half = frame(h.DATA, (900_000).to_bytes(5, "big"), stream=1) + frame(h.DATA, (900_000).to_bytes(5, "big"), stream=3)
    data = [frame(h.DATA, bytes(16384), stream=stream) for _ in range(50) for stream in (1, 3)]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(h.SETTINGS))
        await h.frames_until(reader, h.HEADERS)
        await h.frames_until(reader, h.HEADERS)
        writer.write(b"".join([*frames, half, *data]))
        await reader.read()

    short = msgspec.structs.replace(bounds(), wait_s=1)
    async with scripted(tmp_path / "s", script), await Connection.open(str(tmp_path / "s"), bounds=short) as connection:
        async with connection.stream(METHOD) as first, connection.stream(METHOD) as second:
            for stream in (first, second):
                await stream.send(b"")
                assert await stream.receive() == b""
            found = await asyncio.gather(first.receive(), second.receive(), return_exceptions=True)
            codes = {error.code for error in found if isinstance(error, ContainerdError)}
            assert codes == {Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED}
        assert connection._link.held.size == 0


async def test_a_server_that_sends_more_than_the_window_loses_the_connection(tmp_path: Path) -> None:
    frames = [OPENED, message(b"")] + [message(bytes(16379))] * 65
    async with (
        scripted(tmp_path / "s", answering(*frames)),
        await Connection.open(str(tmp_path / "s")) as connection,
        connection.stream(METHOD) as stream,
    ):
        stream.end()  # and reads nothing
        await asyncio.wait_for(asyncio.wait([connection._link.lost]), 20)
        with pytest.raises(ContainerdError, match="indow"):
            await stream.receive()


async def test_a_reader_that_is_slow_holds_the_server_back(tmp_path: Path) -> None:
    """Messages that nobody takes are at most a window."""
    sent = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(frame(h.SETTINGS))
        await h.frames_until(reader, h.DATA)
        writer.write(OPENED)
        window = 1 << 20
        while True:
            while window < 16384:
                kind, _, stream, payload = await h.frame_of(reader)
                if kind == h.WINDOW_UPDATE and stream:
                    window += int.from_bytes(payload, "big")
            writer.write(message(bytes(16379)))
            window, sent = window - 16384, sent + 16384

    async with (
        scripted(tmp_path / "s", script),
        await Connection.open(str(tmp_path / "s")) as connection,
        connection.stream(METHOD) as stream,
    ):
        await stream.send(b"")
        for _ in range(300):
            received = await stream.receive()
            assert received is not None
            assert len(received) == 16379
            assert connection._link.held.size <= 1 << 20
    assert sent <= 300 * 16384 + (1 << 20)
