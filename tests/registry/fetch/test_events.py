"""What an observer learns of a fetch: each retry, switch of candidate, resumed and duplicated fetch, as it happens.

Connection limits and read-ahead are in test_parallel_ranges.py, slow candidates in test_slow_candidates.py.
"""

from __future__ import annotations

import json

import pytest
from msgspec.structs import asdict

from fastoci.errors import ConnectError, NotFoundError, RateLimitedError, UnavailableError
from fastoci.events import CandidateSwitched, Event, FetchDuplicated, FetchResumed, Retrying
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.fetch.retry import RetryPolicy
from support.scripted_mirrors import (
    BLOB,
    BLOB_DESCRIPTOR,
    INDEX,
    INDEX_DESCRIPTOR,
    MANIFEST,
    REFERENCE,
    SIZE,
    between,
    endpoint,
    whole,
)
from support.scripted_server import Asked, Buffers, Raw, answer, drain, serving

IMAGE = "app:1"
BLOB_NAME = str(BLOB_DESCRIPTOR.digest)


async def test_a_registry_that_answers_503_always_is_retried_visibly_and_the_error_counts() -> None:
    seen = list[Event]()
    waits = iter([0.0, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0])
    registry = Registry(
        credentials=Credentials(), observer=seen.append, retry=RetryPolicy(first_s=0.1, rng=lambda: next(waits))
    )
    async with serving(lambda asked: answer(503)) as server, registry:
        source = registry.repository_at(REFERENCE, [endpoint(server.address, origin=True)], image=IMAGE)
        with pytest.raises(UnavailableError) as caught:
            await source.resolve(REFERENCE)
        assert len(server.asked) == 8
        where = f"http://{server.address}/v2"
    expected = [0.0, 0.05, 0.0, 0.0, 0.0, 0.0, 0.0]
    cause = "503 Service Unavailable"
    assert seen == [Retrying(IMAGE, "", where, cause, n, 8, wait_s) for n, wait_s in enumerate(expected, 1)]
    error = caught.value
    assert error.tries == 8
    assert 0.05 <= error.elapsed_s < 30
    assert f": 8 tries in {error.elapsed_s:.1f} s, last: 503 Service Unavailable" in str(error)
    assert error.others == ()


@pytest.mark.parametrize("status", [429, 503])
async def test_the_wait_that_a_server_asks_for_is_the_one_of_the_event(status: int) -> None:
    seen = list[Event]()
    answers = iter([answer(status, headers={"Retry-After": "1"})])
    policy = RetryPolicy(rng=lambda: 0.5, limited_s=0.2)
    registry = Registry(credentials=Credentials(), observer=seen.append, retry=policy)
    async with serving(lambda asked: next(answers, MANIFEST)) as server, registry:
        source = registry.repository_at(REFERENCE, [endpoint(server.address, origin=True)], image=IMAGE)
        assert (await source.resolve(REFERENCE))[1] == INDEX
    (event,) = seen
    assert isinstance(event, Retrying)
    spread = 0.1 if status == 429 else 0.0
    assert 1.0 < event.wait_s - spread <= 1.125  # a second, and half of its jitter


async def test_a_request_that_waits_since_another_was_refused_says_so() -> None:
    seen = list[Event]()
    answers = iter([answer(429, headers={"Retry-After": "1"})])
    policy = RetryPolicy(tries=1, limited_tries=1, rng=lambda: 0.0)
    registry = Registry(credentials=Credentials(), observer=seen.append, retry=policy)
    async with serving(lambda asked: next(answers, MANIFEST)) as server, registry:
        source = registry.repository_at(REFERENCE, [endpoint(server.address, origin=True)], image=IMAGE)
        with pytest.raises(RateLimitedError):
            await source.resolve(REFERENCE)
        assert seen == []
        assert (await source.resolve(REFERENCE))[1] == INDEX
    (event,) = seen
    assert isinstance(event, Retrying)
    assert (event.cause, event.attempt, event.attempts) == ("it wants no requests yet", 0, 1)
    assert 0.5 < event.wait_s <= 1.0


