"""Blobs that come inside a coding that nobody asked for."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

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


async def test_a_resumed_blob_in_gzip_is_decoded_from_its_beginning(buffers: Buffers) -> None:
    """A range of what is encoded is no range of the blob, even where the numbers are."""

    def script(asked: Asked) -> Raw:
        if "range" in asked.headers:
            headers = {"Content-Encoding": "gzip", "Content-Range": f"bytes 1000-{SIZE - 1}/{SIZE}"}
            return answer(206, BLOB[1000:], headers)
        return coded(CODED)

    async with client(script, RetryPolicy()) as (source, server):
        assert await drain(source.fetch(BLOB_DESCRIPTOR, 1000, buffers)) == BLOB[1000:]
    assert ["range" in asked.headers for asked in server.asked] == [True, False]


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (coded(CODED[:-4000], length=len(CODED)), TruncatedError),
        (coded(CODED[:-4000]), TruncatedError),
        (coded(BLOB), TransportError),
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
