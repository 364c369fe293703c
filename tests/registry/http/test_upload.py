"""A body that goes out in pieces, to a server that takes its time. Minutes are virtual."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from fastoci.errors import TimedOutError
from fastoci.registry.http.servers import Servers
from fastoci.registry.http.transport import Transport
from fastoci.registry.http.upload import Upload
from fastoci.registry.http.urls import parse_url
from support import virtual_time

SIZE = 48 << 20  # far more than the system takes on the way
READ_S = 20.0


async def put(piece_s: float, answer_s: float, *, bandwidth: int | None = None) -> tuple[int, float]:
    """Upload to a server that reads a MiB each ``piece_s`` and answers ``answer_s`` later: its status, and the time."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert re.search(rb"(?i)content-length: %d\r\n" % SIZE, head)
        with suppress(asyncio.CancelledError):  # the test is over
            for _ in range(SIZE >> 20):
                await reader.readexactly(1 << 20)
                await asyncio.sleep(piece_s)
            await asyncio.sleep(answer_s)
        writer.write(b"HTTP/1.1 201 X\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(SIZE >> 20):
            yield bytes(1 << 20)

    loop = asyncio.get_running_loop()
    servers = Servers(bandwidth=bandwidth)
    transport = Transport(tls_verify=True, connect_s=5.0, read_s=READ_S, connections=1, servers=servers)
    bound = socket.create_server(("127.0.0.1", 0))
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    async with await asyncio.start_server(slow, sock=bound, limit=1 << 16):
        url = parse_url(f"http://127.0.0.1:{bound.getsockname()[1]}/x")
        begun = loop.time()
        try:
            reply = await transport.request("PUT", url, headers={}, body=Upload(SIZE, pieces))
            reply.close()
            return reply.status, loop.time() - begun
        finally:
            await transport.aclose()


def test_an_upload_may_take_longer_than_a_server_may_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    status, took_s = virtual_time.run(put(1.0, 10.0), monkeypatch, steps=200_000)
    assert status == 201
    assert took_s > 2 * READ_S


def test_the_wait_for_the_answer_begins_when_all_was_taken_and_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TimedOutError):
        virtual_time.run(put(0.1, 120.0), monkeypatch, steps=200_000)


def test_an_upload_keeps_to_the_bandwidth_and_the_wait_for_it_is_not_the_servers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastoci.registry.http.pace._PIECE", (16 << 20, 16 << 20))  # one waits longer than the patience
    status, took_s = virtual_time.run(put(0.0, 1.0, bandwidth=20 << 10), monkeypatch, steps=200_000)
    assert status == 201
    assert took_s == pytest.approx((SIZE - (1 << 20)) / (20 << 10), rel=0.02)
