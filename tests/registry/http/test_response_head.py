"""Heads of answers, whole and in pieces, repeated, large and endless."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fastoci.errors import TransportError
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.response_head import MAXIMUM, HeadTooLargeError, ResponseHead
from fastoci.registry.http.transport import Transport
from fastoci.registry.http.urls import parse_url
from support.scripted_server import Raw, Server, serving

OK = b"HTTP/1.1 200 OK\r\n"
HINT = b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_a_head_ends_at_the_first_empty_line(end: bytes, step: int) -> None:
    sent = HINT + end.join([b"HTTP/1.1 200 OK", b"A: b", b"", b""]) + b"body" + end + end
    head, heads, rest = ResponseHead(), list[bytes](), b""
    for start in range(0, len(sent), step):
        if head.done:
            rest += sent[start : start + step]
            continue
        found, after = head.feed(sent[start : start + step])
        heads += found
        rest += after
    assert head.done
    assert heads == [HINT, end.join([b"HTTP/1.1 200 OK", b"A: b", b"", b""])]
    assert rest == b"body" + end + end


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        (b"X-Note : a\r\n", b""),
        (b"X (Note): a\r\n  more\r\n", b""),
        (b": a\r\n", b""),
        (b"X: a\0b\r\n", b""),
        (b"Content-Length : 5\r\n", b"Content-Length : 5\r\n"),
        (b"\0Transfer-Encoding: chunked\r\n", b"\0Transfer-Encoding: chunked\r\n"),
        (b"no colon\r\n", b"no colon\r\n"),
        (b"X: a\r\n b: c\r\n\t d\n", b"X: a b: c d\n"),
        (b"X: a\r\n b\0c\r\n", b""),
        (b"X : a\r\n Content-Length: 5\r\n", b"X : a Content-Length: 5\r\n"),
    ],
    ids=[
        "space",
        "parenthesis",
        "nameless",
        "NUL",
        "length",
        "coding",
        "no colon",
        "folded",
        "folded NUL",
        "folded length",
    ],
)
def test_lines_that_are_no_fields_are_left_out_unless_they_frame(sent: bytes, passed: bytes) -> None:
    for before, after in ((b"", b"Y: z\r\n"), (b"Y: z\r\n", b"")):
        heads, rest = ResponseHead().feed(OK + before + sent + after + b"\r\n" + b"body")
        assert heads == [OK + before + passed + after + b"\r\n"]
        assert rest == b"body"


def test_any_version_of_http_1_is_read_as_the_last() -> None:
    heads, _ = ResponseHead().feed(b"HTTP/1.3 200 OK: fine\r\nA: b\r\n\r\n")
    assert heads == [b"HTTP/1.1 200 OK: fine\r\nA: b\r\n\r\n"]


def test_what_is_not_http_is_not_waited_for() -> None:
    for data in (b"\x15\x03\x01\x00\x02\x02\x46", b"SSH-2.0", b"HTTQ", b"\r\n\r\nx"):
        head = ResponseHead()
        _, rest = head.feed(data)
        assert head.done
        assert rest == data.removeprefix(b"\r\n\r\n")
    for data in (b"", b"H", b"HTTP/1.1 2", b"\r\n"):
        head = ResponseHead()
        assert head.feed(data) == ([], b"")
        assert not head.done


@pytest.mark.attack
def test_the_heads_of_an_answer_are_bounded_together() -> None:
    just = OK + b"X: " + b"a" * (MAXIMUM - len(OK) - 7) + b"\r\n\r\n"
    assert ResponseHead().feed(just + b"body")[1] == b"body"
    for data in (
        just.replace(b"X:", b"XX:"),
        OK + b"X: " + b"a" * MAXIMUM,
        HINT * (MAXIMUM // len(HINT) + 1),
        OK + b"X:\r\n" * (MAXIMUM // 4) + b"\r\n",
    ):
        with pytest.raises(HeadTooLargeError):
            ResponseHead().feed(data)
    head = ResponseHead()
    with pytest.raises(HeadTooLargeError):
        for _ in range(1 + MAXIMUM // 4000):
            head.feed(HINT + HINT.replace(b"<x>", b"a" * 4000))


@asynccontextmanager
async def answering(data: bytes) -> AsyncIterator[tuple[Transport, Server]]:
    async with serving(lambda asked: Raw(data)) as server:
        client = Transport(tls_verify=True, connect_s=5.0, read_s=5.0, connections=1)
        try:
            yield client, server
        finally:
            await client.aclose()


async def asked(client: Transport, server: Server) -> Reply:
    return await client.request("GET", parse_url(f"http://{server.address}/x"), headers={})


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\n" * 3,
        b"Content-Length: 5\r\nA: b\r\ncontent-length:5 \r\n",
        b"Content-Length: 5\n" * 2,
        b"Content-Length: 5\r\n" + b"Content-Type: a/b\r\n" * 2 + b"ETag: x\r\n" * 2,
        b"Content-Length: 5\r\nContent-Type: a/b\r\nContent-Type: c/d\r\n",
        b"Content-Length: 5\r\nX: a\r\n folded\r\n",
        b"Content-Length: 5\r\nX: " + b"a" * 1_000_000 + b"\r\n",
        b"Content-Length: 5\r\n" + b"X:\n" * (MAXIMUM // 3 - 20),
        b"Content-Length: 5\r\n" + b"".join(b"%x:\n" % n for n in range(150_000)),
        b"Content-Length: 5\r\nX:\n" + b" a\n" * (MAXIMUM // 3 - 20),
        b"Content-Length: 5\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"a" * 20_000) for n in range(50)),
        b"Content-Length: 5\r\nX: \xc3\xa4 \xff\r\n",
    ],
    ids=[
        "three",
        "spread",
        "bare",
        "others",
        "types",
        "folded",
        "large",
        "many",
        "many names",
        "many folds",
        "large ones",
        "bytes",
    ],
)
async def test_heads_that_others_read_are_read(lines: bytes) -> None:
    async with answering(OK + lines + b"\r\nhello") as (client, server):
        for _ in range(2):
            reply = await asked(client, server)
            assert (reply.status, reply.length, await reply.read(9)) == (200, 5, b"hello")
            reply.close()
        assert server.connections == 1


@pytest.mark.attack
async def test_lines_that_continue_a_value_cost_as_others_do() -> None:
    async with answering(OK + b"Content-Length: 0\r\nX:\n" + b" a\n" * (MAXIMUM // 3 - 20) + b"\r\n") as (
        client,
        server,
    ):
        begun = time.process_time()
        (await asked(client, server)).close()
        assert time.process_time() - begun < 1  # 0.05 s; 2.7 s when each copies those before it


async def test_a_value_that_comes_twice_is_said_once() -> None:
    lines = b"Content-Length: 0\r\n" + b"Docker-Content-Digest: sha256:1\r\n" * 2 + b"A: b\r\nA: c\r\nA: b\r\n"
    async with answering(OK + lines + b"\r\n") as (client, server):
        reply = await asked(client, server)
        assert (reply.header("Docker-Content-Digest"), reply.header("A")) == ("sha256:1", "b, c")
        reply.close()


@pytest.mark.attack
@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nContent-Length: 05\r\n",
        b"Content-Length: +5\r\n" * 2,
        b"Content-Length: 5, 5\r\n" * 2,
        b"Content-Length: 0x5\r\n" * 2,
        b"Content-Length: \r\n" * 2,
        b"Content-Length: 99999999999999999999\r\n" * 2,
        b"Content-Length: 5\r\n" * 2 + b"Transfer-Encoding: chunked\r\n",
    ],
)
async def test_lengths_that_lie_are_refused(lines: bytes) -> None:
    async with answering(OK + lines + b"\r\nhello") as (client, server):
        with pytest.raises(TransportError, match="not HTTP"):
            await asked(client, server)


@pytest.mark.attack
@pytest.mark.parametrize("size", [b"FFFFFFFFFFFFFFFFF", b"10000000000000005", b"-5", b"5x", b"0x5", b" 5", b""])
async def test_sizes_of_chunks_that_lie_are_refused(size: bytes) -> None:
    async with answering(OK + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n") as (
        client,
        server,
    ):
        with pytest.raises(TransportError):
            reply = await asked(client, server)
            try:
                await reply.read(100)
            finally:
                reply.close()


@pytest.mark.attack
async def test_trailers_are_bounded_after_a_large_head_too() -> None:
    head = OK + b"Transfer-Encoding: chunked\r\nX: " + b"a" * 500_000 + b"\r\n\r\n"
    async with answering(head + b"0\r\n" + b"X: a\r\n" * 100_000) as (client, server):
        with pytest.raises(TransportError):
            async with asyncio.timeout(30):
                reply = await asked(client, server)
                try:
                    await reply.read(100)
                finally:
                    reply.close()
