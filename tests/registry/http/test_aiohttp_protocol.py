"""Connections that never come to the point: interim answers, headers and bodies that do not end as they should."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from fastoci.errors import TimedOutError, TransportError
from fastoci.registry.http.transport import Transport
from fastoci.registry.http.urls import parse_url
from support.scripted_server import answer, serving

HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
GOOD = answer(body=b"good").data
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
Talk = Callable[[asyncio.StreamWriter, asyncio.Event], Awaitable[None]]


@contextlib.asynccontextmanager
async def talking(talk: Talk) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A server that says what ``talk`` writes after a request; the event is for the test to give a sign by."""
    sign = asyncio.Event()
    gone = asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await talk(writer, sign)
            await reader.read()
        writer.close()
        gone.set()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/", sign
        await gone.wait()


@contextlib.asynccontextmanager
async def transport(read_s: float) -> AsyncIterator[Transport]:
    async with contextlib.aclosing(Transport(tls_verify=True, connect_s=5.0, read_s=read_s, connections=1)) as made:
        yield made


async def test_a_few_interim_answers_are_passed_over() -> None:
    async def talk(writer: asyncio.StreamWriter, _: asyncio.Event) -> None:
        writer.write(HINT * 32 + GOOD)

    async with talking(talk) as (url, _), transport(5.0) as made:
        reply = await made.request("GET", parse_url(url), headers={})
        assert (reply.status, await reply.read(100)) == (200, b"good")
        reply.close()


async def test_many_interim_answers_are_an_error_and_no_memory() -> None:
    taken = 0

    async def talk(writer: asyncio.StreamWriter, _: asyncio.Event) -> None:
        nonlocal taken
        while taken < 64 << 20:
            writer.write(HINT * 1000)
            await writer.drain()
            taken += len(HINT) * 1000

    async with talking(talk) as (url, _), transport(5.0) as made:
        with pytest.raises(TransportError, match="more than 32 interim answers"):
            await made.request("GET", parse_url(url), headers={})
    assert taken < 16 << 20  # what the kernel's buffers hold


@pytest.mark.parametrize("drop", [HINT, b"X-Drop: 1\r\n"], ids=["interim answers", "headers"])
async def test_headers_that_drip_do_not_put_their_deadline_off(drop: bytes) -> None:
    async def talk(writer: asyncio.StreamWriter, _: asyncio.Event) -> None:
        writer.write(b"" if drop == HINT else b"HTTP/1.1 200 OK\r\n")
        for _number in range(30):  # together shorter than what is allowed, each far below the deadline
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.05)

    async with talking(talk) as (url, _), transport(0.4) as made:
        with pytest.raises(TimedOutError, match="silence"):
            await made.request("GET", parse_url(url), headers={})


@pytest.mark.parametrize("more", [b"FFFFFFFFFFFFFFFFFF\r\nx", b"-5\r\nhello", b"5\nhello\n", b"5\r\nhellomore\r\n"])
async def test_framing_that_breaks_while_a_body_is_read_ends_it_at_once(more: bytes) -> None:
    """The time that silence is given is longer than a test has."""

    async def talk(writer: asyncio.StreamWriter, sign: asyncio.Event) -> None:
        writer.write(CHUNKED)
        await sign.wait()
        writer.write(more)

    async with talking(talk) as (url, sign), transport(3000.0) as made:
        reply = await made.request("GET", parse_url(url), headers={})
        assert await reply.some() == b"hello"
        waiting = asyncio.ensure_future(reply.read(100))
        sign.set()
        with pytest.raises(TransportError, match="framing is broken"):
            await waiting
        reply.close()


async def test_a_connection_is_used_again_after_an_answer_in_time() -> None:
    async with serving(lambda asked: answer(body=b"good")) as server, transport(5.0) as made:
        for _ in range(3):
            reply = await made.request("GET", parse_url(f"http://{server.address}/"), headers={})
            assert await reply.read(100) == b"good"
            reply.close()
        assert server.connections == 1
