"""Calls against a server of our own.

Covers: containerd/rpc/client.py, containerd/rpc/server.py, containerd/rpc/link.py, containerd/rpc/exchange.py.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fastoci.containerd.rpc import Bounds, Call, Code, Connection, Handler, Server
from fastoci.errors import ContainerdError

SHORT = Bounds(connect_s=0.5, wait_s=0.5)


async def echo(call: Call) -> bytes:
    return await call.request()


async def each(call: Call) -> AsyncIterator[bytes]:
    while (message := await call.receive()) is not None:
        yield message


async def fail(call: Call) -> bytes:
    await call.request()
    raise call.failure("no such blob: ä", Code.NOT_FOUND)


HANDLERS: Mapping[str, Handler] = {"/t.T/Echo": echo, "/t.T/Each": each, "/t.T/Fail": fail}


@asynccontextmanager
async def served(path: Path, handlers: Mapping[str, Handler] = HANDLERS) -> AsyncIterator[Server]:
    server = Server(handlers, allow=lambda peer: True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        task = asyncio.create_task(server.serve(listener))
        try:
            yield server
        finally:
            server.stop()
            await task


@pytest.mark.parametrize("size", [0, 1, 100_000, 9_000_000], ids=["nothing", "a byte", "more than a frame", "a window"])
async def test_a_message_goes_there_and_back(tmp_path: Path, size: int) -> None:
    async with served(tmp_path / "s"), await Connection.open(str(tmp_path / "s")) as connection:
        assert await connection.call("/t.T/Echo", b"x" * size) == b"x" * size


async def test_calls_share_a_connection(tmp_path: Path) -> None:
    async with served(tmp_path / "s"), await Connection.open(str(tmp_path / "s")) as connection:
        messages = [bytes([number]) * 100_000 for number in range(20)]
        assert await asyncio.gather(*(connection.call("/t.T/Echo", message) for message in messages)) == messages


async def test_a_stream_carries_messages_to_and_fro(tmp_path: Path) -> None:
    async with (
        served(tmp_path / "s"),
        await Connection.open(str(tmp_path / "s")) as connection,
        connection.stream("/t.T/Each") as stream,
    ):
        for message in (b"a", b"", b"b" * 200_000):
            await stream.send(message)
            assert await stream.receive() == message
        stream.end()
        assert await stream.receive() is None


async def test_a_failure_comes_with_its_code_text_and_socket(tmp_path: Path) -> None:
    async with served(tmp_path / "s"), await Connection.open(str(tmp_path / "s")) as connection:
        with pytest.raises(ContainerdError, match="Fail: no such blob: ä") as caught:
            await connection.call("/t.T/Fail", b"")
        assert (caught.value.code, caught.value.path) == (Code.NOT_FOUND, str(tmp_path / "s"))
        with pytest.raises(ContainerdError, match="not served here") as caught:
            await connection.call("/t.T/Other", b"")
        assert caught.value.code == Code.UNIMPLEMENTED


async def test_a_socket_where_nobody_is_says_so(tmp_path: Path) -> None:
    with pytest.raises(ContainerdError, match="is containerd running") as caught:
        await Connection.open(str(tmp_path / "s"), bounds=SHORT)
    assert (caught.value.code, caught.value.retryable) == (Code.UNAVAILABLE, True)
