"""Against Debian's docker-registry, with images that skopeo copied in."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from fastoci.errors import NotFoundError, UnauthorizedError
from fastoci.image import index, manifest, mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.credentials import Credentials, load
from fastoci.registry.client import Registry
from fastoci.registry.fetch.repository import Repository
from support.scripted_server import Buffers, drain

NAME = "busybox-musl"  # an index, all of whose platforms are there


class Running(Protocol):
    """The fixtures' registry, as far as it matters here."""

    address: str


@pytest.fixture(scope="module")
def image(docker_registry: Running, copy_image: Callable[..., None], shared: Path) -> Reference:
    """A whole index of the shared images, in the registry."""
    copy_image(f"oci:{shared}/images/oci:{NAME}", f"docker://{docker_registry.address}/registry-tests/image:1", "--all")
    return Reference.parse(f"{docker_registry.address}/registry-tests/image:1")


async def _pull(source: Repository, descriptor: Descriptor, data: bytes, buffers: Buffers) -> int:
    """Everything below a manifest or index, verified; the number of blobs."""
    if descriptor.media_type in mediatype.INDEXES:
        counts = [
            await _pull(source, child, await source.manifest(child), buffers)
            for child in index.parse(data, descriptor.media_type).manifests
        ]
        return sum(counts)
    document = manifest.parse(data, descriptor.media_type)
    blobs = [document.config, *document.layers]
    bodies = await asyncio.gather(*(drain(source.fetch(blob, 0, buffers)) for blob in blobs))
    for blob, body in zip(blobs, bodies, strict=True):
        assert (Digest.of(body, blob.digest.algorithm), len(body)) == (blob.digest, blob.size)
    return len(blobs)


async def test_an_image_comes_whole_and_verified(image: Reference, buffers: Buffers) -> None:
    async with Registry(credentials=Credentials()) as registry:
        source = registry.repository(image)
        descriptor, data = await source.resolve(image)
        assert await _pull(source, descriptor, data, buffers) > 1
        again = Reference(image.domain, image.path, None, descriptor.digest)
        assert (await source.resolve(again))[1] == data


async def test_a_blob_is_resumed_at_any_offset(image: Reference, buffers: Buffers) -> None:
    async with Registry(credentials=Credentials()) as registry:
        source = registry.repository(image)
        descriptor, data = await source.resolve(image)
        while descriptor.media_type in mediatype.INDEXES:
            descriptor = index.parse(data, descriptor.media_type).manifests[0]
            data = await source.manifest(descriptor)
        blob = max(manifest.parse(data, descriptor.media_type).layers, key=lambda layer: layer.size)
        whole = await drain(source.fetch(blob, 0, buffers))
        for offset in (1, blob.size // 3, blob.size - 1):
            assert await drain(source.fetch(blob, offset, buffers)) == whole[offset:]


async def test_what_is_not_there_is_not_found(image: Reference, buffers: Buffers) -> None:
    async with Registry(credentials=Credentials()) as registry:
        source = registry.repository(image)
        with pytest.raises(NotFoundError) as caught:
            await source.resolve(Reference(image.domain, image.path, "absent", None))
        assert caught.value.code == "MANIFEST_UNKNOWN"
        with pytest.raises(NotFoundError) as caught:
            await drain(source.fetch(Descriptor.of(b"absent", "x"), 0, buffers))
        assert caught.value.code == "BLOB_UNKNOWN"


async def test_basic_authentication_lets_in_who_is_known(
    private_registry: Running,
    registry_credentials: tuple[str, str],
    copy_image: Callable[..., None],
    shared: Path,
    tmp_path: Path,
    buffers: Buffers,
) -> None:
    user, password = registry_credentials
    copy_image(
        f"oci:{shared}/images/oci:{NAME}",
        f"docker://{private_registry.address}/registry-tests/image:1",
        "--all",
        f"--dest-creds={user}:{password}",
    )
    image = Reference.parse(f"{private_registry.address}/registry-tests/image:1")
    authfile = tmp_path / "auth.json"
    entry = {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}
    authfile.write_text(json.dumps({"auths": {private_registry.address: entry}}))
    async with Registry(credentials=load(authfile)) as registry:
        source = registry.repository(image)
        assert await _pull(source, *await source.resolve(image), buffers) > 1
    for credential, words in ((None, "no credentials for"), (Credential(user, "wrong"), "were not accepted")):
        async with Registry(credentials=Credentials(explicit=credential)) as registry:
            with pytest.raises(UnauthorizedError, match=words):
                await registry.repository(image).resolve(image)


async def test_the_tags_of_a_repository_are_listed(image: Reference) -> None:
    async with Registry(credentials=Credentials()) as registry:
        assert await registry.repository(image).tags() == ("1",)
