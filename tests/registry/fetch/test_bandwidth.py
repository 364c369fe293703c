"""``Limits.bandwidth`` and ``Limits.request_rate``: kept by all bodies and requests together, and nobody's fault.

In virtual time: a body that our own limit holds back is no slow server, no stall and no silence, whatever its form.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from msgspec import structs

from fastoci.events import Event
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.limits import Limits
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.fetch import parallel_ranges
from fastoci.registry.fetch.repository import Repository
from fastoci.registry.fetch.retry import RetryPolicy
from support import virtual_time
from support.scripted_mirrors import BLOB, INDEX_DESCRIPTOR, MANIFEST, endpoint, whole
from support.scripted_server import Asked, Buffers, Raw, Script, Server, answer, drain, serving

STEPS = 300_000
SLOW = 20_000  # bytes a second: less than any server may send
SMALL = BLOB[:400_000]
DESCRIPTOR = Descriptor("application/octet-stream", Digest.of(SMALL), len(SMALL))


def chunked(asked: Asked) -> Raw:
    """The body as only aiohttp can read it."""
    data = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (SMALL[:100_000], SMALL[100_000:]))
    return Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data + b"0\r\n\r\n")


FORMS: dict[str, Script] = {"direct": lambda asked: whole(asked, SMALL), "chunked": chunked}


@asynccontextmanager
async def limited(
    script: Script, limits: Limits, seen: list[Event], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Repository, Server, Buffers]]:
    """A repository at two servers that say the same: there is one to change to."""
    buffers = Buffers(24 << 20, ahead=16 << 20)
    registry = Registry(
        credentials=Credentials(),
        limits=structs.replace(limits, read_s=2.0),
        observer=seen.append,
        retry=RetryPolicy(tries=3, rng=lambda: 0.0),
    )
    async with serving(script, tls=tls) as first, serving(script, tls=tls) as last, registry:
        where = [endpoint(first.address), endpoint(last.address, origin=True)]
        if tls is not None:
            where = [structs.replace(each, base=each.base.with_scheme("https")) for each in where]
        yield registry.repository_at(Reference.parse(f"{last.address}/team/app:1"), where), first, buffers
    buffers.pool.on_release = None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secure", [False, True], ids=["http", "tls"])
@pytest.mark.usefixtures("trusted")
def test_a_body_that_the_bandwidth_holds_back_is_neither_slow_nor_silent(
    form: str, secure: bool, certified: Callable[..., ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[Event]()

    async def work() -> float:
        limits = Limits(bandwidth=SLOW)
        tls = certified("127.0.0.1") if secure else None
        async with limited(FORMS[form], limits, seen, tls=tls) as (source, first, buffers):
            begun = time.monotonic()
            assert await drain(source.fetch(DESCRIPTOR, 0, buffers)) == SMALL
            assert len(first.asked) == 1
            return time.monotonic() - begun

    taken_s = virtual_time.run(work(), monkeypatch, steps=STEPS)
    wanted_s = len(SMALL) / SLOW
    # A record of TLS that is on its way in the kernel costs a jump of the clock.
    assert 0.95 * wanted_s < taken_s < (2.0 if secure else 1.05) * wanted_s
    assert {type(event).__name__ for event in seen} <= {"BlobReceived"}


def test_blobs_at_once_share_the_bandwidth_and_the_connections_stay_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several connections would bring no more."""
    monkeypatch.setattr(parallel_ranges, "RANGE_SIZE", 256 << 10)
    seen, ends = list[Event](), list[float]()
    rate = 2_000_000
    blobs = [(Descriptor("", Digest.of(data), len(data)), data) for data in (BLOB, BLOB[1:], BLOB[2:])]
    by_digest = {str(blob.digest): data for blob, data in blobs}

    def script(asked: Asked) -> Raw:
        return whole(asked, by_digest[asked.path.rpartition("/")[2]])

    async def work() -> float:
        async with limited(script, Limits(bandwidth=rate), seen) as (source, _, buffers):
            begun = time.monotonic()

            async def fetch(blob: Descriptor, data: bytes) -> None:
                assert await drain(source.fetch(blob, 0, buffers)) == data
                ends.append(time.monotonic() - begun)

            await asyncio.gather(*(fetch(*each) for each in blobs))
            return time.monotonic() - begun

    taken_s = virtual_time.run(work(), monkeypatch, steps=STEPS)
    assert taken_s == pytest.approx(sum(map(len, by_digest.values())) / rate, rel=0.05)
    assert min(ends) > 0.9 * taken_s
    assert {type(event).__name__ for event in seen} <= {"BlobReceived"}


