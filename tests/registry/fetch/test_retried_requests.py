"""Requests that are sent again, or not: against a server that fails as it is told to.

Covers: registry/http/servers.py, registry/http/reply.py.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest
from msgspec.structs import replace

from fastoci.errors import (
    ConnectError,
    DeniedError,
    RateLimitedError,
    RegistryError,
    TimedOutError,
    UnavailableError,
)
from fastoci.events import Event, QuotaSeen
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.limits import Limits
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.fetch import body
from fastoci.registry.fetch.repository import Repository
from fastoci.registry.fetch.retry import RetryPolicy
from fastoci.registry.http import reply
from fastoci.registry.http.throughput import StallDetector
from support.scripted_server import Asked, Buffers, Raw, Server, answer, drain, drain_until_error, serving

INDEX = json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}).encode()
BLOB = bytes(range(256)) * 12_000  # 3 buffers
SIZE = len(BLOB)
BLOB_DESCRIPTOR = Descriptor(mediatype.OCI_LAYER_GZIP, Digest.of(BLOB), SIZE)
MIB = 1 << 20
Scripted = Callable[[Asked], Raw]


def manifest(**headers: str) -> Raw:
    return answer(body=INDEX, headers={"Content-Type": mediatype.OCI_INDEX, **headers})


def ranged(asked: Asked, *, upto: int = SIZE) -> tuple[bytes, bytes]:
    """The head and the bytes that a request for the blob is answered with."""
    wanted = asked.headers.get("range")
    if wanted is None:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE, BLOB
    first, last = map(int, wanted.removeprefix("bytes=").split("-"))
    head = (
        f"HTTP/1.1 206 OK\r\nContent-Length: {last + 1 - first}\r\nContent-Range: bytes {first}-{last}/{SIZE}\r\n\r\n"
    )
    return head.encode(), BLOB[first : last + 1]


def first_of(answers: list[Raw]) -> Scripted:
    """Each answer once, then the last one again and again."""
    left: Iterator[Raw] = iter(answers)
    return lambda asked: next(left, answers[-1])


@asynccontextmanager
async def client(
    script: Scripted, retry_policy: RetryPolicy | None = None, *, read_s: float = 5.0
) -> AsyncIterator[tuple[Repository, Server, Reference]]:
    """A client of which no wait between tries takes time."""
    registry = Registry(
        credentials=Credentials(),
        limits=Limits(connect_s=5.0, read_s=read_s, first_byte_s=read_s),
        retry=replace(retry_policy or RetryPolicy(), rng=lambda: 0.0),
    )
    async with serving(script) as server, registry:
        reference = Reference.parse(f"{server.address}/team/app:1")
        yield registry.repository(reference), server, reference


@pytest.mark.parametrize("status", [408, 421, 425, 429, 500, 502, 503, 504, 520, 524, 530])
async def test_trouble_that_may_pass_is_asked_again(status: int) -> None:
    async with client(first_of([answer(status), answer(status), manifest()])) as (source, server, reference):
        assert (await source.resolve(reference))[1] == INDEX
        assert len(server.asked) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 451, 501, 505])
async def test_a_final_answer_is_not_asked_for_again(status: int) -> None:
    async with client(first_of([answer(status), answer(), manifest()])) as (source, server, reference):
        with pytest.raises(RegistryError):
            await source.resolve(reference)
        assert len([path for path in server.paths() if path != "/v2/"]) == 1


async def test_tries_end_and_the_error_is_the_registrys() -> None:
    async with client(lambda asked: answer(503), RetryPolicy(tries=4)) as (source, server, reference):
        with pytest.raises(UnavailableError, match="503"):
            await source.resolve(reference)
        assert len(server.asked) == 4


async def test_the_budget_of_all_requests_ends_the_tries_of_each() -> None:
    async with client(lambda asked: answer(503), RetryPolicy(tries=4, budget=5)) as (source, server, reference):
        for _ in range(10):
            with pytest.raises(UnavailableError):
                await source.resolve(reference)
        assert len(server.asked) == 10 + 5


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_connection_that_ends_without_an_answer_is_tried_again(end: str) -> None:
    nothing = Raw(b"", "close" if end == "close" else "reset")
    async with client(first_of([nothing, nothing, manifest()])) as (source, server, reference):
        assert (await source.resolve(reference))[1] == INDEX
        assert len(server.asked) == 3


async def test_a_manifest_that_is_cut_or_wrongly_framed_is_fetched_again() -> None:
    cut = Raw(manifest().data[:-3], "close")
    framed = Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n", "close")
    async with client(first_of([cut, framed, manifest()])) as (source, server, reference):
        assert (await source.resolve(reference))[1] == INDEX
        assert len(server.asked) == 3


async def test_a_port_that_refuses_is_tried_three_times() -> None:
    async with serving(lambda asked: answer()) as gone:
        address = gone.address
    reference = Reference.parse(f"{address}/a:1")
    waits = []

    def rng() -> float:
        waits.append(1)
        return 0.0

    async with Registry(credentials=Credentials(), retry=RetryPolicy(rng=rng)) as registry:
        with pytest.raises(ConnectError, match="connection refused"):
            await registry.repository(reference).resolve(reference)
    assert len(waits) == 2


async def test_an_unknown_host_is_not_tried_again() -> None:
    def rng() -> float:
        raise AssertionError("a second try")

    reference = Reference.parse("registry.invalid/a:1")
    async with Registry(credentials=Credentials(), retry=RetryPolicy(rng=rng)) as registry:
        with pytest.raises(ConnectError, match="unknown host") as caught:
            await registry.repository(reference).resolve(reference)
    assert not caught.value.retryable


# Waits that the server asks for.


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_nobody_asks_a_host_before_the_wait_that_it_asked_for_is_over(status: int, form: str) -> None:
    times: list[float] = []
    open_at = 0.0

    def script(asked: Asked) -> Raw:
        nonlocal open_at
        times.append(time.time())
        if len(times) > 1:
            return manifest()
        open_at = int(time.time()) + 2.0
        wait = "1" if form == "seconds" else formatdate(open_at, usegmt=True)
        return answer(status, headers={"Retry-After": wait, "RateLimit-Remaining": "1"})

    on_response = asyncio.Event()
    async with (
        serving(script) as server,
        Registry(
            credentials=Credentials(), observer=lambda event: on_response.set(), retry=RetryPolicy(rng=lambda: 0.0)
        ) as registry,
    ):
        reference = Reference.parse(f"{server.address}/team/app:1")
        source = registry.repository(reference)
        first = asyncio.ensure_future(source.resolve(reference))
        await on_response.wait()
        await asyncio.gather(first, *(source.resolve(reference) for _ in range(5)))
    assert len(times) == 7
    assert min(times[1:]) >= (times[0] + 1.0 if form == "seconds" else open_at) - 0.01


@pytest.mark.parametrize("wait", ["61", "31536000", "99999999999"])
async def test_a_wait_that_is_too_long_says_when_to_come_back_and_nothing_is_asked_meanwhile(wait: str) -> None:
    script = first_of([answer(429, headers={"Retry-After": wait}), manifest()])
    async with client(script) as (source, server, reference):
        with pytest.raises(RateLimitedError, match="429") as caught:
            await source.resolve(reference)
        assert caught.value.retry_after_s == min(float(wait), 1e9)
        with pytest.raises(RateLimitedError, match=r"come back at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC") as caught:
            await source.resolve(reference)
        assert caught.value.retry_after_s == pytest.approx(min(float(wait), 1e9), abs=5)
        assert len(server.asked) == 1


async def test_who_waited_for_a_connection_meanwhile_waits_too() -> None:
    times: list[float] = []

    def script(asked: Asked) -> Raw:
        times.append(time.monotonic())
        return answer(429, headers={"Retry-After": "1"}) if len(times) == 1 else manifest()

    async with (
        serving(script) as server,
        Registry(
            credentials=Credentials(), limits=Limits(connections=1), retry=RetryPolicy(rng=lambda: 0.0)
        ) as registry,
    ):
        reference = Reference.parse(f"{server.address}/team/app:1")
        source = registry.repository(reference)
        await asyncio.gather(*(source.resolve(reference) for _ in range(5)))
    assert len(times) == 6
    assert times[1] - times[0] >= 0.99


async def test_who_waited_for_a_connection_learns_that_the_wait_is_too_long() -> None:
    script = first_of([answer(429, headers={"Retry-After": "100"}), manifest()])
    async with (
        serving(script) as server,
        Registry(
            credentials=Credentials(), limits=Limits(connections=1), retry=RetryPolicy(rng=lambda: 0.0)
        ) as registry,
    ):
        reference = Reference.parse(f"{server.address}/team/app:1")
        source = registry.repository(reference)
        ends = await asyncio.gather(*(source.resolve(reference) for _ in range(5)), return_exceptions=True)
    assert [type(end) for end in ends] == [RateLimitedError] * 5
    assert len(server.asked) == 1


async def test_a_wait_in_words_is_kept_too() -> None:
    words = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "retry-after: 1s, allowed: 9/minute"}]})
    answers = first_of([answer(429, words.encode()), manifest()])
    times: list[float] = []

    def script(asked: Asked) -> Raw:
        times.append(time.monotonic())
        return answers(asked)

    async with client(script) as (source, _, reference):
        assert (await source.resolve(reference))[1] == INDEX
    assert times[1] - times[0] >= 0.99


async def test_a_short_wait_is_no_reason_to_hurry() -> None:
    """The wait between two tries is kept where the one that was told is shorter."""
    words = json.dumps({"errors": [{"code": "TOOMANYREQUESTS", "message": "retry-after: 880µs"}]})
    times: list[float] = []

    def script(asked: Asked) -> Raw:
        times.append(time.monotonic())
        return answer(429, words.encode()) if len(times) == 1 else manifest()

    async with (
        serving(script) as server,
        Registry(credentials=Credentials(), retry=RetryPolicy(limited_s=0.5, rng=lambda: 1.0)) as registry,
    ):
        reference = Reference.parse(f"{server.address}/team/app:1")
        assert (await registry.repository(reference).resolve(reference))[1] == INDEX
    assert times[1] - times[0] >= 0.49


@pytest.mark.parametrize("header", ["-5", "soon", "0", ""])
async def test_a_wait_that_makes_no_sense_is_as_none(header: str) -> None:
    script = first_of([answer(429, headers={"Retry-After": header}), manifest()])
    async with client(script) as (source, server, reference):
        assert (await source.resolve(reference))[1] == INDEX
        assert len(server.asked) == 2


async def test_a_quota_is_an_event_and_obeyed_when_nothing_is_left() -> None:
    seen: list[Event] = []
    left = iter([2, 2, 1, 0])

    def script(asked: Asked) -> Raw:
        if "/blobs/" in asked.path:
            return Raw(b"".join(ranged(asked)))
        return manifest(**{"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": f"{next(left)};w=21600"})

    async with (
        serving(script) as server,
        Registry(credentials=Credentials(), observer=seen.append) as registry,
    ):
        reference = Reference.parse(f"{server.address}/team/app:1")
        source, buffers = registry.repository(reference), Buffers(4 << 20)
        for _ in range(4):
            await source.resolve(reference)
        with pytest.raises(RateLimitedError, match="come back at") as caught:
            await source.resolve(reference)
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB  # blobs do not count
        buffers.pool.on_release = None
    assert caught.value.retry_after_s == pytest.approx(21600, abs=5)
    assert seen == [QuotaSeen(server.address, left, 100, 21600) for left in (2, 1, 0)]  # each once


# Bodies.


@pytest.mark.parametrize("end", ["close", "reset", "hold"])
@pytest.mark.parametrize("offset", [0, 12345])
async def test_a_blob_that_is_cut_goes_on_at_its_offset(end: str, offset: int, buffers: Buffers) -> None:
    cuts = iter([MIB + 17, 500_000, 100])

    def script(asked: Asked) -> Raw:
        head, data = ranged(asked)
        size = next(cuts, None)
        return Raw(head + data) if size is None else Raw(head + data[:size], end)  # type: ignore[arg-type]

    async with client(script, read_s=0.2) as (source, server, _):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, offset, buffers)) == BLOB[offset:]
    starts = [int(asked.headers.get("range", "bytes=0-")[6:].split("-")[0]) for asked in server.asked]
    if end == "reset":  # the system drops what it has not sent
        assert starts == sorted(starts)
        assert len(starts) == 4
    else:
        assert starts == [offset, offset + MIB + 17, offset + MIB + 500_017, offset + MIB + 500_117]
    assert all(asked.headers["range"].endswith(f"-{SIZE - 1}") for asked in server.asked[1:])


async def test_a_blob_that_is_reset_every_mebibyte_arrives_and_costs_no_try(buffers: Buffers) -> None:
    blob = BLOB * 4
    descriptor = Descriptor(mediatype.OCI_LAYER_GZIP, Digest.of(blob), len(blob))

    def script(asked: Asked) -> Raw:
        first = int(asked.headers.get("range", "bytes=0-")[6:].split("-")[0])
        head = f"HTTP/1.1 {206 if first else 200} OK\r\nContent-Length: {len(blob) - first}\r\n"
        head += f"Content-Range: bytes {first}-{len(blob) - 1}/{len(blob)}\r\n\r\n" if first else "\r\n"
        last = first + MIB >= len(blob)
        return Raw(head.encode() + blob[first : first + MIB], "keep" if last else "close")

    async with client(script, RetryPolicy(tries=1)) as (source, server, _):
        assert await drain(source.fetch(descriptor, 0, buffers)) == blob
        assert len(server.asked) == -(-len(blob) // MIB)


async def test_pieces_that_are_cut_before_a_mebibyte_are_progress_together(buffers: Buffers) -> None:
    def script(asked: Asked) -> Raw:
        head, data = ranged(asked)
        piece = 600_000
        return Raw(head + data[:piece], "close" if len(data) > piece else "keep")

    async with client(script, RetryPolicy(tries=3)) as (source, server, _):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert len(server.asked) == -(-SIZE // 600_000)


async def test_a_blob_without_progress_ends_with_the_cut(buffers: Buffers) -> None:
    def script(asked: Asked) -> Raw:
        head, data = ranged(asked)
        return Raw(head + data[:100_000], "close")

    async with client(script, RetryPolicy(tries=3)) as (source, server, _):
        data, error = await drain_until_error(source.fetch(BLOB_DESCRIPTOR, 0, buffers))
        assert data == BLOB[:300_000]
        assert "ended after 100000 of" in str(error)
        assert len(server.asked) == 3


async def test_a_signed_address_that_expired_is_asked_for_again_and_never_kept(buffers: Buffers) -> None:
    requests = 0

    def cdn_script(asked: Asked) -> Raw:
        nonlocal requests
        requests += 1
        if requests == 2:
            return answer(403, b"<Code>AccessDenied</Code>")
        head, data = ranged(asked)
        return Raw(head + data) if requests > 2 else Raw(head + data[:1000], "close")

    async with serving(cdn_script) as cdn:
        count = 0

        def script(asked: Asked) -> Raw:
            nonlocal count
            count += 1
            return answer(307, headers={"Location": f"http://{cdn.address}/x?sig=secret{count}"})

        async with client(script) as (source, server, _):
            assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
    assert [dict(asked.query)["sig"] for asked in cdn.asked] == ["secret1", "secret2", "secret3"]
    assert cdn.asked[2].headers["range"] == f"bytes=1000-{SIZE - 1}"
    assert len(server.asked) == 3


async def test_an_address_that_is_always_expired_is_final_and_its_signature_is_not_shown(buffers: Buffers) -> None:
    async with serving(lambda asked: answer(403)) as cdn:
        to = answer(307, headers={"Location": f"http://{cdn.address}/x?sig=secret"})
        async with client(lambda asked: to) as (source, server, _):
            with pytest.raises(DeniedError) as caught:
                await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers))
            assert len(server.asked) == 2
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(caught.value.__cause__)


async def test_a_host_that_does_not_honour_ranges_is_not_asked_for_one_again(buffers: Buffers) -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + BLOB[: 2 * MIB]
    script = first_of([Raw(cut, "close"), Raw(cut[:-MIB], "close"), answer(body=BLOB)])
    async with client(script) as (source, server, _):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 7, buffers)) == BLOB[7:]
    assert ["range" in asked.headers for asked in server.asked] == [False, True, False, False]


async def test_bytes_that_are_skipped_on_the_way_to_an_offset_are_no_stall(
    buffers: Buffers, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count(step=5)  # each look at the clock takes so long
    monkeypatch.setattr(
        body, "StallDetector", lambda clock, peers, lag: StallDetector(lambda: float(next(seconds)), peers)
    )
    async with client(lambda asked: answer(body=BLOB)) as (source, server, _):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, SIZE - 10, buffers)) == BLOB[-10:]
        assert len(server.asked) == 1


async def test_silence_before_the_headers_is_a_timeout_and_tried_again(buffers: Buffers) -> None:
    async with client(first_of([Raw(b"", "hold"), manifest()]), read_s=0.2) as (source, _, reference):
        assert (await source.resolve(reference))[1] == INDEX
    async with client(lambda asked: Raw(b"", "hold"), RetryPolicy(tries=2), read_s=0.1) as (source, server, reference):
        with pytest.raises(TimedOutError):
            await source.resolve(reference)
        assert len(server.asked) == 2


async def test_a_manifest_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(step=25)  # each look at the clock takes so long
    slow = functools.partial(StallDetector, lambda: float(next(seconds)))
    monkeypatch.setattr(reply, "StallDetector", lambda clock, lag: slow())
    async with client(lambda asked: manifest()) as (source, server, reference):
        with pytest.raises(TimedOutError, match="stalled at"):
            await source.resolve(reference)
        assert len(server.asked) == 3


# Where a HEAD is enough.

HELD = (Descriptor(mediatype.OCI_INDEX, Digest.of(INDEX), len(INDEX)), INDEX)


def heading(status: int, digest: str) -> Scripted:
    def script(asked: Asked) -> Raw:
        if asked.method == "HEAD":
            return Raw(
                f"HTTP/1.1 {status} X\r\nContent-Length: 999\r\nDocker-Content-Digest: {digest}\r\n\r\n".encode()
            )
        return manifest()

    return script


async def test_a_tag_that_still_names_what_is_held_costs_one_head() -> None:
    async with client(heading(200, str(HELD[0].digest))) as (source, server, reference):
        assert await source.resolve(reference, HELD) == HELD
        assert [asked.method for asked in server.asked] == ["HEAD"]


async def test_a_digest_that_is_held_costs_nothing() -> None:
    async with client(lambda asked: answer(500)) as (source, server, reference):
        pinned = Reference.parse(f"{reference.name}@{HELD[0].digest}")
        assert await source.resolve(pinned, HELD) == HELD
        assert not server.asked


@pytest.mark.parametrize(
    ("status", "digest"),
    [
        (200, "sha256:" + "0" * 64),
        (200, "nonsense"),
        (200, ""),
        (204, ""),
        (400, ""),
        (401, ""),
        (403, ""),
        (404, str(HELD[0].digest)),
        (405, ""),
        (406, ""),
        (500, ""),
        (501, ""),
        (503, ""),
    ],
)
async def test_without_a_useful_head_the_manifest_is_fetched(status: int, digest: str) -> None:
    async with client(heading(status, digest)) as (source, server, reference):
        descriptor, data = await source.resolve(reference, (HELD[0], b"old"))
        assert (descriptor.digest, data) == (HELD[0].digest, INDEX)
        assert [asked.method for asked in server.asked] == ["HEAD", "GET"]


@pytest.mark.parametrize(
    "refusal",
    [
        Raw(b"", "close"),
        Raw(b"", "reset"),
        Raw(b"", "hold"),
        Raw(b"nonsense\r\n\r\n", "close"),
        Raw(b"HTTP/1.1 307 X\r\nLocation: ftp://127.0.0.1/\r\nContent-Length: 0\r\n\r\n"),
        Raw(b"HTTP/1.1 307 X\r\nLocation: /signed-for-get\r\nContent-Length: 0\r\n\r\n"),
    ],
)
async def test_a_manifest_is_fetched_where_a_head_has_no_answer(refusal: Raw) -> None:
    def script(asked: Asked) -> Raw:
        if asked.path == "/signed-for-get":
            return Raw(b"HTTP/1.1 403 X\r\n\r\n")
        return refusal if asked.method == "HEAD" else manifest()

    async with client(script, read_s=0.3) as (source, server, reference):
        descriptor, data = await source.resolve(reference, (HELD[0], b"old"))
        assert (descriptor.digest, data) == (HELD[0].digest, INDEX)
        methods = [asked.method for asked in server.asked if asked.path != "/signed-for-get"]
        assert list(dict.fromkeys(methods)) == ["HEAD", "GET"]  # aiohttp itself sends again what a closed one got


async def test_a_head_that_comes_too_often_is_tried_again() -> None:
    heads = 0

    def script(asked: Asked) -> Raw:
        nonlocal heads
        heads += 1
        if heads == 1:
            return Raw(b"HTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n")
        return heading(200, str(HELD[0].digest))(asked)

    async with client(script) as (source, server, reference):
        assert await source.resolve(reference, HELD) == HELD
        assert [asked.method for asked in server.asked] == ["HEAD", "HEAD"]


async def test_cancelling_a_wait_ends_it() -> None:
    script = first_of([answer(429, headers={"Retry-After": "50"})])
    async with client(script) as (source, server, reference):
        task = asyncio.ensure_future(source.resolve(reference))
        await server.until(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
