"""Calls against a server of our own.

Covers: containerd/rpc/client.py, containerd/rpc/peer.py.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from fastoci.containerd.rpc import Bounds, Call, Code, Connection, Handler
from fastoci.errors import ContainerdError
from support.http2_peers import served, until


async def echo(call: Call) -> bytes:
    return await call.request()


async def each(call: Call) -> AsyncIterator[bytes]:
    while (message := await call.receive()) is not None:
        yield message


async def fail(call: Call) -> bytes:
    await call.request()
    raise call.failure("no such blob: ä", Code.NOT_FOUND)


HANDLERS: Mapping[str, Handler] = {"/t.T/Echo": echo, "/t.T/Each": each, "/t.T/Fail": fail}


@pytest.mark.parametrize("size", [0, 1, 100_000, 9_000_000], ids=["nothing", "a byte", "more than a frame", "a window"])
async def test_a_message_goes_there_and_back(tmp_path: Path, size: int) -> None:
    async with served(tmp_path / "s", HANDLERS), await Connection.open(str(tmp_path / "s")) as connection:
        assert await connection.call("/t.T/Echo", b"x" * size) == b"x" * size


async def test_calls_share_a_connection(tmp_path: Path) -> None:
    async with served(tmp_path / "s", HANDLERS), await Connection.open(str(tmp_path / "s")) as connection:
        messages = [bytes([number]) * 100_000 for number in range(20)]
        assert await asyncio.gather(*(connection.call("/t.T/Echo", message) for message in messages)) == messages


async def test_a_stream_carries_messages_to_and_fro(tmp_path: Path) -> None:
    async with (
        served(tmp_path / "s", HANDLERS),
        await Connection.open(str(tmp_path / "s")) as connection,
        connection.stream("/t.T/Each") as stream,
    ):
        for message in (b"a", b"", b"b" * 200_000):
            await stream.send(message)
            assert await stream.receive() == message
        stream.end()
        assert await stream.receive() is None


async def test_a_failure_comes_with_its_code_text_and_socket(tmp_path: Path) -> None:
    async with served(tmp_path / "s", HANDLERS), await Connection.open(str(tmp_path / "s")) as connection:
        with pytest.raises(ContainerdError, match="Fail: no such blob: ä") as caught:
            await connection.call("/t.T/Fail", b"")
        assert (caught.value.code, caught.value.path) == (Code.NOT_FOUND, str(tmp_path / "s"))
        with pytest.raises(ContainerdError, match="not served here") as caught:
            await connection.call("/t.T/Other", b"")
        assert caught.value.code == Code.UNIMPLEMENTED


def nothing(path: Path) -> socket.socket | None:
    return None


def a_file(path: Path) -> socket.socket | None:
    path.touch()
    return None


def dead(path: Path) -> socket.socket | None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return None


def datagrams(path: Path) -> socket.socket | None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    return listener


def full(path: Path) -> socket.socket | None:
    """Its queue takes one, whom nobody accepts."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(0)
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(str(path))
    return listener


@pytest.mark.parametrize(
    ("place", "code", "text", "retryable"),
    [
        (nothing, Code.UNAVAILABLE, "no socket is there; is containerd running", True),
        (a_file, Code.UNAVAILABLE, "nobody listens there; is containerd running", True),
        (dead, Code.UNAVAILABLE, "nobody listens there; is containerd running", True),
        (datagrams, Code.INVALID_ARGUMENT, "another kind of socket", False),
        (full, Code.DEADLINE_EXCEEDED, "does it hang", True),
    ],
)
async def test_a_socket_where_nobody_answers_is_an_error_that_says_what_to_do(
    tmp_path: Path, place: Callable[[Path], socket.socket | None], code: int, text: str, retryable: bool
) -> None:
    listener = place(tmp_path / "s")
    try:
        with pytest.raises(ContainerdError, match=text) as caught:
            await Connection.open(str(tmp_path / "s"), bounds=Bounds(connect_s=0.2 if place is full else 20))
    finally:
        if listener is not None:
            listener.close()
    assert (caught.value.code, caught.value.retryable, caught.value.path) == (code, retryable, str(tmp_path / "s"))


@pytest.mark.parametrize("path", ["/tmp/" + "x" * 200, "/tmp/a\0b"], ids=["too long", "a NUL"])
async def test_a_path_that_is_no_address_is_an_error(path: str) -> None:
    with pytest.raises(ContainerdError) as caught:
        await Connection.open(path)
    assert caught.value.code == Code.INVALID_ARGUMENT


async def test_a_connection_knows_who_listens(tmp_path: Path) -> None:
    async with served(tmp_path / "s", HANDLERS), await Connection.open(str(tmp_path / "s")) as connection:
        assert (connection.peer.pid, connection.peer.uid) == (os.getpid(), os.getuid())


@pytest.mark.parametrize("value", ["ä", "a\nb", " a", "\x7f"], ids=["not ASCII", "two lines", "a space", "DEL"])
async def test_metadata_that_cannot_be_sent_is_refused(tmp_path: Path, value: str) -> None:
    async with served(tmp_path / "s", HANDLERS), await Connection.open(str(tmp_path / "s")) as connection:
        with pytest.raises(ContainerdError, match="cannot be sent") as caught:
            await connection.call("/t.T/Echo", b"", {"containerd-lease": value})
        assert caught.value.code == Code.INVALID_ARGUMENT
        assert not connection._link._exchanges


@pytest.mark.parametrize("step", range(1, 12))
async def test_a_call_that_is_cancelled_at_any_point_leaves_nothing(tmp_path: Path, step: int) -> None:
    async with served(tmp_path / "s", HANDLERS) as server, await Connection.open(str(tmp_path / "s")) as connection:
        task = asyncio.create_task(connection.call("/t.T/Echo", b"x" * 1_000_000))
        for _ in range(step):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert not connection._link._exchanges
        assert connection._link.held.size == 0
        assert await connection.call("/t.T/Echo", b"after") == b"after"
    assert server._held.size == 0


@pytest.mark.parametrize("step", range(8))
async def test_an_opening_that_is_cancelled_at_any_point_leaves_nothing(tmp_path: Path, step: int) -> None:
    async with served(tmp_path / "s", HANDLERS) as server:
        task = asyncio.create_task(Connection.open(str(tmp_path / "s")))
        for _ in range(step):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await task.result().close()
        await until(lambda: not server._links)
