"""Images that are published with merged metadata: who takes which, and what the metadata is to a kernel.

Covers: jobs/publish.py, unpack/erofs_devices.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
import zstandard

from fastoci import Engine, RegistryOptions
from fastoci.errors import BlobNotFoundError, ReferenceSyntaxError, RegistryError, UnsupportedError
from fastoci.image import index as index_documents
from fastoci.image import manifest as manifest_documents
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.mediatype import OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from fastoci.mount import erofs
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, directory, tar, whiteout
from fastoci.testing.registry import Registry as Server
from fastoci.testing.uploads import Uploads
from fastoci.unpack.erofs_reader import ErofsReader
from support.disks import disk
from support.mount_namespaces import mount_namespace, nothing_left
from support.scratch import scratch


class Running(Protocol):
    """The fixtures' registry, as far as it matters here."""

    address: str


FILES = {"kept": b"lower" * 1000, "etc/new": b"upper", "etc/large": bytes(range(256)) * 999}
BELOW = [directory("etc"), Entry("kept", data=FILES["kept"]), Entry("etc/gone", data=b"gone")]
ABOVE = [
    directory("etc"),
    whiteout("etc/gone"),
    Entry("etc/new", data=FILES["etc/new"]),
    Entry("etc/large", data=FILES["etc/large"]),
]
LOWER, UPPER = Layer.build(BELOW), Layer.build(ABOVE, compression="zstd")
TARS = [b"".join(tar(entries)) for entries in (BELOW, ABOVE)]
IMAGE = Image.build([LOWER, UPPER])


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    (tmp_path / "pushed").mkdir()
    return Uploads(tmp_path / "pushed")


async def published(engine: Engine, server: Server, image: Image = IMAGE, target: str = "team/fast:1") -> Digest:
    """Pull an image and publish it; the digest of the index."""
    server.add_image("team/app", "1", image)
    await engine.pull(f"{server.address}/team/app:1")
    return (await engine.publish(f"{server.address}/team/app:1", f"{server.address}/{target}")).index.digest


async def erofs_manifest(server: Server) -> manifest_documents.Manifest:
    """What is pushed for those who know EROFS."""
    top = await server.manifest("team/fast", "1")
    assert top is not None
    entry = index_documents.parse(top.data, OCI_INDEX).manifests[1]
    assert entry.platform is not None
    assert entry.platform.os_features == ("erofs",)
    found = await server.manifest("team/fast", str(entry.digest))
    assert found is not None
    return manifest_documents.parse(found.data, OCI_MANIFEST)


async def test_the_ordinary_image_comes_first_and_only_metadata_is_added(uploads: Uploads, tmp_path: Path) -> None:
    async with Server(uploads=uploads) as server, Engine(tmp_path / "store") as engine:
        digest = await published(engine, server)
        again = await engine.publish(f"{server.address}/team/app:1", f"{server.address}/team/fast:1")
        assert again.index.digest == digest, "the same image gives the same bytes"
        assert again.pushed.sent == 0
        manifest = await erofs_manifest(server)
        assert [layer.digest for layer in manifest.layers[:-1]] == [LOWER.descriptor.digest, UPPER.descriptor.digest]
        stored = (await engine.images([f"{server.address}/team/fast:1"]))[0]
        assert stored.descriptor.digest == digest
        assert len(stored.images) == 2
        plan = await engine.plan_gc()
        assert not [item for item in plan.items if item.kind == "blob"], "gc keeps what was published"


async def test_a_pull_of_it_brings_the_ordinary_image(uploads: Uploads, tmp_path: Path) -> None:
    async with Server(uploads=uploads) as server, Engine(tmp_path / "store") as engine:
        await published(engine, server)
        async with Engine(tmp_path / "other") as other:
            image = await other.pull(f"{server.address}/team/fast:1", rootfs=tmp_path / "root")
            assert image.manifest_descriptor.digest == IMAGE.descriptor.digest
            assert (await other.pull(f"{server.address}/team/fast:1", policy="missing")).platform == image.platform
        assert {name: (tmp_path / "root" / name).read_bytes() for name in FILES} == FILES
        image = await engine.image(f"{server.address}/team/fast:1")
        assert image.manifest_descriptor.digest == IMAGE.descriptor.digest


