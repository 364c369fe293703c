"""Callers that lie, leave, stall or come too many, against a server; and its end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from fastoci.containerd.rpc import Bounds, Call, Code, Connection, Handler, Server
from fastoci.errors import ContainerdError, FormatError
from support import http2_peers as h
from support.http2_peers import calling, frame, message, number, repeated, request, served, setting, until

SHORT = Bounds(wait_s=0.2)
uvloop.new_event_loop().close()  # opens a pipe for the life of the process, which is no test's leak


class Work:
    """Handlers, and what became of them."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended: list[str] = []
        self.handlers: dict[str, Handler] = {"/t.T/Echo": self.echo, "/t.T/Wait": self.wait, "/t.T/Count": self.count}

    async def echo(self, call: Call) -> bytes:
        return await call.request()

    async def wait(self, call: Call) -> bytes:
        self.begun.set()
        try:
            await self.may_end.wait()
            self.ended.append("done")
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        return b"done"

    async def count(self, call: Call) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1000)
        finally:
            self.ended.append("closed")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_callers_are_known_and_calls_are_served(
    tmp_path: Path, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    seen = []

    async def who(call: Call) -> AsyncIterator[bytes]:
        seen.append((call.method, dict(call.metadata), call.peer))
        while (part := await call.receive()) is not None:
            yield part

    async def main() -> None:
        async with (
            served(tmp_path / "s", {"/t.T/Who": who}),
            await Connection.open(str(tmp_path / "s")) as connection,
            connection.stream("/t.T/Who", {"containerd-namespace": "n"}) as stream,
        ):
            for part in (b"a", b"b" * 3_000_000):
                await stream.send(part)
                assert await stream.receive() == part
            stream.end()
            assert await stream.receive() is None

    run(main())
    ((method, metadata, peer),) = seen
    assert (method, metadata) == ("/t.T/Who", {"containerd-namespace": "n"})
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())


async def test_who_is_not_allowed_gets_no_byte(tmp_path: Path) -> None:
    async with served(tmp_path / "s", Work().handlers, allow=lambda peer: peer.uid != os.getuid()):
        async with calling(tmp_path / "s") as caller:
            assert await caller.over() == []
        with pytest.raises(ContainerdError) as caught:
            await Connection.open(str(tmp_path / "s"))
        assert caught.value.code == Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        pytest.param([request("/t.T/Other", end=True)], Code.UNIMPLEMENTED, id="no such method"),
        pytest.param([request(end=True)], Code.INVALID_ARGUMENT, id="no message"),
        pytest.param([request(), message(b"a"), message(b"b")], Code.INVALID_ARGUMENT, id="two messages"),
        pytest.param([request(), message(b"a")], Code.DEADLINE_EXCEEDED, id="a call without an end"),
        pytest.param([request(), frame(h.DATA, b"\0\0\0\0\x09a", stream=1)], 4, id="half a message"),
        pytest.param([request(), frame(h.DATA, b"\0\0\0\0\x09a", flags=1, stream=1)], 13, id="ends in a message"),
        pytest.param([request(), frame(h.DATA, b"\0\0\x10\0\1", stream=1)], 8, id="a message too long"),
        pytest.param([request(), frame(h.DATA, b"\1\0\0\0\0", stream=1)], 12, id="a compressed message"),
    ],
)
async def test_a_bad_call_ends_with_its_status_and_the_next_is_served(
    tmp_path: Path, frames: list[bytes], code: int
) -> None:
    bounds = Bounds(message=1 << 20, wait_s=0.1 if code == Code.DEADLINE_EXCEEDED else 20)
    async with served(tmp_path / "s", Work().handlers, bounds=bounds), calling(tmp_path / "s", *frames) as caller:
        answer, _ = await caller.answer()
        assert int(answer["grpc-status"]) == code, answer
        caller.send(request(stream=3), message(b"x", stream=3, end=True))
        answer, data = await caller.answer(3)
        assert (answer["grpc-status"], data) == ("0", b"\0\0\0\0\x01x")


@pytest.mark.parametrize(
    "fields", [{":method": "GET"}, {"content-type": "text/html"}, {"content-type": ""}], ids=["GET", "html", "untyped"]
)
async def test_what_is_no_call_has_an_answer_of_http(tmp_path: Path, fields: dict[str, str]) -> None:
    wanted = {":method": "POST", ":scheme": "http", ":path": "/t.T/Echo", ":authority": "x"}
    frames = h.headers({**wanted, "content-type": "application/grpc", **fields}, end=True)
    async with served(tmp_path / "s", Work().handlers), calling(tmp_path / "s", frames) as caller:
        assert await caller.answer() == ({":status": "415"}, b"")


