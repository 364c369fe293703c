"""Images whose blobs were dropped come into registries out of their layer files.

Covers: jobs/recompress.py, image/convert.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from fastoci import Engine, Layers
from fastoci.errors import BlobNotFoundError, IntegrityError
from fastoci.events import Event, Warned
from fastoci.image import index as index_documents
from fastoci.image import manifest as manifest_documents
from fastoci.image.convert import with_blobs
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.manifest import Manifest
from fastoci.image.mediatype import OCI_INDEX, OCI_LAYER_GZIP
from fastoci.image.reference import Reference
from fastoci.jobs.publish import Published
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry as Server
from fastoci.testing.uploads import Uploads
from fastoci.transfer.scheduler import BytesSource
from support.streaming import streams

FILES = {"one": bytes(range(256)) * 9000, "two": b"2" * 100_000, "three": b"3"}
LAYERS = [
    Layer.build([Entry("one", data=FILES["one"])]),
    Layer.build([Entry("two", data=FILES["two"])], compression="zstd"),
    Layer.build([Entry("three", data=FILES["three"])], compression="none"),
]
IMAGE = Image.build(LAYERS)


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Server]:
    """A registry that takes what is pushed, and has nothing."""
    (tmp_path / "pushed").mkdir()
    async with Server(uploads=Uploads(tmp_path / "pushed")) as server:
        yield server


async def pulled(engine: Engine, server: Server, image: Image = IMAGE) -> str:
    """Pull an image that is kept unpacked only; its name."""
    server.add_image("team/app", "1", image)
    name = f"{server.address}/team/app:1"
    await engine.pull(name, layers=Layers("erofs", only=True))
    return name


def blobs_of(engine: Engine) -> set[str]:
    return set(os.listdir(engine.store_path / "blobs/sha256"))


async def pushed(server: Server, published: Published) -> Manifest:
    """The ordinary manifest that was pushed."""
    index = await server.manifest("team/copy", str(published.index.digest))
    assert index is not None
    entry = index_documents.parse(index.data, OCI_INDEX).manifests[0]
    found = await server.manifest("team/copy", str(entry.digest))
    assert found is not None
    return manifest_documents.parse(found.data, entry.media_type)


async def test_layers_that_the_registry_lacks_are_compressed_anew(other: Server, tmp_path: Path) -> None:
    seen: list[Event] = []
    target = f"{other.address}/team/copy:1"
    async with Server() as server, Engine(tmp_path / "store", observer=seen.append) as engine:
        name = await pulled(engine, server)
        before = blobs_of(engine)
        published = await engine.publish(name, target)
        again = await engine.publish(name, target)
        assert (again.index.digest, again.pushed.sent) == (published.index.digest, 0), "it gives the same bytes"
        manifest = await pushed(other, published)
        assert manifest.config == (await engine.image(name)).manifest.config
        assert [layer.digest == of.descriptor.digest for layer, of in zip(manifest.layers, LAYERS, strict=True)] == [
            False,
            False,
            True,  # what is not compressed has one form only
        ]
        digest = Digest.of(manifest.raw)
        assert any(str(digest) in event.message for event in seen if isinstance(event, Warned)), "the digest is told"
        added = blobs_of(engine) - before
        assert added.isdisjoint(layer.digest.hex for layer in manifest.layers), "no layer comes into the store"
        assert (await engine.usage()).missing.blobs == 0
        plan = await engine.plan_gc()
        assert not [item for item in plan.items if item.kind in ("blob", "layer")], "gc keeps what was published"
    async with Engine(tmp_path / "others") as engine:
        image = await engine.pull(target, rootfs=tmp_path / "root")
        assert image.manifest_descriptor.digest == digest
    assert {each: (tmp_path / "root" / each).read_bytes() for each in FILES} == FILES


async def test_the_manifest_stays_when_the_registry_has_all_blobs(tmp_path: Path) -> None:
    (tmp_path / "pushed").mkdir()
    async with Server(uploads=Uploads(tmp_path / "pushed")) as server, Engine(tmp_path / "store") as engine:
        name = await pulled(engine, server)
        for _ in range(2):  # mounted, and then there
            published = await engine.publish(name, f"{server.address}/team/copy:1")
            assert (await pushed(server, published)).raw == IMAGE.manifest
        assert published.pushed.uploaded == 0


async def test_only_what_is_not_there_is_another_blob(other: Server, tmp_path: Path) -> None:
    async with Server() as server, Engine(tmp_path / "store") as engine:
        name = await pulled(engine, server)
        assert isinstance(LAYERS[0].content, bytes)
        async with streams() as streaming, Registry(credentials=Credentials()) as registry:
            repository = registry.destination(Reference.parse(f"{other.address}/team/copy:1"), streaming)
            await repository.put_blob(LAYERS[0].descriptor, BytesSource(LAYERS[0].content))
        manifest = await pushed(other, await engine.publish(name, f"{other.address}/team/copy:1"))
    same = [layer.digest == of.descriptor.digest for layer, of in zip(manifest.layers, LAYERS, strict=True)]
    assert same == [True, False, True]


async def test_a_damaged_layer_file_is_not_pushed(other: Server, tmp_path: Path) -> None:
    async with Server() as server, Engine(tmp_path / "store") as engine:
        name = await pulled(engine, server)
        (file,) = (tmp_path / "store/layers").rglob(f"{LAYERS[0].diff_id.hex}.erofs")
        data = bytearray(file.read_bytes())
        data[4096 + 1000] ^= 1
        file.chmod(0o644)
        file.write_bytes(data)
        with pytest.raises((IntegrityError, BlobNotFoundError)):
            await engine.publish(name, f"{other.address}/team/copy:1")
        assert not file.exists(), "it counts as damaged from then on"
        with pytest.raises(BlobNotFoundError, match="pull it"):
            await engine.publish(name, f"{other.address}/team/copy:1")
    assert await other.manifest("team/copy", "1") is None
    assert not [record for record in other.log if record.method == "PUT"]


async def test_a_layout_of_such_an_image_says_what_brings_its_blobs(tmp_path: Path) -> None:
    async with Server() as server, Engine(tmp_path / "store") as engine:
        name = await pulled(engine, server)
        with pytest.raises(BlobNotFoundError, match="`fastoci pull`, without --layers-only"):
            await engine.export(tmp_path / "layout")
        with pytest.raises(BlobNotFoundError, match="`fastoci pull`, without --layers-only"):
            await (await engine.image(name)).export(tmp_path / "layout")
        await engine.pull(name)
        assert await engine.export(tmp_path / "layout") == 1


def test_what_is_said_of_an_image_stays_and_what_is_said_of_bytes_goes() -> None:
    told = {
        "org.example.kept": "yes",
        "containerd.io/snapshot/stargz/toc.digest": str(LAYERS[0].diff_id),
        "io.github.containers.zstd-chunked.manifest-position": "1:2:3:1",
    }
    layer = replace(LAYERS[0].descriptor, annotations=told, urls=("https://example.com/layer",))
    built = Image.build([Layer(layer, LAYERS[0].diff_id, LAYERS[0].content), LAYERS[1]])
    document = json.loads(built.manifest) | {"annotations": {"org.example.of": "the image"}, "later": [1]}
    manifest = manifest_documents.parse(json.dumps(document).encode(), built.descriptor.media_type)
    blob = Descriptor.of(b"new", OCI_LAYER_GZIP)
    made = with_blobs(manifest, {layer.digest: blob})
    assert made.layers == (replace(blob, annotations={"org.example.kept": "yes"}), LAYERS[1].descriptor)
    assert (made.config, made.annotations) == (manifest.config, {"org.example.of": "the image"})
    assert json.loads(made.raw)["later"] == [1]


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_a_type_that_says_nothing_of_gzip_becomes_one_of_its_manifest_s_kind(docker: bool) -> None:
    layer = replace(LAYERS[0].descriptor, media_type="application/octet-stream")
    image = Image.build([Layer(layer, LAYERS[0].diff_id, LAYERS[0].content)], docker=docker)
    manifest = manifest_documents.parse(image.manifest, image.descriptor.media_type)
    made = with_blobs(manifest, {layer.digest: Descriptor.of(b"new", OCI_LAYER_GZIP)})
    assert made.layers[0].media_type.startswith("application/vnd.docker" if docker else "application/vnd.oci")
    assert made.layers[0].media_type.endswith("gzip")
