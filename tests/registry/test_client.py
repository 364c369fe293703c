"""Manifests, indexes and blobs of one registry that answers what a test says.

Covers: registry/fetch/body.py, registry/fetch/repository.py, registry/fetch/resuming_range.py.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from fastoci import _core
from fastoci.errors import (
    ConnectError,
    DigestMismatchError,
    FormatError,
    NotFoundError,
    RegistryError,
    SizeMismatchError,
    TransportError,
    TruncatedError,
)
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.limits import Limits
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.fetch.repository import Repository
from fastoci.registry.fetch.retry import RetryPolicy
from support.schema1_images import payload_of, signed
from support.scripted_server import Asked, Buffers, Raw, Server, answer, drain, drain_until_error, serving

INDEX = json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}).encode()
BLOB = bytes(range(256)) * 12_000  # 3 buffers
HEAD = b"HTTP/1.1 200 OK\r\n"


def described(data: bytes = BLOB, *, size: int | None = None, data_field: bytes | None = None) -> Descriptor:
    return Descriptor(mediatype.OCI_LAYER_GZIP, Digest.of(data), len(data) if size is None else size, data=data_field)


@asynccontextmanager
async def repository(
    script: Callable[[Asked], Raw], *, read_s: float = 5.0, manifest_size: int = 4 << 20
) -> AsyncIterator[tuple[Repository, Server]]:
    async with (
        serving(script) as server,
        Registry(
            credentials=Credentials(),
            limits=Limits(read_s=read_s, manifest_size=manifest_size),
            retry=RetryPolicy(tries=1),
        ) as registry,
    ):
        yield registry.repository(Reference.parse(f"{server.address}/team/app:1")), server


def reference(server: Server, suffix: str = ":1") -> Reference:
    return Reference.parse(f"{server.address}/team/app{suffix}")


def typed(data: bytes, media_type: str | None) -> Raw:
    return answer(body=data, headers={} if media_type is None else {"Content-Type": media_type})


# Manifests.


def told(digest: str) -> Callable[[Asked], Raw]:
    headers = {"Content-Type": mediatype.OCI_INDEX, "Docker-Content-Digest": digest}
    return lambda asked: answer(body=INDEX, headers=headers)


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "sha512:" + "0" * 128])
async def test_a_registry_that_announces_another_digest_than_its_bytes_have_is_not_believed(digest: str) -> None:
    async with repository(told(digest)) as (source, server):
        with pytest.raises(DigestMismatchError, match=f"{server.address}/v2/team/app/manifests/1: expected {digest}"):
            await source.resolve(reference(server))


@pytest.mark.parametrize(
    "digest", ["", "nonsense", "sha384:" + "0" * 96, str(Digest.of(INDEX, "sha512")), str(Digest.of(INDEX))]
)
async def test_a_tag_resolves_to_the_digest_of_the_bytes_served(digest: str) -> None:
    async with repository(told(digest)) as (source, server):
        descriptor, data = await source.resolve(reference(server))
        (asked,) = server.asked
        assert source.name == f"{server.address}/team/app"
    assert data == INDEX
    assert (descriptor.media_type, descriptor.size) == (mediatype.OCI_INDEX, len(INDEX))
    assert descriptor.digest.hex == hashlib.sha256(INDEX).hexdigest()
    assert asked.path == "/v2/team/app/manifests/1"
    assert asked.headers["accept"].split(", ") == list(mediatype.ACCEPT)


async def test_a_digest_resolves_to_itself() -> None:
    async with repository(lambda asked: typed(INDEX, mediatype.OCI_INDEX)) as (source, server):
        for algorithm in ("sha256", "sha512"):
            digest = Digest.of(INDEX, algorithm)
            descriptor, _ = await source.resolve(reference(server, f":1@{digest}"))
            assert descriptor.digest == digest
            assert server.asked[-1].path.endswith(f"/manifests/{digest}")


async def test_other_bytes_than_the_digest_are_a_mismatch() -> None:
    digest = Digest.of(b"other")
    async with repository(lambda asked: typed(INDEX, mediatype.OCI_INDEX)) as (source, server):
        with pytest.raises(DigestMismatchError) as caught:
            await source.resolve(reference(server, f"@{digest}"))
    assert caught.value.expected == str(digest)
    assert caught.value.actual == str(Digest.of(INDEX))


@pytest.mark.parametrize(
    "media_type",
    [
        None,
        "",
        "application/json",
        "text/plain; charset=utf-8",
        "text/html",
        "application/octet-stream",
        "APPLICATION/JSON",
        "application/vnd.example.unknown+json",
        "image/png",
        "nonsense",
        mediatype.DOCKER_SCHEMA1_SIGNED,
        f"{mediatype.DOCKER_LIST}, {mediatype.DOCKER_LIST}",
    ],
)
async def test_a_type_that_says_nothing_is_found_in_the_body(media_type: str | None) -> None:
    async with repository(lambda asked: typed(INDEX, media_type)) as (source, server):
        descriptor, _ = await source.resolve(reference(server))
    assert descriptor.media_type == mediatype.OCI_INDEX


@pytest.mark.attack
@pytest.mark.parametrize("label", [mediatype.OCI_MANIFEST, mediatype.DOCKER_MANIFEST, mediatype.DOCKER_LIST])
async def test_a_document_that_comes_as_another_type_than_it_says_is_taken_by_its_digest_alone(label: str) -> None:
    async with repository(lambda asked: typed(INDEX, label)) as (source, server):
        with pytest.raises(FormatError, match=f"by {Digest.of(INDEX)} in place of its tag it is read as"):
            await source.resolve(reference(server))
        descriptor, _ = await source.resolve(reference(server, f"@{Digest.of(INDEX)}"))
    assert descriptor.media_type == mediatype.OCI_INDEX


@pytest.mark.attack
@pytest.mark.parametrize("label", [mediatype.OCI_INDEX, mediatype.OCI_MANIFEST, "image/png"])
async def test_a_document_that_could_be_two_things_is_refused_whatever_it_comes_as(label: str) -> None:
    both = b'{"schemaVersion":2,"manifests":[],"config":{},"layers":[]}'
    async with repository(lambda asked: typed(both, label)) as (source, server):
        with pytest.raises(FormatError):
            await source.resolve(reference(server))


async def test_parameters_and_case_of_a_type_do_not_matter() -> None:
    async with repository(lambda asked: typed(INDEX, f"{mediatype.OCI_INDEX.upper()}; charset=utf-8")) as (
        source,
        server,
    ):
        descriptor, _ = await source.resolve(reference(server))
    assert descriptor.media_type == mediatype.OCI_INDEX


async def test_a_login_page_is_no_manifest() -> None:
    async with repository(lambda asked: typed(b"<html>log in</html>", "text/html")) as (source, server):
        with pytest.raises(FormatError, match="manifests/1"):
            await source.resolve(reference(server))


@pytest.mark.parametrize("media_type", [mediatype.DOCKER_SCHEMA1_SIGNED, "application/json"])
async def test_schema_1_comes_without_its_signatures(media_type: str) -> None:
    payload = payload_of([Digest.of(b"layer")])
    async with repository(lambda asked: typed(signed(payload), media_type)) as (source, server):
        for named in (":1", f"@{Digest.of(payload)}"):
            descriptor, data = await source.resolve(reference(server, named))
            assert (descriptor, data) == (Descriptor.of(payload, mediatype.DOCKER_SCHEMA1), payload)
        with pytest.raises(DigestMismatchError):
            await source.resolve(reference(server, f"@{Digest.of(signed(payload))}"))


@pytest.mark.attack
async def test_schema_1_whose_signatures_do_not_say_what_they_sign_is_refused() -> None:
    data = signed(payload_of([Digest.of(b"layer")]), "AAAA")
    async with repository(lambda asked: typed(data, mediatype.DOCKER_SCHEMA1_SIGNED)) as (source, server):
        with pytest.raises(FormatError, match="manifests/1: schema 1"):
            await source.resolve(reference(server))


@pytest.mark.parametrize("head", [200, 403, 405])
async def test_the_size_of_a_blob_is_what_the_registry_says(head: int) -> None:
    def script(asked: Asked) -> Raw:
        status = head if asked.method == "HEAD" else 200
        size = 0 if status != 200 else 9
        body = b"123456789" if asked.method == "GET" else b""
        return Raw(f"HTTP/1.1 {status} X\r\nContent-Length: {size}\r\n\r\n".encode() + body)

    async with repository(script) as (source, server):
        assert await source.size_of(Digest.of(b"blob")) == 9
        assert [asked.method for asked in server.asked] == (["HEAD"] if head == 200 else ["HEAD", "GET"])


async def test_a_blob_whose_size_nobody_says_has_none() -> None:
    async with repository(lambda asked: Raw(HEAD + b"Connection: close\r\n\r\n", "close")) as (source, _):
        with pytest.raises(FormatError, match="how large"):
            await source.size_of(Digest.of(b"blob"))


@pytest.mark.parametrize(("size", "fits"), [(999, True), (1000, True), (1001, False)])
async def test_a_manifest_may_be_as_large_as_the_limit(size: int, fits: bool) -> None:
    data = INDEX + b" " * (size - len(INDEX))
    async with repository(lambda asked: typed(data, mediatype.OCI_INDEX), manifest_size=1000) as (source, server):
        if fits:
            assert len((await source.resolve(reference(server)))[1]) == size
        else:
            with pytest.raises(FormatError, match="larger than 1000 bytes"):
                await source.resolve(reference(server))


async def test_an_endless_manifest_is_not_read_to_its_end() -> None:
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    raw = Raw(HEAD + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 16, "hold")
    async with repository(lambda asked: raw) as (source, server):
        with pytest.raises(FormatError, match="larger than"):
            await source.resolve(reference(server))


async def test_a_cut_manifest_is_truncated() -> None:
    raw = Raw(typed(INDEX, mediatype.OCI_INDEX).data[:-5], "close")
    async with repository(lambda asked: raw) as (source, server):
        with pytest.raises(TruncatedError):
            await source.resolve(reference(server))


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, gzip", "UTF-8", "aws-chunked", "identity"])
async def test_a_manifest_is_what_its_bytes_are_whatever_encoding_is_named(encoding: str) -> None:
    async with repository(lambda asked: answer(body=INDEX, headers={"Content-Encoding": encoding})) as (source, server):
        assert (await source.resolve(reference(server)))[1] == INDEX


@pytest.mark.parametrize("encoding", ["gzip", "X-GZIP", "aws-chunked, gzip"])
async def test_a_manifest_in_gzip_is_decoded_once(encoding: str) -> None:
    raw = answer(body=gzip.compress(INDEX), headers={"Content-Encoding": encoding})
    wanted = Descriptor(mediatype.OCI_INDEX, Digest.of(INDEX), len(INDEX))
    async with repository(lambda asked: raw) as (source, server):
        assert await source.resolve(reference(server)) == (wanted, INDEX)
        assert await source.manifest(wanted) == INDEX


@pytest.mark.attack
@pytest.mark.parametrize(
    ("body", "encoding", "kind"),
    [
        (gzip.compress(b" " * (64 << 20)), "gzip", FormatError),
        (gzip.compress(gzip.compress(INDEX)), "gzip", FormatError),
        (gzip.compress(INDEX)[:20], "gzip", FormatError),
        (b"\x8b\x00\x80", "br", TransportError),
        (b"nonsense", "gzip", FormatError),
    ],
)
async def test_a_manifest_in_no_encoding_of_it_is_refused(body: bytes, encoding: str, kind: type[Exception]) -> None:
    async with repository(lambda asked: answer(body=body, headers={"Content-Encoding": encoding})) as (source, server):
        with pytest.raises(kind):
            await source.resolve(reference(server))


async def test_a_missing_manifest_is_not_found() -> None:
    body = b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}'
    async with repository(lambda asked: answer(404, body)) as (source, server):
        with pytest.raises(NotFoundError, match="404 MANIFEST_UNKNOWN") as caught:
            await source.resolve(reference(server))
    assert caught.value.code == "MANIFEST_UNKNOWN"
    assert caught.value.blob is None


async def test_a_missing_manifest_that_an_index_names_is_a_blob_at_fault() -> None:
    wanted = Descriptor(media_type=mediatype.OCI_MANIFEST, digest=Digest.of(b"{}"), size=2)
    async with repository(lambda asked: answer(404)) as (source, _):
        with pytest.raises(NotFoundError) as caught:
            await source.manifest(wanted)
    assert caught.value.blob == str(wanted.digest)


@pytest.mark.parametrize("status", [204, 206, 302, 304, 400])
async def test_any_other_success_is_no_manifest(status: int) -> None:
    async with repository(lambda asked: answer(status)) as (source, server):
        with pytest.raises(RegistryError):
            await source.resolve(reference(server))


async def test_a_manifest_by_descriptor_is_verified() -> None:
    async with repository(lambda asked: typed(INDEX, mediatype.OCI_INDEX)) as (source, server):
        assert await source.manifest(described(INDEX)) == INDEX
        assert server.asked[0].path == f"/v2/team/app/manifests/{Digest.of(INDEX)}"
        with pytest.raises(DigestMismatchError):
            await source.manifest(described(b"x" * len(INDEX)))
        for size in (len(INDEX) - 1, len(INDEX) + 1):
            with pytest.raises(SizeMismatchError) as caught:
                await source.manifest(described(INDEX, size=size))
            assert caught.value.expected == size
        with pytest.raises(FormatError, match="more than"):
            await source.manifest(described(INDEX, size=1 << 40))


async def test_a_manifest_that_the_descriptor_carries_needs_no_request() -> None:
    async with repository(lambda asked: answer(500)) as (source, server):
        assert await source.manifest(described(INDEX, data_field=INDEX)) == INDEX
        assert not server.asked


# Blobs.


@pytest.mark.parametrize("data", [b"x", BLOB, b"y" * _core.BUFFER_SIZE, b"z" * (2 * _core.BUFFER_SIZE + 1)])
async def test_a_blob_comes_whole_in_full_buffers(data: bytes, buffers: Buffers) -> None:
    async with repository(lambda asked: answer(body=data)) as (source, server):
        assert await drain(source.fetch(described(data), 0, buffers)) == data
        assert buffers.taken == -(-len(data) // _core.BUFFER_SIZE)
        assert "range" not in server.asked[0].headers
        assert server.asked[0].path == f"/v2/team/app/blobs/{Digest.of(data)}"


async def test_a_blob_goes_through_a_pool_of_one_buffer() -> None:
    buffers = Buffers(_core.BUFFER_SIZE)
    async with repository(lambda asked: answer(body=BLOB)) as (source, _):
        assert await drain(source.fetch(described(), 0, buffers)) == BLOB
    assert buffers.pool.in_use == 0
    buffers.pool.on_release = None


async def test_a_blob_without_length_or_in_chunks_is_accepted(buffers: Buffers) -> None:
    chunked = b"".join(b"1;ext=1\r\n%c\r\n" % byte for byte in BLOB[:2000]) + b"0\r\nX-Trailer: 1\r\n\r\n"
    for raw in (
        Raw(b"HTTP/1.0 200 OK\r\n\r\n" + BLOB[:2000], "close"),
        Raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked),
    ):
        async with repository(lambda asked, raw=raw: raw) as (source, _):  # type: ignore[misc]
            assert await drain(source.fetch(described(BLOB[:2000]), 0, buffers)) == BLOB[:2000]


async def test_nothing_is_asked_when_nothing_is_missing(buffers: Buffers) -> None:
    async with repository(lambda asked: answer(500)) as (source, server):
        assert await drain(source.fetch(described(b""), 0, buffers)) == b""
        assert await drain(source.fetch(described(), len(BLOB), buffers)) == b""
        assert await drain(source.fetch(described(data_field=BLOB), 7, buffers)) == BLOB[7:]
        assert not server.asked


async def test_carried_data_that_does_not_hold_is_ignored(buffers: Buffers) -> None:
    async with repository(lambda asked: answer(body=b"good")) as (source, _):
        assert await drain(source.fetch(described(b"good", data_field=b"evil"), 0, buffers)) == b"good"


@pytest.mark.parametrize("offset", [-1, len(BLOB) + 1])
async def test_an_offset_outside_is_a_mistake_of_the_caller(offset: int, buffers: Buffers) -> None:
    async with repository(lambda asked: answer(500)) as (source, _):
        with pytest.raises(ValueError, match="offset"):
            await drain(source.fetch(described(), offset, buffers))


def partial(content_range: str | None, data: bytes, headers: dict[str, str] | None = None) -> Raw:
    fields = dict(headers or {})
    if content_range is not None:
        fields["Content-Range"] = content_range
    return answer(206, data, fields)


@pytest.mark.parametrize("offset", [1, 1_048_576, len(BLOB) - 1])
@pytest.mark.parametrize("total", [str(len(BLOB)), "*"])
async def test_a_resumed_blob_is_asked_for_by_a_closed_range(offset: int, total: str, buffers: Buffers) -> None:
    content_range = f"bytes {offset}-{len(BLOB) - 1}/{total}"
    async with repository(lambda asked: partial(content_range, BLOB[offset:])) as (source, server):
        assert await drain(source.fetch(described(), offset, buffers)) == BLOB[offset:]
        assert [asked.headers.get("range") for asked in server.asked] == [f"bytes={offset}-{len(BLOB) - 1}"]


async def test_a_server_that_ignores_ranges_costs_no_second_request(buffers: Buffers) -> None:
    async with repository(lambda asked: answer(body=BLOB)) as (source, server):
        assert await drain(source.fetch(described(), 1_500_000, buffers)) == BLOB[1_500_000:]
        assert len(server.asked) == 1


SIZE = len(BLOB)
BAD_RANGES = [
    f"bytes 0-99/{SIZE}",
    f"bytes 100-{SIZE - 2}/{SIZE}",
    f"bytes 101-{SIZE - 1}/{SIZE}",
    f"bytes 100-{SIZE - 1}/{SIZE + 1}",
    f"bytes 100-{SIZE}/{SIZE + 1}",
    "bytes */10",
    "nonsense",
    None,
]


@pytest.mark.parametrize("content_range", BAD_RANGES)
async def test_a_range_that_is_not_the_one_asked_for_starts_again(content_range: str | None, buffers: Buffers) -> None:
    def script(asked: Asked) -> Raw:
        if "range" in asked.headers:
            return partial(content_range, b"wrong" * 20, {"Content-Type": "multipart/byteranges; boundary=x"})
        return answer(body=BLOB)

    async with repository(script) as (source, server):
        assert await drain(source.fetch(described(), 100, buffers)) == BLOB[100:]
        assert [asked.headers.get("range") is not None for asked in server.asked] == [True, False]


async def test_416_starts_again_once(buffers: Buffers) -> None:
    def script(asked: Asked) -> Raw:
        ranged = answer(416, headers={"Content-Range": f"bytes */{SIZE}"})
        return ranged if "range" in asked.headers else answer(body=BLOB)

    async with repository(script) as (source, server):
        assert await drain(source.fetch(described(), 100, buffers)) == BLOB[100:]
        assert len(server.asked) == 2


@pytest.mark.parametrize("status", [206, 416])
async def test_a_server_that_has_only_partial_answers_is_refused(status: int, buffers: Buffers) -> None:
    async with repository(lambda asked: answer(status)) as (source, server):
        with pytest.raises(RegistryError):
            await drain(source.fetch(described(), 100, buffers))
        assert len(server.asked) == 2


@pytest.mark.parametrize("more", [-1, 1, 5, 1 << 30])
async def test_another_length_is_refused_before_a_byte_is_used(more: int, buffers: Buffers) -> None:
    raw = Raw(HEAD + f"Content-Length: {SIZE + more}\r\n\r\n".encode() + BLOB, "hold")
    async with repository(lambda asked: raw) as (source, _):
        data, error = await drain_until_error(source.fetch(described(), 0, buffers))
    assert data == b""
    assert isinstance(error, SizeMismatchError)
    assert (error.expected, error.actual) == (SIZE, SIZE + more)
    assert buffers.taken == 0


async def test_another_length_of_a_range_is_refused(buffers: Buffers) -> None:
    content_range = f"bytes 100-{SIZE - 1}/{SIZE}"
    async with repository(lambda asked: partial(content_range, BLOB[100:-1])) as (source, _):
        data, error = await drain_until_error(source.fetch(described(), 100, buffers))
    assert data == b""
    assert isinstance(error, SizeMismatchError)


@pytest.mark.parametrize("extra", [b"!", b"!" * 5_000_000])
async def test_a_body_that_goes_on_is_refused_and_its_bytes_are_not_passed_on(extra: bytes, buffers: Buffers) -> None:
    raw = Raw(b"HTTP/1.0 200 OK\r\n\r\n" + BLOB + extra, "hold" if len(extra) > 1 else "close")
    async with repository(lambda asked: raw) as (source, _):
        data, error = await drain_until_error(source.fetch(described(), 0, buffers))
    assert BLOB.startswith(data)
    assert isinstance(error, SizeMismatchError)
    assert isinstance(error.actual, int)
    assert error.actual > SIZE


@pytest.mark.parametrize("arrived", [0, 1, 1_048_576, 1_500_000, SIZE - 1])
@pytest.mark.parametrize("framing", ["length", "none"])
async def test_a_cut_body_yields_what_arrived_and_then_the_error(arrived: int, framing: str, buffers: Buffers) -> None:
    head = HEAD + f"Content-Length: {SIZE}\r\n\r\n".encode() if framing == "length" else b"HTTP/1.0 200 OK\r\n\r\n"
    async with repository(lambda asked: Raw(head + BLOB[:arrived], "close")) as (source, _):
        data, error = await drain_until_error(source.fetch(described(), 0, buffers))
    assert isinstance(error, TruncatedError)
    assert BLOB.startswith(data)
    assert error.received >= len(data)
    if framing == "none":
        assert len(data) == error.received == arrived


async def test_a_body_cut_by_a_reset_is_truncated(buffers: Buffers) -> None:
    head = HEAD + f"Content-Length: {SIZE}\r\n\r\n".encode()
    async with repository(lambda asked: Raw(head + BLOB[:-1000], "reset")) as (source, _):
        data, error = await drain_until_error(source.fetch(described(), 0, buffers))
    assert isinstance(error, TransportError)
    assert BLOB.startswith(data)


async def test_a_missing_blob_is_not_found(buffers: Buffers) -> None:
    async with repository(lambda asked: answer(404)) as (source, _):
        for offset in (0, 5):
            with pytest.raises(NotFoundError):
                await drain(source.fetch(described(), offset, buffers))


async def test_a_fetch_that_is_closed_early_ends_the_transfer(buffers: Buffers) -> None:
    size = 64 << 20
    head = HEAD + f"Content-Length: {size}\r\n\r\n".encode()
    async with repository(lambda asked: Raw(head + bytes(8 << 20), "hold")) as (source, server):
        fetch = source.fetch(described(b"x", size=size), 0, buffers)
        (await anext(fetch)).release()
        await fetch.aclose()
        fetch = source.fetch(described(b"x", size=size), 0, buffers)
        (await anext(fetch)).release()
        await fetch.aclose()
        assert server.connections == 2


async def test_a_fetch_that_is_cancelled_anywhere_gives_its_buffer_back(buffers: Buffers) -> None:
    head = HEAD + f"Content-Length: {SIZE}\r\n\r\n".encode()
    async with repository(lambda asked: Raw(head + BLOB[: SIZE // 2], "hold")) as (source, server):
        for turns in range(0, 120, 3):
            task = asyncio.create_task(drain(source.fetch(described(), 0, buffers)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert buffers.pool.in_use == 0
        assert server.connections > 1


async def test_many_blobs_at_once_come_right(buffers: Buffers) -> None:
    blobs = {str(Digest.of(data)): data for data in (bytes([n]) * (n * 40_000 + 1) for n in range(40))}
    async with repository(lambda asked: answer(body=blobs[asked.path.rpartition("/")[2]])) as (source, server):
        fetches = [drain(source.fetch(described(data), 0, buffers)) for data in blobs.values()]
        assert await asyncio.gather(*fetches) == list(blobs.values())
        assert server.connections <= 8


async def test_a_blob_is_followed_to_where_the_registry_keeps_it(buffers: Buffers) -> None:
    offset = 1000
    partially = partial(f"bytes {offset}-{SIZE - 1}/{SIZE}", BLOB[offset:])
    async with serving(lambda asked: partially) as cdn:
        to = f"http://{cdn.address}/bucket/x?X-Amz-Signature=a%2Fb"
        async with repository(lambda asked: answer(307, headers={"Location": to})) as (source, _):
            assert await drain(source.fetch(described(), offset, buffers)) == BLOB[offset:]
        assert cdn.asked[0].headers["range"] == f"bytes={offset}-{SIZE - 1}"


# Schemes.


def registry(*, tls_verify: bool) -> Registry:
    return Registry(
        credentials=Credentials(),
        tls_verify=tls_verify,
        limits=Limits(connect_s=5.0, read_s=5.0),
        retry=RetryPolicy(tries=1),
    )


async def test_other_hosts_are_asked_by_https_only(names: dict[str, str]) -> None:
    names["registry.test"] = "127.0.0.1"
    async with serving(lambda asked: typed(INDEX, mediatype.OCI_INDEX)) as server, registry(tls_verify=True) as client:
        asked = Reference.parse(f"registry.test:{server.port}/a:1")
        with pytest.raises(ConnectError, match="does not speak TLS"):
            await client.repository(asked).resolve(asked)
        assert not server.asked


async def test_without_verification_http_is_tried_after_https_and_remembered(names: dict[str, str]) -> None:
    names["registry.test"] = "127.0.0.1"
    async with serving(lambda asked: typed(INDEX, mediatype.OCI_INDEX)) as server, registry(tls_verify=False) as client:
        asked = Reference.parse(f"registry.test:{server.port}/a:1")
        for _ in range(3):
            await client.repository(asked).resolve(asked)
        assert len(server.asked) == 3
        assert server.connections == 2


async def test_without_verification_https_comes_first(
    names: dict[str, str], certified: Callable[..., ssl.SSLContext]
) -> None:
    names["registry.test"] = "127.0.0.1"
    script = lambda asked: typed(INDEX, mediatype.OCI_INDEX)  # noqa: E731
    async with serving(script, tls=certified("other.test")) as server, registry(tls_verify=False) as client:
        asked = Reference.parse(f"registry.test:{server.port}/a:1")
        await client.repository(asked).resolve(asked)
        assert server.connections == 1


async def test_a_host_that_refuses_both_schemes_gives_the_first_error(names: dict[str, str]) -> None:
    names["registry.test"] = "127.0.0.1"
    async with registry(tls_verify=False) as client:
        asked = Reference.parse("registry.test:1/a:1")
        with pytest.raises(ConnectError, match=r"https://registry.test:1/.*connection refused"):
            await client.repository(asked).resolve(asked)


async def test_a_host_behind_a_redirect_that_is_down_is_no_reason_for_http(
    names: dict[str, str], certified: Callable[..., ssl.SSLContext]
) -> None:
    names["registry.test"] = "127.0.0.1"
    to = answer(307, headers={"Location": "https://127.0.0.1:1/x"})
    async with (
        serving(lambda asked: to, tls=certified("registry.test")) as server,
        registry(tls_verify=False) as client,
    ):
        asked = Reference.parse(f"registry.test:{server.port}/a:1")
        with pytest.raises(ConnectError, match=r"127\.0\.0\.1:1/x.*connection refused"):
            await client.repository(asked).resolve(asked)
        assert server.connections == 1


async def test_loopback_on_443_is_https() -> None:
    async with registry(tls_verify=True) as client:
        asked = Reference.parse("127.0.0.1:443/a:1")
        with pytest.raises(ConnectError, match=r"https://127\.0\.0\.1/v2/a/manifests/1"):
            await client.repository(asked).resolve(asked)