@pytest.mark.parametrize(
    ("preface", "frames"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"", id="HTTP 1"),
        pytest.param(bytes(100), b"", id="zeros"),
        pytest.param(None, frame(h.DATA, bytes(9), stream=1), id="DATA of no call"),
        pytest.param(None, (16385).to_bytes(3, "big") + bytes(6), id="the head of a frame too long"),
        pytest.param(None, request(stream=2), id="a call with the number of a server's"),
        pytest.param(None, request(stream=3) + request(stream=1), id="numbers that fall"),
        pytest.param(None, request(a="x" * 70_000), id="huge headers"),
        pytest.param(None, request(Upper="x"), id="a header with a capital"),
        pytest.param(
            None, frame(h.HEADERS, flags=1, stream=1) + frame(h.CONTINUATION, stream=1) * 99, id="endless headers"
        ),
        pytest.param(None, b"".join(request(stream=number) for number in range(1, 203, 2)), id="101 calls"),
        pytest.param(None, b"".join(repeated(frame(h.PING, bytes(8)), 2000)), id="PING without end"),
        pytest.param(None, b"".join(repeated(frame(h.SETTINGS), 2000)), id="SETTINGS without end"),
        pytest.param(
            None,
            b"".join(request(stream=n) + frame(h.RST_STREAM, bytes(4), stream=n) for n in range(1, 3000, 2)),
            id="calls that are reset",
        ),
    ],
)
async def test_a_caller_that_breaks_the_rules_loses_the_connection_and_others_do_not(
    tmp_path: Path, preface: bytes | None, frames: bytes
) -> None:
    async with (
        served(tmp_path / "s", Work().handlers) as server,
        await Connection.open(str(tmp_path / "s")) as connection,
        calling(
            tmp_path / "s", frames, preface=h.PREFACE + frame(h.SETTINGS) if preface is None else preface
        ) as caller,
    ):
        assert h.DATA not in await caller.over()
        await until(lambda: not server._calls and len(server._links) == 1)
        assert await connection.call("/t.T/Echo", b"x") == b"x"


@pytest.mark.parametrize("end", ["reset", "hang up", "cancel", "close"])
async def test_a_caller_that_leaves_cancels_its_handler(tmp_path: Path, end: str) -> None:
    work = Work()
    async with served(tmp_path / "s", work.handlers) as server:
        if end in ("reset", "hang up"):
            async with calling(tmp_path / "s", request("/t.T/Wait", end=True)) as caller:
                await work.begun.wait()
                if end == "reset":
                    caller.send(frame(h.RST_STREAM, number(8), stream=1))
                    await until(lambda: work.ended)
        else:
            async with await Connection.open(str(tmp_path / "s")) as connection:
                task = asyncio.create_task(connection.call("/t.T/Wait", b""))
                await work.begun.wait()
                if end == "cancel":
                    task.cancel()
                    await until(lambda: work.ended)
                    assert not connection._link._exchanges
            with suppress(asyncio.CancelledError, ContainerdError):
                await task
        await until(lambda: work.ended)
        assert work.ended == ["cancelled"]
        assert not server._calls
        assert all(not link._exchanges for link in server._links)


async def test_a_handler_whose_messages_nobody_takes_ends(tmp_path: Path) -> None:
    work = Work()
    async with (
        served(tmp_path / "s", work.handlers, bounds=SHORT),
        calling(tmp_path / "s", setting(4, 2500), request("/t.T/Count", end=True)) as caller,
    ):
        answer, data = await caller.answer()
        assert answer["reset"] == "2"  # INTERNAL_ERROR: a status would be taken for the end of a whole message
        assert len(data) == 2500
        assert work.ended == ["closed"]


async def test_a_caller_that_reads_nothing_holds_up_no_other(tmp_path: Path) -> None:
    work = Work()
    endless = (setting(4, 0x7FFFFFFF), frame(h.WINDOW_UPDATE, number(0x70000000)), request("/t.T/Count", end=True))
    async with (
        served(tmp_path / "s", work.handlers, bounds=Bounds(wait_s=1)) as server,
        await Connection.open(str(tmp_path / "s")) as connection,
        calling(tmp_path / "s", *endless),
    ):
        await until(lambda: server._calls)
        assert await connection.call("/t.T/Echo", b"x") == b"x"
        await until(lambda: work.ended)