async def test_a_port_that_refuses_has_few_attempts_and_says_so() -> None:
    seen = list[Event]()
    async with serving(lambda asked: answer()) as gone:
        address = gone.address
    registry = Registry(credentials=Credentials(), observer=seen.append, retry=RetryPolicy(rng=lambda: 0.0))
    async with registry:
        source = registry.repository_at(REFERENCE, [endpoint(address, origin=True)], image=IMAGE)
        with pytest.raises(ConnectError, match=r"3 tries in .* s, last: connection refused by") as caught:
            await source.manifest(INDEX_DESCRIPTOR)
    cause = f"connection refused by {address}"
    where, wanted = f"http://{address}/v2", str(INDEX_DESCRIPTOR.digest)
    assert seen == [Retrying(IMAGE, wanted, where, cause, n, 3, 0.0) for n in (1, 2)]
    assert caught.value.tries == 3


async def test_what_one_refuses_another_is_asked_for_and_both_are_named() -> None:
    seen = list[Event]()
    async with between(lambda asked: answer(404), lambda asked: MANIFEST, observer=seen.append) as (
        source,
        first,
        last,
    ):
        assert (await source.resolve(REFERENCE))[1] == INDEX
        mirror, origin = f"http://{first.address}/v2", f"http://{last.address}/v2"
    assert seen == [CandidateSwitched(IMAGE, "", mirror, origin, "404 Not Found")]


async def test_the_error_names_what_each_candidate_said() -> None:
    gone = answer(503, body=json.dumps({"errors": [{"code": "UNAVAILABLE", "message": "at lunch"}]}).encode())
    async with between(lambda asked: gone, lambda asked: answer(404)) as (source, first, last):
        with pytest.raises(NotFoundError) as caught:
            await source.resolve(REFERENCE)
        mirror, origin = f"http://{first.address}/v2", f"http://{last.address}/v2"
    assert caught.value.others == (f"{mirror}: 503 UNAVAILABLE",)
    assert str(caught.value) == (
        f"GET {origin}/team/app/manifests/1: 404 Not Found (also asked: {mirror}: 503 UNAVAILABLE)"
    )


async def test_who_sent_wrong_bytes_is_passed_over_with_an_event(buffers: Buffers) -> None:
    seen = list[Event]()
    async with between(whole, whole, observer=seen.append) as (source, first, last):
        mirror, origin = f"http://{first.address}/v2", f"http://{last.address}/v2"
        source.report_corrupt(BLOB_DESCRIPTOR, [mirror])
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
    assert seen == [CandidateSwitched(IMAGE, BLOB_NAME, mirror, origin, "it sent wrong bytes of this blob")]


async def test_a_cut_goes_on_with_an_event_that_says_where_and_why(buffers: Buffers) -> None:
    seen = list[Event]()
    cuts = iter([2_000_000])

    def cutting(asked: Asked) -> Raw:
        size = next(cuts, None)
        if size is None:
            return whole(asked)
        return Raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE + BLOB[:size], "close")

    registry = Registry(credentials=Credentials(), observer=seen.append, retry=RetryPolicy(rng=lambda: 0.0))
    async with serving(cutting) as server, registry:
        source = registry.repository_at(REFERENCE, [endpoint(server.address, origin=True)], image=IMAGE)
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
    cause = "the body ended after 2000000 of 3072000 bytes"
    assert seen == [FetchResumed(IMAGE, BLOB_NAME, f"http://{server.address}/v2", 2_000_000, cause)]


async def test_a_cut_at_a_server_without_ranges_says_that_bytes_come_twice(buffers: Buffers) -> None:
    seen = list[Event]()
    cuts = iter([2_000_000])

    def script(asked: Asked) -> Raw:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE
        return Raw(head + BLOB[: next(cuts, SIZE)], "close")

    registry = Registry(credentials=Credentials(), observer=seen.append, retry=RetryPolicy(rng=lambda: 0.0))
    async with serving(script) as server, registry:
        source = registry.repository_at(REFERENCE, [endpoint(server.address, origin=True)], image=IMAGE)
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
    where, reason = f"http://{server.address}/v2", "the server does not honour ranges"
    assert [type(event) for event in seen] == [FetchResumed, FetchDuplicated]
    assert seen[1] == FetchDuplicated(IMAGE, BLOB_NAME, where, 0, 2_000_000, reason)
    assert all(json.dumps(asdict(event)) for event in seen)