async def test_debian_s_registry_takes_it_and_skopeo_pulls_the_ordinary_image(
    docker_registry: Running, peer: Callable[[str], str], tmp_path: Path
) -> None:
    target = f"{docker_registry.address}/publish-tests/app:1"
    async with Server() as server, Engine(tmp_path / "store") as engine:
        server.add_image("team/app", "1", IMAGE)
        await engine.pull(f"{server.address}/team/app:1")
        await engine.publish(f"{server.address}/team/app:1", target)
    command = [peer("skopeo"), "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--override-os=linux"]
    command += ["--override-arch=amd64", f"docker://{target}", f"oci:{tmp_path}/layout:1"]
    done = await asyncio.to_thread(subprocess.run, command, check=False)
    assert done.returncode == 0
    entry = json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"][0]
    assert entry["digest"] == str(IMAGE.descriptor.digest)


async def metadata_of(server: Server, uploads: Uploads) -> bytes:
    """The metadata, held against the digest that its descriptor has."""
    last = (await erofs_manifest(server)).layers[-1]
    path = uploads.blob("team/fast", str(last.digest))
    assert path is not None
    data = zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True).read()
    assert str(Digest.of(data)) == last.annotations["org.erofs.uncompressed-digest"]
    return data


async def test_devices_are_tars_and_have_the_digests_of_layers_as_tags(uploads: Uploads, tmp_path: Path) -> None:
    async with Server(uploads=uploads) as server, Engine(tmp_path / "store") as engine:
        await published(engine, server)
        (tmp_path / "metadata").write_bytes(await metadata_of(server, uploads))
    with (tmp_path / "metadata").open("rb") as file:
        slots = ErofsReader(file.fileno(), "metadata").devices
    assert [slot.tag for slot in slots] == [layer.descriptor.digest.hex for layer in (LOWER, UPPER)]
    assert [slot.blocks * 512 for slot in slots] == list(map(len, TARS))


@pytest.fixture
def ext4() -> Iterator[Path]:
    """A file system that can back an EROFS."""
    with mount_namespace(), nothing_left(), scratch("publish") as place, disk(place, "ext4", 1 << 25) as mounted:
        yield mounted


async def test_a_kernel_shows_the_image_from_the_tars_alone(uploads: Uploads, tmp_path: Path, ext4: Path) -> None:
    async with Server(uploads=uploads) as server, Engine(tmp_path / "store") as engine:
        await published(engine, server)
        metadata = await metadata_of(server, uploads)
    for name, data in (("metadata", metadata), ("lower", TARS[0]), ("upper", TARS[1])):
        (ext4 / name).write_bytes(data)
    with ExitStack() as held:
        fds = [os.open(ext4 / name, os.O_RDONLY) for name in ("metadata", "lower", "upper")]
        for fd in fds:
            held.callback(os.close, fd)
        mount, _ = erofs.make(fds[0], fds[1:])
        held.callback(os.close, mount)
        root = Path(f"/proc/self/fd/{mount}")
        assert {name: (root / name).read_bytes() for name in FILES} == FILES
        assert sorted(os.listdir(root / "etc")) == ["large", "new"]


async def test_what_cannot_be_published_is_said_before_anything_is_sent(uploads: Uploads, tmp_path: Path) -> None:
    dirty = TARS[0].replace(b"gone" + bytes(508), b"goneleft" + bytes(504))
    strange = Image.build([Layer(Descriptor.of(dirty, OCI_LAYER), Digest.of(dirty), dirty)])
    async with Server(uploads=uploads) as server, Engine(tmp_path / "store") as engine:
        with pytest.raises(UnsupportedError, match="cannot be used where it is in the tar"):
            await published(engine, server, strange)
        with pytest.raises(ReferenceSyntaxError, match="under a tag"):
            await published(engine, server, target=f"team/fast@{IMAGE.descriptor.digest}")
        with pytest.raises(BlobNotFoundError):
            await engine.publish("registry.test/absent:1", f"{server.address}/team/fast:1")
        assert not [record for record in server.log if record.method in ("POST", "PUT")]


async def test_a_registry_that_takes_nothing_is_an_error_and_the_name_is_in_the_store(tmp_path: Path) -> None:
    async with Server() as server, Engine(tmp_path / "store", registry=RegistryOptions(retries=0)) as engine:
        with pytest.raises(RegistryError) as refused:
            await published(engine, server)
        assert refused.value.status == 405
        assert (await engine.image(f"{server.address}/team/fast:1")).manifest == (
            await engine.image(f"{server.address}/team/app:1")
        ).manifest