def test_a_question_does_not_wait_for_the_bandwidth_of_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    held = (INDEX_DESCRIPTOR, b"")
    digest = {"Docker-Content-Digest": str(INDEX_DESCRIPTOR.digest)}

    def script(asked: Asked) -> Raw:
        if asked.method == "HEAD":
            return replace(answer(headers=digest))
        return MANIFEST if "/manifests/" in asked.path else whole(asked, SMALL)

    async def work() -> tuple[float, float]:
        async with limited(script, Limits(bandwidth=SLOW), []) as (source, _, buffers):
            fetch = asyncio.create_task(drain(source.fetch(DESCRIPTOR, 0, buffers)))
            await asyncio.sleep(5)
            begun = time.monotonic()
            assert await source.resolve(Reference.parse("a.test/app:1"), held) == held
            head_s = time.monotonic() - begun
            await source.manifest(INDEX_DESCRIPTOR)
            manifest_s = time.monotonic() - begun - head_s
            fetch.cancel()
            await asyncio.wait([fetch])
            return head_s, manifest_s

    head_s, manifest_s = virtual_time.run(work(), monkeypatch, steps=STEPS)
    assert head_s < 0.05
    assert manifest_s < 0.5  # a few pieces of others, and its own bytes


def test_a_fetch_that_waits_for_bandwidth_is_cancelled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> float:
        async with limited(FORMS["direct"], Limits(bandwidth=1000), []) as (source, _, buffers):
            fetch = asyncio.create_task(drain(source.fetch(DESCRIPTOR, 0, buffers)))
            await asyncio.sleep(5)
            begun = time.monotonic()
            fetch.cancel()
            await asyncio.wait([fetch])
            assert buffers.pool.in_use == 0
            return time.monotonic() - begun

    assert virtual_time.run(work(), monkeypatch, steps=STEPS) < 0.5


def test_requests_of_all_kinds_keep_the_rate_of_their_host(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = list[float]()

    def script(asked: Asked) -> Raw:
        moments.append(time.monotonic())
        return MANIFEST if "/manifests/" in asked.path else whole(asked, SMALL)

    async def work() -> None:
        async with limited(script, Limits(request_rate=10), []) as (source, _, buffers):
            names = [Reference.parse(f"a.test/app:{number}") for number in range(30)]
            await asyncio.gather(
                *(source.resolve(name) for name in names), *(source.manifest(INDEX_DESCRIPTOR) for _ in range(30))
            )
            assert await drain(source.fetch(DESCRIPTOR, 0, buffers)) == SMALL

    virtual_time.run(work(), monkeypatch, steps=STEPS)
    assert len(moments) == 61
    assert moments[-1] - moments[0] == pytest.approx(6.0, abs=0.3)
    most = functools.reduce(max, (sum(start <= each < start + 1 for each in moments) for start in moments))
    assert most <= 12


def test_redirects_that_wait_for_their_turn_are_not_taken_for_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(asked: Asked) -> Raw:
        count = int(dict(asked.query).get("hop", "0"))
        if count == 5:
            return whole(asked, SMALL)
        return answer(307, headers={"Location": f"{asked.path}?hop={count + 1}"})

    async def work() -> None:
        async with limited(script, Limits(request_rate=0.5), []) as (source, first, buffers):
            assert await drain(source.fetch(DESCRIPTOR, 0, buffers)) == SMALL
            assert len(first.asked) == 6

    virtual_time.run(work(), monkeypatch, steps=STEPS)
