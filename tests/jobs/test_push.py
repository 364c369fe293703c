"""Whole images out of a store into registries: the loopback one, and Debian's docker-registry, which skopeo reads.

Covers: jobs/push.py, testing/uploads.py, registry/push/repository.py.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from fastoci import Engine
from fastoci.errors import BlobNotFoundError, RegistryError
from fastoci.image.reference import Reference
from fastoci.jobs.push import Pushed, push
from fastoci.registry.auth.credential import Credential
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.push.repository import PushRepository
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.memory_store import MemoryStore
from fastoci.testing.registry import Registry as Server
from fastoci.testing.suites.image_sink import StoreSource, fill
from fastoci.testing.uploads import Uploads
from support.streaming import streams


class Running(Protocol):
    """The fixtures' registry, as far as it matters here."""

    address: str


IMAGE = Image.build([Layer.build([Entry("one", data=b"1" * 3_000_000)]), Layer.build([Entry("two", data=b"2")])])
INDEX = Index.build([IMAGE])
BLOBS = [blob for blob, _ in IMAGE.blobs()]


@asynccontextmanager
async def destination(
    reference: str, credentials: Credentials | None = None, *, mount_from: str = ""
) -> AsyncIterator[PushRepository]:
    async with streams() as streaming, Registry(credentials=credentials or Credentials()) as registry:
        yield registry.destination(Reference.parse(reference), streaming, mount_from=mount_from)


async def store_of(image: Image) -> StoreSource:
    store = MemoryStore()
    await fill(store, image)
    return StoreSource(store)


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    (tmp_path / "pushed").mkdir()
    return Uploads(tmp_path / "pushed")


async def test_an_image_that_was_pushed_can_be_pulled(uploads: Uploads, tmp_path: Path) -> None:
    store = await store_of(IMAGE)
    async with Server(uploads=uploads) as server:
        name = f"{server.address}/team/app:1"
        async with destination(name) as repository:
            sent = sum(blob.size for blob in BLOBS)
            assert await push(store, repository, BLOBS, list(INDEX.documents()), "1") == Pushed(0, 0, 3, sent)
            assert await push(store, repository, BLOBS, list(INDEX.documents()), "1") == Pushed(3, 0, 0, 0)
        async with destination(f"{server.address}/team/other:1", mount_from="team/app") as repository:
            pushed = await push(store, repository, BLOBS, list(IMAGE.documents()), "1")
            assert pushed == Pushed(0, 3, 0, 0)
        async with Engine(tmp_path / "store") as engine:
            assert (await engine.pull(name)).manifest_descriptor.digest == IMAGE.descriptor.digest
            assert (await engine.tags(f"{server.address}/team/other"))[0] == "1"


async def test_an_image_that_lacks_a_blob_gets_no_tag(uploads: Uploads) -> None:
    store = await store_of(IMAGE)
    await store.store.mark_corrupt(BLOBS[-1].digest)
    async with Server(uploads=uploads) as server, destination(f"{server.address}/team/app:1") as repository:
        with pytest.raises(BlobNotFoundError):
            await push(store, repository, BLOBS, list(INDEX.documents()), "1")
        assert await server.manifest("team/app", "1") is None


async def test_a_read_only_registry_says_so() -> None:
    store = await store_of(IMAGE)
    async with Server() as server, destination(f"{server.address}/team/app:1") as repository:
        with pytest.raises(RegistryError) as refused:
            await push(store, repository, BLOBS, list(IMAGE.documents()), "1")
        assert refused.value.status == 405


async def test_debian_s_registry_takes_an_image_that_skopeo_reads(
    private_registry: Running,
    registry_credentials: tuple[str, str],
    peer: Callable[[str], str],
    tmp_path: Path,
) -> None:
    credentials = Credentials(explicit=Credential(*registry_credentials))
    name = f"{private_registry.address}/push-tests/app"
    store = await store_of(IMAGE)
    async with destination(f"{name}:1", credentials) as repository:
        assert (await push(store, repository, BLOBS, list(INDEX.documents()), "1")).uploaded == 3
        assert (await push(store, repository, BLOBS, list(INDEX.documents()), "1")).there == 3
    other = f"{private_registry.address}/push-tests/other:1"
    async with destination(other, credentials, mount_from="push-tests/app") as repository:
        pushed = await push(store, repository, BLOBS, list(IMAGE.documents()), "1")
        assert pushed.mounted == 3
    user = ":".join(registry_credentials)
    for at in (f"docker://{name}:1", f"docker://{private_registry.address}/push-tests/other:1"):
        command = [peer("skopeo"), "--insecure-policy", "copy", "-q", "--src-tls-verify=false", f"--src-creds={user}"]
        done = await asyncio.to_thread(subprocess.run, [*command, at, f"oci:{tmp_path}/layout:1"], check=False)
        assert done.returncode == 0
    entry = json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"][0]
    assert entry["digest"] == str(IMAGE.descriptor.digest)
