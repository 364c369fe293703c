"""Several places for one repository: in order, in mid-blob, dead ones once, wrong ones no more.

Covers: registry/fetch/session.py.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fastoci.errors import ConnectError, FormatError, IntegrityError, NotFoundError, RegistryError, UnavailableError
from fastoci.image import mediatype
from fastoci.image.reference import Reference
from fastoci.limits import Limits
from fastoci.registry.auth.auth_file import AuthFile
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.auth.tokens import basic
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
from support.scripted_server import Asked, Buffers, Raw, answer, drain, serving, unauthorized


async def test_the_first_that_has_it_is_asked_alone() -> None:
    async with between(lambda asked: MANIFEST, lambda asked: MANIFEST) as (source, mirror, origin):
        assert (await source.resolve(REFERENCE))[1] == INDEX
        assert (len(mirror.asked), len(origin.asked)) == (1, 0)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_what_a_mirror_refuses_the_origin_is_asked_for_at_once(status: int) -> None:
    async with between(lambda asked: answer(status), lambda asked: MANIFEST) as (source, mirror, origin):
        assert (await source.resolve(REFERENCE))[1] == INDEX
        asked_how = ["/v2/"] * (status in (401, 403, 404))
        assert mirror.paths() == ["/v2/team/app/manifests/1", *asked_how]
        assert len(origin.asked) == 1


async def test_a_mirror_that_wants_a_pause_of_a_day_costs_no_wait() -> None:
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


async def test_the_origins_own_error_is_the_one_that_is_raised() -> None:
    async with between(lambda asked: answer(503), lambda asked: answer(404)) as (source, mirror, origin):
        with pytest.raises(NotFoundError, match=origin.address):
            await source.resolve(REFERENCE)
    async with between(lambda asked: answer(404), lambda asked: answer(503)) as (source, mirror, origin):
        with pytest.raises(UnavailableError, match=origin.address):
            await source.resolve(REFERENCE)
        assert (mirror.paths(), len(origin.asked)) == (["/v2/team/app/manifests/1", "/v2/"], 3)


@pytest.mark.parametrize("end", ["close", "reset", "hold"])
async def test_a_blob_that_one_mirror_cuts_goes_on_at_the_next_in_its_middle(end: Any, buffers: Buffers) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE
    async with between(lambda asked: Raw(head + BLOB[:70_000], end), whole) as (source, mirror, origin):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert len(mirror.asked) == 1
        (asked,) = origin.asked
    assert asked.headers["range"] == f"bytes=70000-{SIZE - 1}" or end == "reset"


@pytest.mark.attack
async def test_a_body_that_does_not_end_after_its_last_byte_holds_the_blob_for_a_second(buffers: Buffers) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % SIZE
    registry = Registry(credentials=Credentials(), limits=Limits(read_s=60.0))
    async with serving(lambda asked: Raw(head + BLOB + b"\r\n", "hold")) as server, registry:
        source = registry.repository_at(REFERENCE, [endpoint(server.address, origin=True)])
        async with asyncio.timeout(30):
            assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB


@pytest.mark.attack
async def test_a_mirror_that_redirects_slowly_and_for_ever_is_no_longer_waited_for_than_for_an_answer(
    buffers: Buffers,
) -> None:
    def mirror(asked: Asked) -> Raw:
        location = f"{asked.path}?{len(asked.query)}"
        redirect = answer(307, headers={"Location": location, "X-Fill": "x" * 120}).data
        return Raw(b"HTTP/1.1 103 X\r\n\r\n" + redirect, rate=1000)

    async with between(mirror, whole) as (source, first, last):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert 3 <= len(first.asked) <= 5 and len(last.asked) == 1


async def test_a_mirror_that_mends_is_asked_again_after_the_others(buffers: Buffers) -> None:
    answers = iter([answer(503), answer(503)])
    async with between(lambda asked: next(answers, whole(asked)), lambda asked: answer(503)) as (
        source,
        mirror,
        origin,
    ):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert (len(mirror.asked), len(origin.asked)) == (3, 2)


async def test_a_mirror_that_sent_wrong_bytes_is_asked_last(buffers: Buffers) -> None:
    wrong = bytes(SIZE)
    async with between(lambda asked: whole(asked, wrong), whole) as (source, mirror, origin):
        assert source.served_by(BLOB_DESCRIPTOR) == ()
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == wrong
        assert source.served_by(BLOB_DESCRIPTOR) == (f"http://{mirror.address}/v2",)
        source.report_corrupt(BLOB_DESCRIPTOR, source.served_by(BLOB_DESCRIPTOR))
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert source.served_by(BLOB_DESCRIPTOR) == (f"http://{origin.address}/v2",)
        source.report_corrupt(BLOB_DESCRIPTOR, source.served_by(BLOB_DESCRIPTOR))
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB  # the origin's is as good as it gets
        assert (len(mirror.asked), len(origin.asked)) == (1, 2)


async def test_a_mirror_that_sent_wrong_bytes_in_an_earlier_run_is_asked_last(buffers: Buffers) -> None:
    async with between(whole, whole) as (source, mirror, origin):
        source.report_corrupt(BLOB_DESCRIPTOR, [f"http://{mirror.address}/v2", "http://gone.test/v2", "\0"])
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert (len(mirror.asked), len(origin.asked)) == (0, 1)


@pytest.mark.attack
@pytest.mark.parametrize("trouble", ["an error", "a cut"])
async def test_what_passes_at_the_registry_gives_a_mirror_that_sent_wrong_bytes_no_other_go(
    trouble: str, buffers: Buffers
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE
    troubles = iter([answer(503) if trouble == "an error" else Raw(head + BLOB[:70_000], "close")] * 2)
    async with between(lambda asked: whole(asked, bytes(SIZE)), lambda asked: next(troubles, whole(asked))) as (
        source,
        mirror,
        origin,
    ):
        source.report_corrupt(BLOB_DESCRIPTOR, [f"http://{mirror.address}/v2"])
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert (len(mirror.asked), len(origin.asked)) == (0, 3)


async def test_a_mirror_that_sent_wrong_bytes_is_asked_when_the_registry_has_had_all_its_tries(
    buffers: Buffers,
) -> None:
    async with between(whole, lambda asked: answer(503)) as (source, mirror, origin):
        source.report_corrupt(BLOB_DESCRIPTOR, [f"http://{mirror.address}/v2"])
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert (len(mirror.asked), len(origin.asked)) == (1, 3)


async def test_where_both_sent_wrong_bytes_the_registry_has_all_its_tries_first(buffers: Buffers) -> None:
    """A mirror that cuts what it sent wrong makes its successor look as bad: nobody knows whose bytes they were."""
    troubles = iter([answer(503)])
    async with between(lambda asked: whole(asked, bytes(SIZE)), lambda asked: next(troubles, whole(asked))) as (
        source,
        mirror,
        origin,
    ):
        source.report_corrupt(BLOB_DESCRIPTOR, [f"http://{each.address}/v2" for each in (mirror, origin)])
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert (len(mirror.asked), len(origin.asked)) == (0, 2)


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


async def test_headers_of_an_endpoint_go_nowhere_else(buffers: Buffers) -> None:
    async with serving(whole) as cdn:
        to = answer(307, headers={"Location": f"http://{cdn.address}/x"})
        async with serving(lambda asked: to) as mirror, Registry(credentials=Credentials()) as registry:
            where = [endpoint(mirror.address, headers=(("X-Key", "s3cret"), ("X-Key", "too")))]
            assert await drain(registry.repository_at(REFERENCE, where).fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
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
            Registry(credentials=Credentials(), limits=Limits(connect_s=0.3)) as registry,
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
    async with Registry(credentials=Credentials(), retry=RetryPolicy(rng=lambda: 0.0)) as registry:
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
        Registry(
            credentials=Credentials(), limits=Limits(connect_s=5.0, read_s=0.3, connections=connections)
        ) as registry,
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


# A 200 that is something else.

PAGE = b"<html><body>Welcome to our network</body></html>"
MANIFEST_BODY = json.dumps(
    {
        "schemaVersion": 2,
        "config": {"mediaType": mediatype.OCI_CONFIG, "digest": f"sha256:{'0' * 64}", "size": 2},
        "layers": [],
    }
).encode()


@pytest.mark.attack
@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("text/html", PAGE),
        ("", PAGE),
        ("application/json", PAGE),
        (mediatype.OCI_MANIFEST, PAGE),
        (mediatype.OCI_MANIFEST, b""),
        (mediatype.OCI_MANIFEST, b"null"),
        (mediatype.OCI_MANIFEST, MANIFEST_BODY[:-9]),
        ("application/json", b'{"schemaVersion":2,"mediaType":"application/vnd.acme.unknown+json"}'),
        (mediatype.DOCKER_SCHEMA1, b'{"schemaVersion":1}'),
        (mediatype.OCI_INDEX, MANIFEST_BODY),
        (mediatype.OCI_MANIFEST, INDEX),
        (mediatype.DOCKER_LIST, INDEX),
    ],
)
async def test_a_mirror_whose_manifest_is_something_else_is_passed_by(media_type: str, body: bytes) -> None:
    def mirror(asked: Asked) -> Raw:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nContent-Type: {media_type}\r\n\r\n"
        return Raw(head.encode(errors="surrogateescape") + body)

    async with between(mirror, lambda asked: MANIFEST) as (source, _, origin):
        assert (await source.resolve(REFERENCE))[1] == INDEX
        assert len(origin.asked) == 1


@pytest.mark.parametrize(
    ("media_type", "body", "own"),
    [
        ("application/json", MANIFEST_BODY, mediatype.OCI_MANIFEST),
        (mediatype.OCI_CONFIG, INDEX, mediatype.OCI_INDEX),
        ("application/vnd.acme.unknown+json", INDEX, mediatype.OCI_INDEX),
        ("application/vnd.oci.image.index.v1\udcff+json", INDEX, mediatype.OCI_INDEX),
    ],
)
async def test_a_manifest_of_a_mirror_is_what_it_says_itself(media_type: str, body: bytes, own: str) -> None:
    def mirror(asked: Asked) -> Raw:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nContent-Type: {media_type}\r\n\r\n"
        return Raw(head.encode(errors="surrogateescape") + body)

    async with between(mirror, lambda asked: MANIFEST) as (source, _, origin):
        descriptor, data = await source.resolve(REFERENCE)
        assert (descriptor.media_type, data) == (own, body)
        assert not origin.asked


@pytest.mark.attack
@pytest.mark.parametrize("framing", ["chunked", "close", "gzip", "length"])
async def test_a_page_instead_of_a_blob_is_not_a_part_of_it(framing: str, buffers: Buffers) -> None:
    body, end = PAGE, "keep"
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
    if framing == "chunked":
        head, body = head + "Transfer-Encoding: chunked\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(PAGE), PAGE)
    elif framing == "gzip":
        body = gzip.compress(PAGE)
        head += f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n"
    elif framing == "length":
        head += f"Content-Length: {len(PAGE)}\r\n"
    else:
        end = "close"
    page = Raw(f"{head}\r\n".encode() + body, end)  # type: ignore[arg-type]
    async with between(lambda asked: page, whole) as (source, _, origin):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert source.served_by(BLOB_DESCRIPTOR) == (f"http://{origin.address}/v2",)


async def test_a_blob_that_a_server_takes_for_html_is_a_blob_all_the_same(buffers: Buffers) -> None:
    def script(asked: Asked) -> Raw:
        return answer(body=BLOB, headers={"Content-Type": "text/html"})

    async with between(script, lambda asked: answer(404)) as (source, _, _):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB


# A manifest that is wrong once.


@pytest.mark.parametrize(
    "once",
    [
        answer(body=INDEX[:-9], headers={"Content-Type": mediatype.OCI_INDEX}),
        answer(body=INDEX.replace(b"2", b"3"), headers={"Content-Type": mediatype.OCI_INDEX}),
        answer(body=PAGE, headers={"Content-Type": "text/html"}),
        answer(body=b"", headers={"Content-Type": mediatype.OCI_INDEX}),
        Raw(MANIFEST.data[:-9], "close"),
    ],
    ids=["short", "flipped", "page", "empty", "cut"],
)
@pytest.mark.parametrize("by", ["tag", "digest", "descriptor"])
async def test_a_manifest_that_is_wrong_once_is_asked_for_once_more(once: Raw, by: str) -> None:
    answers = iter([once])
    async with between(lambda asked: answer(404), lambda asked: next(answers, MANIFEST)) as (source, _, origin):
        if by == "descriptor":
            assert await source.manifest(INDEX_DESCRIPTOR) == INDEX
        else:
            pinned = Reference.parse(f"registry.test/team/app@{INDEX_DESCRIPTOR.digest}")
            assert (await source.resolve(pinned if by == "digest" else REFERENCE))[1] == INDEX
        assert sum(path != "/v2/" for path in origin.paths()) == 2


async def test_a_page_in_place_of_a_manifest_is_called_one() -> None:
    page = answer(body=PAGE, headers={"Content-Type": "text/html"})
    async with between(lambda asked: answer(404), lambda asked: page) as (source, _, origin):
        with pytest.raises(FormatError, match=rf"{origin.address}.*a page for people came in place of a manifest"):
            await source.resolve(REFERENCE)


async def test_a_manifest_that_stays_wrong_is_an_error_after_the_second_time() -> None:
    wrong = answer(body=b"{}")
    async with between(lambda asked: wrong, lambda asked: wrong) as (source, mirror, origin):
        with pytest.raises(IntegrityError):
            await source.manifest(INDEX_DESCRIPTOR)
        assert (len(mirror.asked), len(origin.asked)) == (2, 2)


@pytest.mark.attack
async def test_a_mirror_that_wants_a_pause_of_a_minute_costs_no_wait(buffers: Buffers) -> None:
    def mirror(asked: Asked) -> Raw:
        return answer(429, headers={"Retry-After": "50"})

    async with between(mirror, lambda asked: MANIFEST if "/manifests/" in asked.path else whole(asked)) as (
        source,
        first,
        last,
    ):
        async with asyncio.timeout(25):
            assert (await source.resolve(REFERENCE))[1] == INDEX
            assert await source.manifest(INDEX_DESCRIPTOR) == INDEX
            assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
        assert (len(first.asked), len(last.asked)) == (1, 3)


@pytest.mark.attack
async def test_a_mirror_that_falls_silent_twice_in_a_row_is_asked_last_from_then_on() -> None:
    half = Raw(MANIFEST.data[:-9], "hold")
    async with between(lambda asked: half, lambda asked: MANIFEST) as (source, mirror, origin):
        for _ in range(5):
            assert (await source.resolve(REFERENCE))[1] == INDEX
        assert (len(mirror.asked), len(origin.asked)) == (2, 5)


async def test_a_mirror_that_falls_silent_now_and_then_is_asked_first_all_the_same() -> None:
    half = Raw(MANIFEST.data[:-9], "hold")
    answers = iter([half, MANIFEST, half, MANIFEST])
    async with between(lambda asked: next(answers), lambda asked: MANIFEST) as (source, mirror, origin):
        for _ in range(4):
            assert (await source.resolve(REFERENCE))[1] == INDEX
        assert (len(mirror.asked), len(origin.asked)) == (4, 2)


@pytest.mark.attack
async def test_a_mirror_that_has_no_manifests_left_for_a_minute_costs_no_wait() -> None:
    counted = answer(404, headers={"RateLimit-Remaining": "0;w=50"})
    async with between(lambda asked: counted, lambda asked: MANIFEST) as (source, mirror, origin):
        async with asyncio.timeout(25):
            assert (await source.resolve(REFERENCE))[1] == INDEX
            assert (await source.resolve(REFERENCE))[1] == INDEX
        assert [path for path in mirror.paths() if path != "/v2/"] == ["/v2/team/app/manifests/1"]
        assert len(origin.asked) == 2
