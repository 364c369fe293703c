"""Several places for one repository: in order, in mid-blob, dead ones once, wrong ones no more."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from mirrors import BLOB, BLOB_DESCRIPTOR, INDEX, INDEX_DESCRIPTOR, MANIFEST, REFERENCE, SIZE, between, endpoint, whole
from wire import Asked, Raw, Spans, answer, drain, serving, unauthorized

from fastoci.errors import ConnectError, NotFoundError, RegistryError, UnavailableError
from fastoci.image.reference import Reference
from fastoci.registry.auth_files import AuthFile
from fastoci.registry.client import Registry
from fastoci.registry.credential import Credential
from fastoci.registry.credentials import Credentials
from fastoci.registry.tokens import basic


async def test_the_first_that_has_it_is_asked_alone() -> None:
    async with between(lambda asked: MANIFEST, lambda asked: MANIFEST) as (source, mirror, origin):
        assert (await source.resolve(REFERENCE))[1] == INDEX
        assert (len(mirror.asked), len(origin.asked)) == (1, 0)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_what_a_mirror_refuses_the_origin_is_asked_for_at_once(status: int) -> None:
    async with between(lambda asked: answer(status), lambda asked: MANIFEST) as (source, mirror, origin):
        assert (await source.resolve(REFERENCE))[1] == INDEX
        assert (len(mirror.asked), len(origin.asked)) == (1, 1)


async def test_a_mirror_that_wants_to_be_let_alone_for_a_day_costs_no_wait() -> None:
    busy = answer(429, headers={"Retry-After": "86400"})
    async with between(lambda asked: busy, lambda asked: MANIFEST) as (source, mirror, origin):
        for _ in range(3):
            assert (await source.resolve(REFERENCE))[1] == INDEX
        assert (len(mirror.asked), len(origin.asked)) == (1, 3)


@pytest.mark.parametrize("wrong", [b"{}", b"x" * len(INDEX)], ids=["size", "digest"])
async def test_a_mirror_with_other_bytes_than_the_digest_is_passed_by(wrong: bytes) -> None:
    async with between(lambda asked: answer(body=wrong), lambda asked: MANIFEST) as (source, _, origin):
        assert await source.manifest(INDEX_DESCRIPTOR) == INDEX
        assert len(origin.asked) == 1


async def test_the_origins_own_error_is_the_one_that_is_told() -> None:
    async with between(lambda asked: answer(503), lambda asked: answer(404)) as (source, mirror, origin):
        with pytest.raises(NotFoundError, match=origin.address):
            await source.resolve(REFERENCE)
    async with between(lambda asked: answer(404), lambda asked: answer(503)) as (source, mirror, origin):
        with pytest.raises(UnavailableError, match=origin.address):
            await source.resolve(REFERENCE)
        assert (len(mirror.asked), len(origin.asked)) == (1, 3)


@pytest.mark.parametrize("end", ["close", "reset", "hold"])
async def test_a_blob_that_one_mirror_cuts_goes_on_at_the_next_in_its_middle(end: Any, spans: Spans) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE
    async with between(lambda asked: Raw(head + BLOB[:70_000], end), whole) as (source, mirror, origin):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, spans)) == BLOB
        assert len(mirror.asked) == 1
        (asked,) = origin.asked
    assert asked.headers["range"] == f"bytes=70000-{SIZE - 1}" or end == "reset"


async def test_a_mirror_that_mends_is_asked_again_after_the_others(spans: Spans) -> None:
    answers = iter([answer(503), answer(503)])
    async with between(lambda asked: next(answers, whole(asked)), lambda asked: answer(503)) as (
        source,
        mirror,
        origin,
    ):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, spans)) == BLOB
        assert (len(mirror.asked), len(origin.asked)) == (3, 2)


async def test_a_mirror_that_sent_wrong_bytes_is_asked_last(spans: Spans) -> None:
    wrong = bytes(SIZE)
    async with between(lambda asked: whole(asked, wrong), whole) as (source, mirror, origin):
        assert source.served_by(BLOB_DESCRIPTOR) == ()
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, spans)) == wrong
        assert source.served_by(BLOB_DESCRIPTOR) == (f"http://{mirror.address}/v2",)
        source.report_corrupt(BLOB_DESCRIPTOR, source.served_by(BLOB_DESCRIPTOR))
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, spans)) == BLOB
        assert source.served_by(BLOB_DESCRIPTOR) == (f"http://{origin.address}/v2",)
        source.report_corrupt(BLOB_DESCRIPTOR, source.served_by(BLOB_DESCRIPTOR))
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, spans)) == BLOB  # the origin's is as good as it gets
        assert (len(mirror.asked), len(origin.asked)) == (1, 2)


async def test_a_mirror_that_sent_wrong_bytes_in_an_earlier_run_is_asked_last(spans: Spans) -> None:
    async with between(whole, whole) as (source, mirror, origin):
        source.report_corrupt(BLOB_DESCRIPTOR, [f"http://{mirror.address}/v2", "http://gone.test/v2", "\0"])
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, spans)) == BLOB
        assert (len(mirror.asked), len(origin.asked)) == (0, 1)


async def test_endpoints_are_asked_only_for_what_they_may_be_and_in_their_own_words() -> None:
    async with serving(lambda asked: MANIFEST) as one, serving(lambda asked: MANIFEST) as two:
        registry = Registry(credentials=Credentials())
        tags = endpoint(one.address, pull=False, query=(("ns", "docker.io"),), headers=(("X-Key", "s3cret"),))
        content = endpoint(two.address, resolve=False, path="hub/team/app")
        async with registry:
            source = registry.repository_at(REFERENCE, [tags, content])
            await source.resolve(REFERENCE)
            await source.manifest(INDEX_DESCRIPTOR)
            with pytest.raises(RegistryError, match="no endpoint may be asked for tags"):
                await registry.repository_at(REFERENCE, [content]).resolve(REFERENCE)
    assert [(asked.path, asked.query, asked.headers.get("x-key")) for asked in one.asked] == [
        ("/v2/team/app/manifests/1", (("ns", "docker.io"),), "s3cret")
    ]
    assert [asked.path for asked in two.asked] == [f"/v2/hub/team/app/manifests/{INDEX_DESCRIPTOR.digest}"]


async def test_headers_of_an_endpoint_go_nowhere_else(spans: Spans) -> None:
    async with serving(whole) as cdn:
        to = answer(307, headers={"Location": f"http://{cdn.address}/x"})
        async with serving(lambda asked: to) as mirror, Registry(credentials=Credentials()) as registry:
            where = [endpoint(mirror.address, headers=(("X-Key", "s3cret"), ("X-Key", "too")))]
            assert await drain(registry.repository_at(REFERENCE, where).fetch(BLOB_DESCRIPTOR, 0, spans)) == BLOB
    assert mirror.asked[0].headers["x-key"] == "s3cret, too"
    assert "x-key" not in cdn.asked[0].headers


async def test_a_mirror_gets_its_own_credentials_and_the_origins_never() -> None:
    def guarded(asked: Asked) -> Raw:
        return MANIFEST if "authorization" in asked.headers else unauthorized('Basic realm="x"')

    async with serving(guarded) as mirror, serving(guarded) as origin:
        explicit = Credential("origin", "pw")
        file = AuthFile("auth.json", {mirror.address: Credential("mirror", "pw")})
        async with Registry(credentials=Credentials((file,), explicit=explicit)) as registry:
            for where in ([endpoint(mirror.address)], [endpoint(origin.address, origin=True)]):
                await registry.repository_at(REFERENCE, where).resolve(REFERENCE)
    assert [asked.headers["authorization"] for asked in mirror.asked[1:]] == [basic(Credential("mirror", "pw"))]
    assert [asked.headers["authorization"] for asked in origin.asked[1:]] == [basic(explicit)]


@contextmanager
def deaf() -> Iterator[str]:
    """An address that takes no connection and refuses none: its queue of pending ones is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fill = []
        for _ in range(2):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            fill.append(client)
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for client in fill:
                client.close()


