"""What is known of an image wherever it is: in a registry, in the store; no layer is fetched for it.

Covers: jobs/inspect.py, jobs/subjects.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastoci
from fastoci.errors import BlobNotFoundError, DigestMismatchError, NotFoundError, PlatformError, ReferenceSyntaxError
from fastoci.image.descriptor import encode
from fastoci.image.digest import Digest
from fastoci.image.mediatype import DOCKER_SCHEMA1_SIGNED, OCI_INDEX
from fastoci.image.platform import Platform
from fastoci.limits import Limits
from fastoci.testing.images import Artifact, Image, Index, write_layout
from fastoci.testing.layers import Entry, Layer, directory
from fastoci.testing.registry import Registry, serve
from support.schema1_images import payload_of, signed

FILES = [directory("base"), *(Entry(f"base/{number}", data=b"x" * number) for number in range(3))]
BASE = Layer.build(FILES, "gzip")
TOP = Layer.build([Entry("top"), Entry("more")], "zstd")
AMD = Image.build([BASE, TOP], command=["amd"])
ARM = Image.build([BASE], platform=Platform("linux", "arm64"), command=["arm"])
BOTH = Index.build([AMD, ARM])
FOREIGN = Index.build([Image.build([BASE], platform=Platform("linux", "s390x"))])
CHART = Artifact.build("application/vnd.test.chart", b"a chart")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        registry.add_image("both", "1", BOTH)
        registry.add_image("amd", "1", AMD)
        registry.add_image("foreign", "1", FOREIGN)
        registry.add_image("chart", "1", CHART)
        yield registry


def layers_asked_for(registry: Registry) -> list[str]:
    digests = {str(layer.descriptor.digest) for layer in (BASE, TOP)}
    return [record.path for record in registry.log if record.path.rpartition("/")[2] in digests]


async def test_an_image_of_a_registry_is_looked_at_without_its_layers(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        found = await engine.inspect(f"docker://{registry.address}/both:1", platform="linux/arm64")
        assert await engine.images() == ()
    (image,) = found.images
    assert found.digest == str(BOTH.descriptor.digest)
    assert [(entry.digest, entry.platform) for entry in found.entries] == [
        (str(AMD.descriptor.digest), "linux/amd64"),
        (str(ARM.descriptor.digest), "linux/arm64"),
    ]
    assert (image.platform, image.config) == ("linux/arm64", {"Cmd": ["arm"]})
    assert image.manifest.digest == str(ARM.descriptor.digest)
    assert found.documents == {
        str(BOTH.descriptor.digest): BOTH.index,
        str(ARM.descriptor.digest): ARM.manifest,
        image.config_blob.digest: ARM.config,
    }
    assert layers_asked_for(registry) == []


async def test_all_platforms_are_looked_at_when_asked_for(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        found = await engine.inspect(f"docker://{registry.address}/both:1", platform="all")
    assert [image.config["Cmd"] for image in found.images] == [["amd"], ["arm"]]


async def test_an_image_of_the_store_is_found_by_each_of_its_names(registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/both:1"
    async with fastoci.Engine(tmp_path) as engine:
        await engine.pull(name, platform="linux/arm64")
        asked = len(registry.log)
        for text in (name, str(BOTH.descriptor.digest), BOTH.descriptor.digest.hex[:12]):
            found = await engine.inspect(text)
            assert (found.name, found.digest, len(found.entries)) == (name, str(BOTH.descriptor.digest), 2)
            assert [image.platform for image in found.images] == ["linux/arm64"]
        manifest = await engine.inspect(f"{registry.address}/both@{ARM.descriptor.digest}")
        assert manifest.digest == str(ARM.descriptor.digest)
        with pytest.raises(PlatformError):
            await engine.inspect(name, platform="linux/amd64")
        assert len((await engine.inspect(name, platform="all")).images) == 1
    assert len(registry.log) == asked


async def test_an_index_without_an_image_for_this_machine_is_shown_all_the_same(
    registry: Registry, tmp_path: Path
) -> None:
    name = f"docker://{registry.address}/foreign:1"
    async with fastoci.Engine(tmp_path) as engine:
        found = await engine.inspect(name)
        assert (found.images, [entry.platform for entry in found.entries]) == ((), ["linux/s390x"])
        with pytest.raises(PlatformError):
            await engine.inspect(name, platform="linux/amd64")
        with pytest.raises(PlatformError):
            await engine.compare(name, name)


async def test_the_top_alone_costs_one_document(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        found = await engine.inspect(f"docker://{registry.address}/both:1", top_only=True)
    assert (found.images, found.entries) == ((), ())
    assert found.documents == {found.digest: BOTH.index}
    assert sum("/manifests/" in record.path for record in registry.log) == 1


async def test_entries_are_counted_of_layers_that_are_at_hand(registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/amd:1"
    async with fastoci.Engine(tmp_path) as engine:
        there = await engine.inspect(f"docker://{name}", entries=True)
        assert [layer.entries for layer in there.images[0].layers] == [None, None]
        assert layers_asked_for(registry) == []
        await engine.pull(name)
        asked = len(layers_asked_for(registry))
        for text in (name, f"docker://{name}"):
            (image,) = (await engine.inspect(text, entries=True)).images
            assert [layer.entries for layer in image.layers] == [4, 2]
        assert len(layers_asked_for(registry)) == asked


async def test_a_layer_beyond_the_limits_is_not_counted_and_says_so(registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/amd:1"
    async with fastoci.Engine(tmp_path) as engine:
        await engine.pull(name)
    async with fastoci.Engine(tmp_path, limits=Limits(unpacked_entries=3)) as engine:
        (image,) = (await engine.inspect(name, entries=True)).images
    assert [layer.entries for layer in image.layers] == [None, None]
    assert "more than 3 entries" in image.problems[0]


async def test_an_artifact_has_the_names_of_what_is_in_it(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        (found,) = (await engine.inspect(f"docker://{registry.address}/chart:1", entries=True)).images
    assert found.artifact_type == "application/vnd.test.chart"
    assert [layer.entries for layer in found.layers] == [None]


async def test_one_nested_index_that_is_named_often_is_shown_once(registry: Registry, tmp_path: Path) -> None:
    rows = [encode(BOTH.descriptor)] * 50
    outer = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows}).encode()
    registry.add_image("both", "1", BOTH)
    registry.add_manifest("both", "nested", OCI_INDEX, outer)
    async with fastoci.Engine(tmp_path) as engine:
        found = await engine.inspect(f"docker://{registry.address}/both:nested", platform="all")
    assert [len(entry.entries) for entry in found.entries] == [2] + [0] * 49


async def test_what_is_not_there_or_wrong_is_an_error(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        with pytest.raises(BlobNotFoundError, match=f"docker://{registry.address}/both:1 asks its registry"):
            await engine.inspect(f"{registry.address}/both:1")
        with pytest.raises(BlobNotFoundError, match=r"has no reference [^;]*$"):
            await engine.inspect(f"store:{registry.address}/both:1")
        with pytest.raises(NotFoundError):
            await engine.inspect(f"docker://{registry.address}/none:1")
        with pytest.raises(ReferenceSyntaxError):
            await engine.inspect(f"docker://{registry.address}/both:1", platform="a/b/c/d/e")
        digest = (await engine.inspect(f"docker://{registry.address}/amd:1")).images[0].config_blob.digest
        registry.add_blob(digest, AMD.config[:-1] + b" ")
        with pytest.raises(DigestMismatchError):
            await engine.inspect(f"docker://{registry.address}/amd:1")


async def test_an_image_of_schema_1_is_shown_as_what_it_becomes(registry: Registry, tmp_path: Path) -> None:
    payload = payload_of([BASE.descriptor.digest, None, TOP.descriptor.digest])
    registry.add_manifest("amd", "old", DOCKER_SCHEMA1_SIGNED, signed(payload), digest=str(Digest.of(payload)))
    async with fastoci.Engine(tmp_path) as engine:
        found = await engine.inspect(f"docker://{registry.address}/amd:old", entries=True)
        with pytest.raises(PlatformError):
            await engine.inspect(f"docker://{registry.address}/amd:old", platform="linux/arm64")
    (image,) = found.images
    assert found.documents == {found.digest: payload}
    assert (image.platform, image.config["Cmd"], image.artifact_type) == ("linux/amd64", ["sh"], "")
    assert image.size == BASE.descriptor.size + TOP.descriptor.size
    assert [(layer.digest, layer.size, layer.created_by) for layer in image.layers] == [
        (str(BASE.descriptor.digest), BASE.descriptor.size, "/bin/sh -c step <1>"),
        (str(TOP.descriptor.digest), TOP.descriptor.size, "/bin/sh -c step <3>"),
    ]
    assert [record.path for record in registry.log if record.method == "GET" and "/blobs/" in record.path] == []


async def test_an_image_of_a_layout_is_looked_at_where_it_is(tmp_path: Path) -> None:
    write_layout({"both": BOTH, "chart": CHART}, tmp_path / "layout")
    async with fastoci.Engine(tmp_path / "store") as engine:
        found = await engine.inspect(f"oci:{tmp_path}/layout:both", platform="all", entries=True)
        assert found.documents[found.digest] == BOTH.index
        assert [[layer.entries for layer in image.layers] for image in found.images] == [[4, 2], [4]]
        artifact = await engine.inspect(f"oci:{tmp_path}/layout:@1")
        assert artifact.images[0].artifact_type == "application/vnd.test.chart"
        with pytest.raises(ReferenceSyntaxError, match="2 images"):
            await engine.inspect(f"oci:{tmp_path}/layout")
        with pytest.raises(BlobNotFoundError):
            await engine.inspect(f"oci:{tmp_path}/layout:none")
        assert await engine.images() == ()


async def test_a_layer_that_is_damaged_at_hand_is_told(tmp_path: Path) -> None:
    write_layout({"amd": AMD}, tmp_path / "layout")
    blob = tmp_path / "layout" / "blobs" / "sha256" / BASE.descriptor.digest.hex
    data = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(bytes(len(data)))
    async with fastoci.Engine(tmp_path / "store") as engine:
        (image,) = (await engine.inspect(f"oci:{tmp_path}/layout", entries=True)).images
    assert [layer.entries for layer in image.layers] == [None, 2]
    assert len(image.problems) == 1
