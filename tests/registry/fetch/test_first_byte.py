"""Servers that are silent before they answer: who is waited for, how long, and who learns of it.

Covers: registry/http/first_byte.py, registry/fetch/failover.py, registry/http/transport.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from fastoci.errors import FastociError, TimedOutError
from fastoci.events import CandidateSwitched, Event, FirstByteAwaited
from fastoci.image.reference import Reference
from fastoci.limits import Limits
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.fetch.repository import Repository
from fastoci.registry.fetch.retry import RetryPolicy
from support.scripted_mirrors import BLOB, BLOB_DESCRIPTOR, INDEX, MANIFEST, REFERENCE, endpoint
from support.scripted_server import Asked, Buffers, Raw, Script, Server, answer, drain, serving, unauthorized

READ_S = 0.2
LONG_S = 60.0  # no test takes as long
NEVER = Raw(b"", "hold")


class Watcher(list[Event]):
    """Keeps what happens; ``told`` is set as soon as somebody is told of a wait."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.append(event)
        if isinstance(event, FirstByteAwaited):
            self.told.set()

    @property
    def waits(self) -> list[FirstByteAwaited]:
        return [event for event in self if isinstance(event, FirstByteAwaited)]


@pytest.fixture
async def watcher() -> Watcher:
    return Watcher()


@asynccontextmanager
async def client(
    watcher: Watcher, *servers: Server, first_byte_s: float | None = LONG_S, connections: int = 8
) -> AsyncIterator[Repository]:
    """A client of mirrors, and of the origin, which is the last one; all silence that it may bear is short."""
    limits = Limits(read_s=READ_S, connect_s=READ_S, first_byte_s=first_byte_s, connections=connections)
    async with Registry(
        credentials=Credentials(explicit=Credential("me", "hunter2")),
        limits=limits,
        retry=RetryPolicy(tries=3, first_s=0.01),
        observer=watcher,
    ) as registry:
        found = [endpoint(server.address, origin=server is servers[-1]) for server in servers]
        yield registry.repository_at(REFERENCE, found, image="app:1")


def silent(watcher: Watcher, part: str, then: Raw) -> Script:
    """Silent where the path has this part, until somebody is told; everything else is answered at once."""

    def script(asked: Asked) -> Raw:
        if part in asked.path:
            return replace(then, silence=watcher.told)
        return MANIFEST if "/manifests/" in asked.path else answer()

    return script