async def test_handlers_are_counted_until_they_have_ended(tmp_path: Path) -> None:
    """Not only while their calls are open: one that cannot end at once is there still."""
    held = asyncio.Event()
    begun = 0

    async def stubborn(call: Call) -> bytes:
        nonlocal begun
        begun += 1
        while not held.is_set():
            with suppress(asyncio.CancelledError):
                await held.wait()
        return b""

    bounds = Bounds(exchanges=3)
    async with (
        served(tmp_path / "s", {"/t.T/Stubborn": stubborn}, bounds=bounds) as server,
        calling(tmp_path / "s") as caller,
    ):
        for stream in (1, 3, 5):
            caller.send(request("/t.T/Stubborn", stream=stream, end=True))
        await until(lambda: begun == 3)
        caller.send(*(frame(h.RST_STREAM, number(8), stream=stream) for stream in (1, 3, 5)))
        caller.send(request("/t.T/Stubborn", stream=7, end=True))
        answer, _ = await caller.answer(7)
        assert int(answer["grpc-status"]) == Code.RESOURCE_EXHAUSTED
        held.set()
        await until(lambda: not server._calls)


async def test_what_callers_send_is_bounded_over_all_connections(tmp_path: Path) -> None:
    work = Work()
    bounds = Bounds(memory=1 << 20, wait_s=5)
    part = frame(h.DATA, (900_000).to_bytes(5, "big"), stream=1) + frame(h.DATA, bytes(16384), stream=1) * 40
    async with (
        served(tmp_path / "s", work.handlers, bounds=bounds) as server,
        calling(tmp_path / "s", request(), part) as first,
        calling(tmp_path / "s", request(), part) as second,
    ):
        answers = [asyncio.create_task(caller.answer()) for caller in (first, second)]
        done, pending = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        assert [int(task.result()[0]["grpc-status"]) for task in done] == [Code.RESOURCE_EXHAUSTED]
        for task in pending:
            task.cancel()
        await asyncio.wait(answers)
    assert server._held.size == 0


async def test_errors_of_a_handler_are_statuses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def format_error(call: Call) -> bytes:
        raise FormatError("not \udcff protobuf")

    async def broken(call: Call) -> bytes:
        raise ZeroDivisionError("by zero")

    async def late(call: Call) -> AsyncIterator[bytes]:
        yield b"a"
        raise call.failure("late", Code.ABORTED)

    handlers: dict[str, Handler] = {"/t.T/Format": format_error, "/t.T/Broken": broken, "/t.T/Late": late}
    async with served(tmp_path / "s", handlers), await Connection.open(str(tmp_path / "s")) as connection:
        for method, code in (("/t.T/Format", Code.INTERNAL), ("/t.T/Broken", Code.UNKNOWN)):
            with pytest.raises(ContainerdError) as caught:
                await connection.call(method, b"")
            assert caught.value.code == code
        assert "ZeroDivisionError" in caught.value.message
        assert "/t.T/Broken failed" in caplog.text
        async with connection.stream("/t.T/Late") as stream:
            stream.end()
            assert await stream.receive() == b"a"
            with pytest.raises(ContainerdError, match="late"):
                await stream.receive()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_server_that_stops_ends_its_calls_first_and_leaves_the_socket(
    tmp_path: Path, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def main() -> None:
        work = Work()
        async with (
            served(tmp_path / "s", work.handlers) as server,
            calling(tmp_path / "s", request("/t.T/Wait", end=True)) as caller,
        ):
            await work.begun.wait()
            server.stop()
            *_, last = await h.frames_until(caller.reader, h.GOAWAY)
            assert last[3] == number(1) + number(0)  # the last call that is served, no error
            caller.send(request(stream=3, end=True))
            assert await caller.answer(3) == ({"reset": "7"}, b"")  # REFUSED_STREAM: it may go elsewhere
            with pytest.raises(ContainerdError) as caught:
                await Connection.open(str(tmp_path / "s"))
            assert caught.value.code == Code.UNAVAILABLE
            work.may_end.set()
            assert (await caller.answer())[1] == b"\0\0\0\0\x04done"
            await caller.over()

    run(main())
    assert (tmp_path / "s").is_socket()


async def test_a_server_waits_for_its_calls_no_longer_than_it_should(tmp_path: Path) -> None:
    work = Work()
    async with (
        served(tmp_path / "s", work.handlers, grace_s=0.1) as server,
        await Connection.open(str(tmp_path / "s")) as connection,
    ):
        task = asyncio.create_task(connection.call("/t.T/Wait", b""))
        await work.begun.wait()
        server.stop()
        with pytest.raises(ContainerdError) as caught:
            await task
        assert (caught.value.code, caught.value.retryable) == (Code.UNAVAILABLE, True)
    assert work.ended == ["cancelled"]


async def test_a_server_whose_task_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    work = Work()
    server = Server(work.handlers, allow=lambda peer: True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        task = asyncio.create_task(server.serve(listener))
        async with calling(tmp_path / "s", request("/t.T/Wait", end=True)):
            await work.begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert work.ended == ["cancelled"]
    assert not server._calls
    assert not server._links
