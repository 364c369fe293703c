"""Candidates that are far slower than others could be: left in mid-blob, for one that is better, and not for ever.

Covers: registry/opening.py.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastoci import Engine, Limits, RegistryOptions
from fastoci.errors import FastociError, TimedOutError, TransportError
from fastoci.events import CandidateSwitched, Event
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.fetch import body
from fastoci.registry.fetch.failover import ClientPolicy, Failover, candidates
from fastoci.registry.fetch.repository import Repository
from fastoci.registry.fetch.retry import RetryBudget, RetryPolicy
from fastoci.registry.http import throughput
from fastoci.registry.http.servers import Servers
from fastoci.registry.http.urls import Origin
from fastoci.testing.faults import FaultServer, Rule, Scenario, Tweak
from fastoci.testing.faults.command import Workdir
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
from support.scripted_server import Asked, Buffers, Raw, Script, Server, answer, drain, serving, unauthorized

SMALL = BLOB[:400_000]
SMALL_DESCRIPTOR = Descriptor(BLOB_DESCRIPTOR.media_type, Digest.of(SMALL), len(SMALL))
SLOW = 200_000  # bytes a second: below ``stalls.LEAST``


class Lefts(list[CandidateSwitched]):
    """An observer of the candidates that are left because they are slow."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, CandidateSwitched) and event.reason.startswith("slow"):
            self.append(event)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lags is found out in a tenth of the time."""
    monkeypatch.setattr(throughput, "LAG_S", throughput.LAG_S / 10)
    monkeypatch.setattr(body, "_CHECK_S", body._CHECK_S / 10)


def at(rate: int, data: bytes = BLOB) -> Script:
    return lambda asked: replace(whole(asked, data), rate=rate)


@pytest.mark.attack
@pytest.mark.parametrize("part", [b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * SIZE, gzip.compress(b"") * 100_000])
@pytest.mark.parametrize("after", [b"", gzip.compress(SMALL)])
async def test_a_gzip_body_that_brings_nothing_holds_a_blob_for_no_longer(
    part: bytes, after: bytes, buffers: Buffers
) -> None:
    """Names and members of nothing are bytes on the wire, and none of the blob."""
    begun = asyncio.get_running_loop().time()
    coded = replace(answer(body=after + part, headers={"Content-Encoding": "gzip"}), rate=20 * len(after) or 500)
    async with between(lambda asked: coded, lambda asked: whole(asked, SMALL)) as (source, first, last):
        assert await drain(source.fetch(SMALL_DESCRIPTOR, 0, buffers)) == SMALL
        assert (len(first.asked), len(last.asked)) == (1, not after)
    assert asyncio.get_running_loop().time() - begun < 15  # else as long as the mirror sends


@pytest.mark.attack
async def test_a_slow_mirror_that_was_left_is_not_gone_back_to_for_what_may_pass_at_the_registry(
    buffers: Buffers,
) -> None:
    last_answers = iter([answer(503), answer(500)])
    async with between(at(SLOW), lambda asked: next(last_answers, whole(asked))) as (source, first, last):
        async with asyncio.timeout(10):
            assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert (len(first.asked), len(last.asked)) == (1, 3)


@pytest.mark.attack
async def test_a_slow_mirror_that_was_left_is_gone_back_to_when_the_registry_has_had_its_tries(
    buffers: Buffers,
) -> None:
    async with between(at(SLOW, SMALL), lambda asked: answer(503)) as (source, first, last):
        assert await drain(source.fetch(SMALL_DESCRIPTOR, 0, buffers)) == SMALL
        assert (len(first.asked), len(last.asked)) == (2, 3)


@pytest.mark.attack
async def test_a_slow_mirror_is_left_for_the_registry_that_failed_once_before(buffers: Buffers) -> None:
    first_answers = iter([answer(503)])
    last_answers = iter([answer(503)])
    lefts = Lefts()
    async with between(
        lambda asked: next(first_answers, at(SLOW)(asked)),
        lambda asked: next(last_answers, whole(asked)),
        observer=lefts,
    ) as (source, first, last):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert (len(first.asked), len(last.asked)) == (2, 2)
    assert len(lefts) == 1


@pytest.mark.attack
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_slow_mirror_is_left_in_mid_blob_and_what_came_stays(framing: str, buffers: Buffers) -> None:
    def mirror(asked: Asked) -> Raw:
        if framing == "length":
            return at(SLOW)(asked)
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % SIZE
        return Raw(head + BLOB, rate=SLOW)

    lefts = Lefts()
    async with between(mirror, whole, observer=lefts) as (source, first, last):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert len(first.asked) == 1
        (asked,) = last.asked
    begun = int(asked.headers["range"].removeprefix("bytes=").partition("-")[0])
    assert 0 < begun < SIZE
    (left,) = lefts
    assert left.blob == str(BLOB_DESCRIPTOR.digest)
    assert (left.server, left.following) == (f"http://{first.address}/v2", f"http://{last.address}/v2")
    assert left.reason.startswith("slow at")


async def test_a_slow_registry_that_is_alone_is_not_left(buffers: Buffers) -> None:
    lefts = Lefts()
    gone = lambda asked: answer(404)  # noqa: E731
    async with between(gone, at(SLOW, SMALL), observer=lefts) as (source, _, last):
        assert await drain(source.fetch(SMALL_DESCRIPTOR, 0, buffers)) == SMALL
        assert len(last.asked) == 1
    assert lefts == []


async def test_where_all_are_slow_one_change_is_made_and_the_next_blob_has_none(buffers: Buffers) -> None:
    lefts = Lefts()
    slow = at(SLOW, SMALL)
    async with between(slow, slow, observer=lefts) as (source, first, last):
        assert await drain(source.fetch(SMALL_DESCRIPTOR, 0, buffers)) == SMALL
        assert len(lefts) == 1
        assert await drain(source.fetch(SMALL_DESCRIPTOR, 0, buffers)) == SMALL
        assert len(lefts) == 1  # what the other can do is known by then
        assert (len(first.asked), len(last.asked)) == (2, 1)


async def test_what_is_slower_still_is_left_for_the_first_which_is_kept(buffers: Buffers) -> None:
    lefts = Lefts()
    slower = at(SLOW // 10, SMALL)
    async with between(at(SLOW, SMALL), slower, observer=lefts) as (source, first, last):
        assert await drain(source.fetch(SMALL_DESCRIPTOR, 0, buffers)) == SMALL
        assert (len(first.asked), len(last.asked)) == (2, 1)
    assert [left.server for left in lefts] == [f"http://{first.address}/v2", f"http://{last.address}/v2"]


async def test_a_mirror_is_left_for_one_that_fails_and_gone_back_to(buffers: Buffers) -> None:
    def origin(asked: Asked) -> Raw:
        return answer(404)

    async with between(at(SLOW, SMALL), origin) as (source, first, last):
        assert await drain(source.fetch(SMALL_DESCRIPTOR, 0, buffers)) == SMALL
        assert len(first.asked) == 2
        assert [path for path in last.paths() if path != "/v2/"] == [f"/v2/team/app/blobs/{SMALL_DESCRIPTOR.digest}"]


@pytest.mark.attack
@pytest.mark.parametrize("by", ["tag", "digest"])
async def test_a_mirror_whose_manifest_drips_is_left_for_the_registry(by: str) -> None:
    lefts = Lefts()
    dripping = replace(MANIFEST, rate=50)
    async with between(lambda asked: dripping, lambda asked: MANIFEST, observer=lefts) as (
        source,
        _,
        last,
    ):
        if by == "tag":
            assert (await source.resolve(REFERENCE))[1] == INDEX
        else:
            assert await source.manifest(INDEX_DESCRIPTOR) == INDEX
        assert len(last.asked) == 1
    assert len(lefts) == 1


@pytest.mark.attack
@pytest.mark.parametrize("what", ["refusal", "token"])
async def test_a_refusal_or_token_that_drips_holds_nothing_for_long(what: str) -> None:
    dripping = answer(404, b" " * 60_000)
    address = ""

    def mirror(asked: Asked) -> Raw:
        if what == "refusal" or asked.path == "/token":
            return replace(dripping if what == "refusal" else answer(body=b" " * 60_000), rate=6000)
        return unauthorized(f'Bearer realm="http://{address}/token"')

    async with between(mirror, lambda asked: MANIFEST) as (source, first, last):
        address = first.address
        async with asyncio.timeout(8):  # it takes ten seconds to say it all
            assert (await source.resolve(REFERENCE))[1] == INDEX
        assert len(last.asked) == 1


@pytest.mark.attack
async def test_a_pull_of_a_large_layer_leaves_a_slow_mirror_with_an_event(tmp_path: Path) -> None:
    rules = (Rule("layer", Tweak(rate=128 << 10), host="mirror"),)
    plan = Scenario("R", "a slow mirror", "", "ok", rules=rules, mirror="good", layer=24 << 20)
    place = Workdir(tmp_path / "place")
    place.root.mkdir()
    seen: list[Event] = []
    async with FaultServer(plan) as server:
        words = place.prepare(server)
        engine = Engine(
            words["store"],
            registry=RegistryOptions(authfile=words["authfile"], registries_conf=f"{words['config']}/registries.conf"),
            limits=Limits(workers=1),
            observer=seen.append,
        )
        async with engine:
            await engine.pull(server.image)
        layer = server.images[0].layers[-1].descriptor

        def sent(host: str) -> int:
            asked = [each for each in server.requests if each.host == host and str(layer.digest) in each.target]
            return sum(each.sent for each in asked)

        await server.until(lambda: sent("mirror") > 0)  # it notes that when it sees that nobody listens
        assert sent("mirror") < 2 << 20
        assert sent("registry") < layer.size  # what came stays
    assert {event.blob for event in seen if isinstance(event, CandidateSwitched)} == {str(layer.digest)}


# The decisions alone.


def failover(count: int, servers: Servers, lefts: Lefts, corrupt: Sequence[str] = ()) -> Failover:
    policy = ClientPolicy(RetryPolicy(rng=lambda: 0.0), RetryBudget(100), lefts)
    where = [endpoint(f"127.0.0.1:{number + 1}", origin=number == count - 1) for number in range(count)]
    return Failover(candidates(where, servers), servers, policy, corrupt=corrupt)


async def test_a_twentieth_of_the_jobs_median_is_slow_and_a_tenth_is_not() -> None:
    servers, lefts = Servers(), Lefts()
    for _ in range(4):
        servers.job.add(100_000_000, 1.0)
    chosen = failover(2, servers, lefts)
    first = chosen.candidate
    assert chosen.slow(first, 10_000_000.0) == ""
    assert "the median is 100000000" in chosen.slow(first, 4_000_000.0)
    assert chosen.candidate is not first


async def test_nobody_is_left_for_one_that_cannot_be_better() -> None:
    for spoil in spoilers():
        servers, lefts = Servers(), Lefts()
        chosen = failover(2, servers, lefts, spoil(servers))
        assert chosen.slow(chosen.candidate, 1000.0) == ""
        assert lefts == []


def spoilers() -> list[Callable[[Servers], Sequence[str]]]:
    other = endpoint("127.0.0.1:2")

    def unreachable(servers: Servers) -> Sequence[str]:
        servers.of(Origin.of(other.base)).connect_failed = True
        return ()

    def closed(servers: Servers) -> Sequence[str]:
        servers.of(Origin.of(other.base)).pause(60)
        return ()

    def slow(servers: Servers) -> Sequence[str]:
        servers.of(Origin.of(other.base)).measured(2000, 1.0)
        return ()

    def corrupt(servers: Servers) -> Sequence[str]:
        return ["http://127.0.0.1:2/v2"]

    return [unreachable, closed, slow, corrupt]


async def test_a_rest_that_is_here_soon_is_worth_no_change() -> None:
    chosen = failover(2, Servers(), Lefts())
    assert chosen.slow(chosen.candidate, 1000.0, int(1000 * throughput.LAG_S) - 1) == ""
    assert chosen.slow(chosen.candidate, 1000.0, int(1000 * throughput.LAG_S) + 1) != ""


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(st.integers(1, 5), st.lists(st.tuples(st.floats(1, 1e6), st.integers(0, 4)), max_size=80))
def test_however_fast_they_are_candidates_are_not_changed_without_end(
    count: int, looks: list[tuple[float, int]]
) -> None:
    async def run() -> None:
        lefts = Lefts()
        chosen = failover(count, Servers(), lefts)
        seen = {chosen.candidate}
        for rate, kind in looks:
            if kind == 0:
                with_error = TransportError("cut", url="http://x.test")
                try:
                    await chosen.failed(with_error, chosen.candidate)
                except FastociError:
                    break
            else:
                chosen.slow(chosen.candidate, rate)
            seen.add(chosen.candidate)
        assert len(lefts) <= count + 1
        assert len(seen) <= count

    asyncio.run(run())


# A link that is slower than the floor.

CREEPING = 3000  # bytes a second
TINY = BLOB[:9000]
TINY_DESCRIPTOR = Descriptor(BLOB_DESCRIPTOR.media_type, Digest.of(TINY), len(TINY))


@pytest.fixture
def low_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The floor, and less than it, are found out in less than half a second."""
    monkeypatch.setattr(throughput, "FLOOR_S", throughput.FLOOR_S / 50)


