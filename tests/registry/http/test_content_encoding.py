"""Blobs that come inside a coding that nobody asked for."""

from __future__ import annotations

import gzip
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from fastoci.errors import FastociError, SizeMismatchError, TransportError, TruncatedError
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.limits import Limits
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.fetch.repository import Repository
from fastoci.registry.fetch.retry import RetryPolicy
from support.scripted_server import Asked, Buffers, Raw, Server, answer, drain, drain_until_error, serving

BLOB = bytes(range(256)) * 12_000  # 3 buffers
SIZE = len(BLOB)
BLOB_DESCRIPTOR = Descriptor(mediatype.OCI_LAYER_GZIP, Digest.of(BLOB), SIZE)
CODED = gzip.compress(BLOB, 6)
HALVES = gzip.compress(BLOB[: SIZE // 2]) + gzip.compress(b"") + gzip.compress(BLOB[SIZE // 2 :])


@asynccontextmanager
async def client(script: Callable[[Asked], Raw], retry_policy: RetryPolicy) -> AsyncIterator[tuple[Repository, Server]]:
    registry = Registry(
        credentials=Credentials(), limits=Limits(read_s=5.0), retry=replace(retry_policy, rng=lambda: 0.0)
    )
    async with serving(script) as server, registry:
        yield registry.repository(Reference.parse(f"{server.address}/team/app:1")), server


def coded(body: bytes, coding: str = "gzip", *, length: int | None = None) -> Raw:
    announced = str(len(body) if length is None else length)
    end = "keep" if length is None else "close"
    return answer(body=body, headers={"Content-Encoding": coding, "Content-Length": announced}, end=end)  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [CODED, gzip.compress(BLOB, 0), HALVES], ids=["small", "large", "three members"])
@pytest.mark.parametrize("coding", ["gzip", "x-gzip", " GZIP "])
async def test_a_blob_in_gzip_is_decoded_once(buffers: Buffers, body: bytes, coding: str) -> None:
    async with client(lambda asked: coded(body, coding), RetryPolicy()) as (source, server):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 0, buffers)) == BLOB
    assert len(server.asked) == 1


@pytest.mark.parametrize(("total", "length"), [("*", SIZE - 1000), (SIZE + 9, SIZE - 1000), (SIZE, SIZE - 1009)])
async def test_a_resumed_blob_in_gzip_is_decoded_from_its_beginning(
    buffers: Buffers, total: int | str, length: int
) -> None:
    """A range of what is encoded is no range of the blob, even where the numbers are."""

    def script(asked: Asked) -> Raw:
        if "range" in asked.headers:
            headers = {"Content-Encoding": "gzip", "Content-Range": f"bytes 1000-{SIZE - 1}/{total}"}
            return answer(206, b"x" * length, headers)
        return coded(CODED)

    async with client(script, RetryPolicy()) as (source, server):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 1000, buffers)) == BLOB[1000:]
    assert ["range" in asked.headers for asked in server.asked] == [True, False]


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (coded(CODED[:-4000], length=len(CODED)), TruncatedError),
        (coded(CODED[:-4000]), TruncatedError),
        (coded(BLOB + b"x"), TransportError),
        (coded(gzip.compress(BLOB + b"x")), SizeMismatchError),
        (coded(gzip.compress(b" " * (64 << 20))), SizeMismatchError),
        (coded(gzip.compress(BLOB[:-1])), TruncatedError),
        (coded(gzip.compress(b"", mtime=0) * 200_000), TransportError),
        (coded(CODED, "br"), TransportError),
        (coded(CODED, "gzip, gzip"), TransportError),
    ],
    ids=[
        "cut",
        "whole, half a member",
        "not gzip",
        "too long",
        "a bomb",
        "too short",
        "members of nothing",
        "br",
        "two",
    ],
)
async def test_what_is_no_blob_in_gzip_is_refused(buffers: Buffers, raw: Raw, kind: type[FastociError]) -> None:
    async with client(lambda asked: raw, RetryPolicy(tries=1)) as (source, _):
        data, error = await drain_until_error(source.fetch(BLOB_DESCRIPTOR, 0, buffers))
    assert type(error) is kind, error
    assert BLOB.startswith(data) or set(data) == {0x20}


# Labels that lie: the bytes are the blob's own.

LAYER = CODED
LAYER_DESCRIPTOR = Descriptor(mediatype.OCI_LAYER_GZIP, Digest.of(LAYER), len(LAYER))
CONFIG = b'{"architecture": "amd64"}' + b" " * 5000
CONFIG_DESCRIPTOR = Descriptor(mediatype.OCI_CONFIG, Digest.of(CONFIG), len(CONFIG))
TAR = b"<html>" + bytes(2000)  # a name that looks like a page
TAR_DESCRIPTOR = Descriptor(mediatype.OCI_LAYER, Digest.of(TAR), len(TAR))
ZSTD = b"\x28\xb5\x2f\xfd" + bytes(2000)
ZSTD_DESCRIPTOR = Descriptor(mediatype.OCI_LAYER_ZSTD, Digest.of(ZSTD), len(ZSTD))
OF = {
    each.digest: data
    for each, data in (
        (LAYER_DESCRIPTOR, LAYER),
        (CONFIG_DESCRIPTOR, CONFIG),
        (TAR_DESCRIPTOR, TAR),
        (ZSTD_DESCRIPTOR, ZSTD),
    )
}
ALL = [LAYER_DESCRIPTOR, CONFIG_DESCRIPTOR, TAR_DESCRIPTOR, ZSTD_DESCRIPTOR]
LABELS = [
    {"Content-Encoding": "gzip"},
    {"Content-Encoding": "GZIP, identity"},
    {"Content-Encoding": "gzip\r\nContent-Encoding: gzip"},
    {"Content-Encoding": "br"},
    {"Content-Encoding": "zstd"},
    {"Content-Encoding": "gzip, gzip"},
    {"Content-Encoding": "UTF-8"},
    {"Content-Encoding": "aws-chunked"},
    {"Content-Encoding": "x-foo, none, binary"},
    {"Content-Encoding": ""},
    {"Content-Type": "text/html"},
    {"Content-Type": "text/html", "Content-Encoding": "gzip"},
    {"Content-Type": "nonsense"},
]