async def test_a_cache_that_has_answered_before_is_waited_for(
    watcher: Watcher, buffers: Buffers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(silent(watcher, "/blobs/", answer(body=BLOB))) as server:
        async with client(watcher, server, first_byte_s=None) as source:
            await source.resolve(REFERENCE)
            assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert len([path for path in server.paths() if "/blobs/" in path]) == 1  # its work is not begun anew
        assert "/v2/" not in server.paths()
        (wait,) = watcher.waits
        assert wait.image == "app:1"
        assert wait.blob == str(BLOB_DESCRIPTOR.digest)
        assert wait.server == f"http://{server.address}/v2"
        assert (wait.waited_s, wait.timeout_s) == (READ_S, 300.0)


@pytest.mark.parametrize("top", [answer(), answer(404), unauthorized('Basic realm="x"'), answer(500)])
async def test_a_cache_that_never_answered_is_waited_for_when_it_answers_something_small(
    watcher: Watcher, top: Raw
) -> None:
    def script(asked: Asked) -> Raw:
        return top if asked.path == "/v2/" else replace(MANIFEST, silence=watcher.told)

    async with serving(script) as server:
        async with client(watcher, server, first_byte_s=None, connections=1) as source:
            assert (await source.resolve(REFERENCE))[1] == INDEX
        assert sorted(server.paths()) == ["/v2/", "/v2/team/app/manifests/1"]
        assert all("authorization" not in asked.headers for asked in server.asked)
        assert len(watcher.waits) == 1


async def test_many_that_wait_for_one_cache_ask_once_whether_it_lives(watcher: Watcher) -> None:
    def script(asked: Asked) -> Raw:
        return answer() if asked.path == "/v2/" else replace(MANIFEST, silence=watcher.told)

    async with serving(script) as server, client(watcher, server, first_byte_s=None) as source:
        tags = [Reference.parse(f"registry.test/team/app:{number}") for number in range(6)]
        assert [data for _, data in await asyncio.gather(*map(source.resolve, tags))] == [INDEX] * 6
        assert server.paths().count("/v2/") == 1


@pytest.mark.attack
async def test_a_server_that_never_answers_anything_is_given_up_soon(watcher: Watcher) -> None:
    async with serving(lambda asked: NEVER) as server, client(watcher, server, first_byte_s=None) as source:
        async with asyncio.timeout(LONG_S):
            with pytest.raises(TimedOutError):
                await source.resolve(REFERENCE)
        assert not watcher.waits


async def test_who_asks_for_patience_has_it_with_any_server(watcher: Watcher) -> None:
    async with serving(lambda asked: replace(MANIFEST, silence=watcher.told)) as server:
        async with client(watcher, server) as source:
            assert (await source.resolve(REFERENCE))[1] == INDEX
        assert server.paths() == ["/v2/team/app/manifests/1"]
        assert watcher.waits[0].timeout_s == LONG_S


@pytest.mark.attack
@pytest.mark.parametrize("first_byte_s", [READ_S / 2, READ_S * 2])
async def test_patience_ends(watcher: Watcher, first_byte_s: float) -> None:
    def script(asked: Asked) -> Raw:
        return NEVER if "/blobs/" in asked.path else MANIFEST

    async with serving(script) as server, client(watcher, server, first_byte_s=first_byte_s) as source:
        await source.resolve(REFERENCE)
        with pytest.raises(TimedOutError):
            await drain(source.fetch(BLOB_DESCRIPTOR, 0, Buffers(4 << 20)))
        assert len(watcher.waits) == (first_byte_s > READ_S)  # once, for all tries


@pytest.mark.attack
@pytest.mark.parametrize("target", ["manifest", "blob"])
async def test_a_silent_mirror_does_not_hold_what_the_origin_has(
    watcher: Watcher, buffers: Buffers, target: str
) -> None:
    def cache(asked: Asked) -> Raw:
        return MANIFEST if asked.path.endswith("/0") else NEVER

    def origin(asked: Asked) -> Raw:
        return MANIFEST if "/manifests/" in asked.path else answer(body=BLOB)

    async with serving(cache) as mirror, serving(origin) as last, client(watcher, mirror, last) as source:
        await source.resolve(Reference.parse("registry.test/team/app:0"))
        if target == "manifest":
            assert (await source.resolve(REFERENCE))[1] == INDEX
        else:
            assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert not watcher.waits
        assert any(isinstance(event, CandidateSwitched) for event in watcher)


async def test_a_mirror_is_waited_for_when_nobody_else_has_it(watcher: Watcher, buffers: Buffers) -> None:
    async with (
        serving(silent(watcher, "/blobs/", answer(body=BLOB))) as mirror,
        serving(lambda asked: answer(404)) as last,
        client(watcher, mirror, last, first_byte_s=None) as source,
    ):
        await source.resolve(REFERENCE)
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert [wait.server for wait in watcher.waits] == [f"http://{mirror.address}/v2"]


@pytest.mark.attack
async def test_the_host_of_a_redirect_has_no_more_time_than_others(watcher: Watcher) -> None:
    async with serving(lambda asked: NEVER) as other:

        def script(asked: Asked) -> Raw:
            if "/blobs/" in asked.path:
                return answer(307, headers={"Location": f"http://{other.address}/x"})
            return MANIFEST

        async with serving(script) as server, client(watcher, server, first_byte_s=None) as source:
            await source.resolve(REFERENCE)
            with pytest.raises(FastociError):
                await drain(source.fetch(BLOB_DESCRIPTOR, 0, Buffers(4 << 20)))
        assert not watcher.waits
        assert set(other.paths()) == {"/x"}


@pytest.mark.attack
async def test_a_byte_now_and_then_is_not_an_answer(watcher: Watcher) -> None:
    drip = Raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100, "hold", rate=50)
    lines = replace(drip, data=drip.data.replace(b"\r\n\r\n", b"\r\n", 1))
    async with serving(lambda asked: lines) as server, client(watcher, server, first_byte_s=READ_S) as source:
        with pytest.raises(FastociError):
            await source.resolve(REFERENCE)