async def test_a_dead_mirror_is_found_out_once_for_all_images_of_a_job() -> None:
    attempts: list[tuple[str, int]] = []
    loop = asyncio.get_running_loop()
    real = loop.sock_connect

    async def watched(sock: socket.socket, address: Any) -> None:
        attempts.append(address)
        await real(sock, address)

    loop.sock_connect = watched  # type: ignore[method-assign]
    with deaf() as dead:
        async with (
            serving(lambda asked: MANIFEST) as origin,
            Registry(credentials=Credentials(), connect_s=0.3) as registry,
        ):

            def pull(number: int) -> Any:
                reference = Reference.parse(f"{origin.address}/team/app{number}:1")
                where = [endpoint(dead), endpoint(origin.address, origin=True)]
                return registry.repository_at(reference, where).resolve(reference)

            await asyncio.gather(*(pull(number) for number in range(30)))
            for number in range(5):
                await pull(number)
        assert len(origin.asked) == 35
    assert sum(f"{host}:{port}" == dead for host, port in attempts) == 1


async def test_a_dead_mirror_alone_is_tried_anew_for_each_request() -> None:
    async with serving(lambda asked: MANIFEST) as server:
        address = server.address
    async with Registry(credentials=Credentials(), chance=lambda: 0.0) as registry:
        source = registry.repository_at(REFERENCE, [endpoint(address)])
        with pytest.raises(ConnectError):
            await source.resolve(REFERENCE)
        port = int(address.rpartition(":")[2])
        listener = await asyncio.start_server(_say_manifest, "127.0.0.1", port)
        async with listener:
            assert (await source.resolve(REFERENCE))[1] == INDEX


async def _say_manifest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(MANIFEST.data)
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("connections", [40, 8])
async def test_a_mirror_that_takes_connections_and_says_nothing_is_asked_last_from_then_on(connections: int) -> None:
    async with (
        serving(lambda asked: Raw(b"", "hold")) as dead,
        serving(lambda asked: MANIFEST) as origin,
        Registry(credentials=Credentials(), connect_s=5.0, read_s=0.3, connections=connections) as registry,
    ):

        def pull(number: int) -> Any:
            reference = Reference.parse(f"{origin.address}/team/app{number}:1")
            where = [endpoint(dead.address), endpoint(origin.address, origin=True)]
            return registry.repository_at(reference, where).resolve(reference)

        await asyncio.gather(*(pull(number) for number in range(30)))
        assert len(dead.asked) <= min(30, connections)  # all in one timeout
        before = len(dead.asked)
        for number in range(30):
            await pull(number)
        assert len(dead.asked) == before
        assert len(origin.asked) == 60