def chunked(body: bytes, headers: dict[str, str], size: int) -> Raw:
    """An answer without a length, in chunks of this size."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return Raw(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{fields}\r\n".encode() + chunks + b"0\r\n\r\n")


@pytest.mark.parametrize("headers", LABELS, ids=str)
@pytest.mark.parametrize("blob", ALL, ids=lambda blob: blob.media_type)
async def test_a_blob_of_the_right_length_is_taken_under_any_label(
    buffers: Buffers, blob: Descriptor, headers: dict[str, str]
) -> None:
    async with client(lambda asked: answer(body=OF[blob.digest], headers=headers), RetryPolicy(tries=1)) as (
        source,
        server,
    ):
        assert await drain(source.fetch(blob, 0, buffers)) == OF[blob.digest]
        assert len(server.asked) == 1


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("headers", LABELS, ids=str)
@pytest.mark.parametrize(
    "blob", [CONFIG_DESCRIPTOR, LAYER_DESCRIPTOR, ZSTD_DESCRIPTOR], ids=lambda blob: blob.media_type
)
async def test_a_blob_without_a_length_is_taken_under_any_label(
    buffers: Buffers, blob: Descriptor, headers: dict[str, str], size: int
) -> None:
    raw = chunked(OF[blob.digest], headers, size)
    async with client(lambda asked: raw, RetryPolicy(tries=1)) as (source, server):
        assert await drain(source.fetch(blob, 0, buffers)) == OF[blob.digest]
        assert len(server.asked) == 1


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize(
    "blob", [CONFIG_DESCRIPTOR, LAYER_DESCRIPTOR, ZSTD_DESCRIPTOR], ids=lambda blob: blob.media_type
)
async def test_a_blob_in_gzip_without_a_length_is_decoded_once(buffers: Buffers, blob: Descriptor, size: int) -> None:
    raw = chunked(gzip.compress(OF[blob.digest]), {"Content-Encoding": "gzip"}, size)
    async with client(lambda asked: raw, RetryPolicy(tries=1)) as (source, _):
        assert await drain(source.fetch(blob, 0, buffers)) == OF[blob.digest]


async def test_a_range_of_the_blob_is_taken_under_any_encoding(buffers: Buffers) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Range": f"bytes 1000-{SIZE - 1}/{SIZE}"}
    async with client(lambda asked: answer(206, BLOB[1000:], headers), RetryPolicy(tries=1)) as (source, server):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 1000, buffers)) == BLOB[1000:]
        assert len(server.asked) == 1


@pytest.mark.attack
@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"<html>log in</html>", {"Content-Type": "text/html"}),
        (b"\xef\xbb\xbf \n<html>log in</html>" * 100, {"Content-Type": "text/html; charset=utf-8"}),
        (gzip.compress(b"<html>log in</html>" * 100), {"Content-Type": "text/html", "Content-Encoding": "gzip"}),
        (b"\x8b\x00\x80" * 100, {"Content-Encoding": "br"}),
        (b" " * 100, {"Content-Type": "text/html"}),
        (b"", {"Content-Type": "text/html"}),
    ],
)
@pytest.mark.parametrize("blob", [CONFIG_DESCRIPTOR, LAYER_DESCRIPTOR], ids=lambda blob: blob.media_type)
async def test_what_is_what_its_label_says_is_no_part_of_a_blob(
    buffers: Buffers, blob: Descriptor, body: bytes, headers: dict[str, str], size: int
) -> None:
    async with client(lambda asked: chunked(body, headers, size), RetryPolicy(tries=3)) as (source, server):
        data, error = await drain_until_error(source.fetch(blob, 0, buffers))
        assert data == b""
        assert isinstance(error, TransportError)
        assert not error.retryable
        assert len(server.asked) == 1


@pytest.mark.attack
async def test_a_gzip_header_that_does_not_end_costs_no_more_than_its_bytes(buffers: Buffers) -> None:
    named = b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * (1 << 18)
    raw = chunked(named, {"Content-Encoding": "gzip"}, 1)
    begun = time.process_time()
    async with client(lambda asked: raw, RetryPolicy(tries=1)) as (source, _):
        _, error = await drain_until_error(source.fetch(LAYER_DESCRIPTOR, 0, buffers))
    assert isinstance(error, FastociError)
    assert time.process_time() - begun < 20