async def test_a_link_below_the_floor_is_renewed_and_then_goes_on(buffers: Buffers, low_floor: None) -> None:
    async with serving(at(CREEPING, TINY)) as server, alone(server) as source:
        assert await drain(source.fetch(TINY_DESCRIPTOR, 0, buffers)) == TINY
        wanted = [asked.headers.get("range", "bytes=0-") for asked in server.asked]
        starts = [int(each.removeprefix("bytes=").partition("-")[0]) for each in wanted]
        assert len(starts) == 1 + throughput.RENEWALS
        assert starts == sorted(set(starts))  # nothing comes twice


async def test_a_slow_link_to_who_honours_no_ranges_costs_one_renewal(buffers: Buffers, low_floor: None) -> None:
    whole_at_once = replace(answer(body=TINY), rate=CREEPING)
    async with serving(lambda asked: whole_at_once) as server, alone(server) as source:
        assert await drain(source.fetch(TINY_DESCRIPTOR, 0, buffers)) == TINY
        assert len(server.asked) == 2


async def test_a_manifest_below_the_floor_is_read_to_its_end(low_floor: None) -> None:
    long = INDEX + b" " * 1000
    async with serving(lambda asked: replace(answer(body=long), rate=1000)) as server, alone(server) as source:
        assert (await source.resolve(REFERENCE))[1] == long
        assert len(server.asked) == 1


@pytest.mark.attack
@pytest.mark.parametrize("what", ["blob", "manifest"])
async def test_what_hardly_comes_is_an_error_in_bounded_time(what: str, low_floor: None) -> None:
    drip = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    body_of = {"blob": TINY, "manifest": INDEX}[what]
    script = lambda asked: Raw(drip % len(body_of) + body_of[:40], rate=50, end="hold")  # noqa: E731 - a byte at a time
    async with serving(script) as server, alone(server) as source, asyncio.timeout(60):
        with pytest.raises(TimedOutError):
            if what == "blob":
                await drain(source.fetch(TINY_DESCRIPTOR, 0, Buffers(4 << 20)))
            else:
                await source.resolve(REFERENCE)


@asynccontextmanager
async def alone(server: Server) -> AsyncIterator[Repository]:
    """A repository that only one server has."""
    async with Registry(
        credentials=Credentials(), limits=Limits(read_s=5.0), retry=RetryPolicy(tries=2, first_s=0.01)
    ) as registry:
        yield registry.repository_at(REFERENCE, [endpoint(server.address, origin=True)], image="app:1")
