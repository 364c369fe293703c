"""An image at several servers of which a test says what they answer: a mirror in front of an origin."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from fastoci.events import Observer
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.limits import Limits
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.config.endpoints import Endpoint
from fastoci.registry.fetch.repository import Repository
from fastoci.registry.fetch.retry import RetryPolicy
from fastoci.registry.http.urls import parse_url
from support.scripted_server import Asked, Raw, Script, Server, answer, serving

REFERENCE = Reference.parse("registry.test/team/app:1")
INDEX = json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}).encode()
MANIFEST = answer(body=INDEX, headers={"Content-Type": mediatype.OCI_INDEX})
INDEX_DESCRIPTOR = Descriptor(mediatype.OCI_INDEX, Digest.of(INDEX), len(INDEX))
BLOB = bytes(range(256)) * 12_000
SIZE = len(BLOB)
BLOB_DESCRIPTOR = Descriptor(mediatype.OCI_LAYER_GZIP, Digest.of(BLOB), SIZE)
MIB = 1 << 20


def whole(asked: Asked, data: bytes = BLOB) -> Raw:
    wanted = asked.headers.get("range")
    if wanted is None:
        return answer(body=data)
    first, last = map(int, wanted.removeprefix("bytes=").split("-"))
    return answer(206, data[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(data)}"})


def endpoint(address: str, **options: Any) -> Endpoint:
    options.setdefault("origin", False)
    return Endpoint(parse_url(f"http://{address}/v2"), options.pop("path", "team/app"), address, **options)


@asynccontextmanager
async def between(
    mirror: Script,
    origin: Script,
    *,
    credentials: Credentials | None = None,
    retry_policy: RetryPolicy | None = None,
    observer: Observer = lambda event: None,
) -> AsyncIterator[tuple[Repository, Server, Server]]:
    """A repository with one mirror in front of the origin."""
    registry = Registry(
        credentials=credentials or Credentials(),
        limits=Limits(read_s=0.5),
        observer=observer,
        retry=replace(retry_policy or RetryPolicy(tries=3), rng=lambda: 0.0),
    )
    async with serving(mirror) as first, serving(origin) as last, registry:
        reference = Reference.parse(f"{last.address}/team/app:1")
        where = [endpoint(first.address), endpoint(last.address, origin=True)]
        yield registry.repository_at(reference, where, image="app:1"), first, last
