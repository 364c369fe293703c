"""Documents that pushers really make: what other pullers copy is pulled, and refused only when it must be unpacked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

import fastoci
from fastoci.errors import FastociError, FormatError, PlatformError, UnsupportedError
from fastoci.events import Event, Warned
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.platform import Platform
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve

EMPTY = "application/vnd.oci.empty.v1+json"
SBOM = "application/vnd.example.sbom"
AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


class Shelf:
    """Images and indexes of one repository, each served by digest, and by the tag ``latest`` when it is the top."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.name = f"{registry.address}/odd"

    def image(self, name: str, *, platform: Platform = AMD64, **changes: Any) -> Descriptor:
        """An image whose one file is called ``name``; what an index would say of it, without its platform."""
        built = Image.build([Layer.build([Entry(name, "file", b"")])], platform=platform)
        return self.serve(built, **changes)

    def serve(self, built: Image, *, config: bytes | None = None, config_type: str = "", **changes: Any) -> Descriptor:
        """Serve an image with another config, or other fields in its manifest."""
        form = json.loads(built.manifest)
        if config is not None or config_type:
            built = replace(built, config=built.config if config is None else config)
            form["config"] = encode(Descriptor.of(built.config, config_type or mediatype.OCI_CONFIG))
        built = replace(built, manifest=json.dumps(form | changes).encode())
        self.registry.add_image("odd", "latest", built)
        return structs.replace(built.descriptor, platform=None)

    def index(self, *entries: Descriptor | Mapping[str, object]) -> Descriptor:
        """An index of these, which is ``latest`` from now on."""
        rows = [encode(each) if isinstance(each, Descriptor) else dict(each) for each in entries]
        data = json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": rows}).encode()
        made = Descriptor.of(data, mediatype.OCI_INDEX)
        for reference in (str(made.digest), "latest"):
            self.registry.add_manifest("odd", reference, made.media_type, data, digest=str(made.digest))
        return made


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with serve(Registry()) as registry:
        yield Shelf(registry)


async def pull(shelf: Shelf, tmp_path: Path, *, rootfs: bool = True, platform: str = "linux/amd64") -> fastoci.Image:
    async with fastoci.Engine(tmp_path / "store") as engine:
        return await engine.pull(shelf.name, platform=platform, rootfs=tmp_path / "rootfs" if rootfs else None)


async def files(shelf: Shelf, tmp_path: Path) -> list[str]:
    await pull(shelf, tmp_path)
    return sorted(path.name for path in (tmp_path / "rootfs").iterdir())


def of(descriptor: Descriptor, platform: Platform | None = AMD64, **changes: Any) -> Descriptor:
    return structs.replace(descriptor, platform=platform, **changes)


async def test_an_entry_that_demands_a_feature_is_not_chosen(shelf: Shelf, tmp_path: Path) -> None:
    erofs = of(shelf.image("erofs"), msgspec.structs.replace(AMD64, os_features=("erofs",)))
    shelf.index(erofs, of(shelf.image("tar")))
    assert await files(shelf, tmp_path) == ["tar"]


async def test_of_features_alone_the_error_says_what_the_index_has(shelf: Shelf, tmp_path: Path) -> None:
    shelf.index(of(shelf.image("erofs"), msgspec.structs.replace(AMD64, os_features=("erofs",))))
    with pytest.raises(PlatformError, match=r"it has linux\(\+erofs\)/amd64"):
        await pull(shelf, tmp_path)
    assert (await pull(shelf, tmp_path, platform="linux(+erofs)/amd64")).platform is not None


async def test_an_entry_of_an_unknown_media_type_is_skipped_and_named_when_nothing_is_left(
    shelf: Shelf, tmp_path: Path
) -> None:
    image = shelf.image("image")
    unknown = Descriptor.of(b"?", "application/vnd.example.image.v9+json")
    shelf.index(of(unknown), of(image))
    assert await files(shelf, tmp_path) == ["image"]
    shelf.index(of(unknown))
    with pytest.raises(PlatformError, match=r"not followed: application/vnd\.example.image\.v9"):
        await pull(shelf, tmp_path, rootfs=False)


@pytest.mark.parametrize("said", [True, False])
async def test_an_artifact_is_not_chosen_where_there_is_an_image(shelf: Shelf, tmp_path: Path, said: bool) -> None:
    artifact = shelf.image("sbom", config=b"{}", config_type=EMPTY, artifactType=SBOM)
    shelf.index(of(artifact, artifact_type=SBOM if said else ""), of(shelf.image("image")))
    assert await files(shelf, tmp_path) == ["image"]


async def test_an_index_of_artifacts_is_pulled_but_not_unpacked(shelf: Shelf, tmp_path: Path) -> None:
    artifact = shelf.image("sbom", config=b"{}", config_type=EMPTY, artifactType=SBOM)
    shelf.index(of(artifact, artifact_type=SBOM))
    assert (await pull(shelf, tmp_path, rootfs=False)).manifest_descriptor.digest == artifact.digest
    with pytest.raises(UnsupportedError, match="not a container image"):
        await pull(shelf, tmp_path)


async def test_an_artifact_without_a_platform_is_never_chosen(shelf: Shelf, tmp_path: Path) -> None:
    artifact = shelf.image("sbom", config=b"{}", config_type=EMPTY)
    shelf.index(of(artifact, None), of(shelf.image("arm", platform=ARM64), ARM64))
    with pytest.raises(PlatformError, match="it has linux/arm64"):
        await pull(shelf, tmp_path)


async def test_an_image_entry_may_say_the_type_of_its_config(shelf: Shelf, tmp_path: Path) -> None:
    shelf.index(of(shelf.image("image"), artifact_type=mediatype.OCI_CONFIG))
    assert await files(shelf, tmp_path) == ["image"]


@pytest.mark.parametrize("silent", [None, Platform("", "")])
async def test_an_entry_without_a_platform_is_chosen_when_nothing_matches_better(
    shelf: Shelf, tmp_path: Path, silent: Platform | None
) -> None:
    plain, arm, amd = shelf.image("plain"), shelf.image("arm", platform=ARM64), shelf.image("amd")
    shelf.index(of(arm, ARM64), of(plain, silent))
    assert await files(shelf, tmp_path) == ["plain"]
    shelf.index(of(plain, silent), shelf.index(of(amd)))
    image = await pull(shelf, tmp_path, rootfs=False)
    assert image.manifest_descriptor.digest == amd.digest


async def test_an_entry_without_a_platform_whose_config_names_another_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    shelf.index(of(shelf.image("arm", platform=ARM64), None))
    with pytest.raises(PlatformError, match="the image is for linux/arm64 only"):
        await pull(shelf, tmp_path)


async def test_the_one_entry_of_a_nested_index_has_the_platform_of_the_outer_entry(
    shelf: Shelf, tmp_path: Path
) -> None:
    image = shelf.image("image", config=b"{}")
    nested = shelf.index(of(image, None))
    shelf.index(of(shelf.index(of(shelf.image("arm", platform=ARM64), None)), ARM64), of(nested))
    pulled = await pull(shelf, tmp_path, rootfs=False)
    assert (pulled.manifest_descriptor.digest, pulled.platform) == (image.digest, AMD64)
    async with fastoci.Engine(tmp_path / "store") as engine:
        (stored,) = await engine.images()
        assert list(stored.images) == ["linux/amd64"]


@pytest.mark.parametrize("config_type", ["application/octet-stream", "application/json", "text/html"])
async def test_a_config_that_has_an_old_type_is_one(shelf: Shelf, tmp_path: Path, config_type: str) -> None:
    shelf.image("image", config_type=config_type)
    assert await files(shelf, tmp_path) == ["image"]


@pytest.mark.parametrize(
    ("layer_type", "refused"),
    [("application/octet-stream", False), ("application/x-tar", False), ("application/vnd.erofs.layer.v1", True)],
)
async def test_a_layer_is_refused_by_its_type_only_when_that_cannot_be_unpacked(
    shelf: Shelf, tmp_path: Path, layer_type: str, refused: bool
) -> None:
    built = Image.build([Layer.build([Entry("image", "file", b"")])])
    layers = [{**encode(built.layers[0].descriptor), "mediaType": layer_type}]
    shelf.serve(built, layers=layers)
    assert (await pull(shelf, tmp_path, rootfs=False)).manifest.layers[0].media_type == layer_type
    if refused:
        with pytest.raises(UnsupportedError, match=r"is a application/vnd\.erofs\.layer\.v1, which cannot be unpacked"):
            await pull(shelf, tmp_path)
    else:
        assert await files(shelf, tmp_path) == ["image"]


ODD_CONFIGS: dict[str, tuple[bytes, str, type[FastociError], str]] = {
    "empty, of an image": (b"{}", mediatype.OCI_CONFIG, FormatError, "1 layers, the config 0 diff_ids"),
    "empty, of nothing": (b"{}", EMPTY, UnsupportedError, "empty.* is not a container image"),
    "no JSON": (b"values: 1", mediatype.OCI_CONFIG, FormatError, "config: "),
    "diff_ids twice": (b'{"rootfs":{"diff_ids":[],"diff_ids":[]}}', mediatype.OCI_CONFIG, FormatError, "duplicate key"),
    "other rootfs": (b'{"rootfs":{"type":"magic"}}', mediatype.OCI_CONFIG, FormatError, "rootfs.type"),
}


@pytest.mark.parametrize("name", ODD_CONFIGS)
async def test_an_odd_config_is_pulled_and_refused_when_it_must_be_unpacked(
    shelf: Shelf, tmp_path: Path, name: str
) -> None:
    config, config_type, kind, message = ODD_CONFIGS[name]
    pushed = shelf.image("image", config=config, config_type=config_type)
    events: list[Event] = []
    async with fastoci.Engine(tmp_path / "store", observer=events.append) as engine:
        image = await engine.pull(shelf.name)
        assert image.manifest_descriptor.digest == pushed.digest
        with pytest.raises(kind, match=message):
            await (await engine.image(shelf.name)).unpack(tmp_path / "rootfs")
        with pytest.raises(kind, match=message):
            await engine.pull(shelf.name, rootfs=tmp_path / "rootfs")
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert len(warnings) == (0 if config == b"{}" else 1)
    assert not (tmp_path / "rootfs").exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 1024])
async def test_an_empty_layer_is_a_layer_without_files(shelf: Shelf, tmp_path: Path, content: bytes) -> None:
    some, none = (
        Layer.build([Entry("image", "file", b"")]),
        Layer(Descriptor.of(content, mediatype.OCI_LAYER_GZIP), Digest.of(content), content),
    )
    shelf.serve(Image.build([none, some, none]))
    assert await files(shelf, tmp_path) == ["image"]


async def test_an_image_without_layers_is_an_empty_tree(shelf: Shelf, tmp_path: Path) -> None:
    shelf.serve(Image.build([]), layers=None)
    assert await files(shelf, tmp_path) == []


TWICE = b'"a":"1","a":"2"'


async def test_labels_of_any_kind_refuse_no_unpack(shelf: Shelf, tmp_path: Path) -> None:
    built = Image.build([Layer.build([Entry("image", "file", b"")])])
    odd = (
        b',"created":5,"config":{"Labels":{' + TWICE + b'}},"history":[{' + TWICE + b'},{"created":[]}],' + TWICE + b"}"
    )
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": json.loads(built.config)["rootfs"]})
    layer = {**encode(built.layers[0].descriptor), "annotations": {"b": 1}}
    shelf.serve(built, config=config[:-1].encode() + odd, annotations={"a": ["x"]}, layers=[layer])
    image = await pull(shelf, tmp_path)
    assert [path.name for path in (tmp_path / "rootfs").iterdir()] == ["image"]
    assert image.config is not None and image.config.created == ""


async def test_a_manifest_with_an_annotation_twice_is_unpacked(shelf: Shelf, tmp_path: Path) -> None:
    built = Image.build([Layer.build([Entry("image", "file", b"")])])
    manifest = built.manifest[:-1] + b',"annotations":{' + TWICE + b"}}"
    shelf.registry.add_image("odd", "latest", replace(built, manifest=manifest))
    assert (await pull(shelf, tmp_path)).manifest.annotations == {"a": "2"}


BROKEN_ENTRIES: dict[str, dict[str, object]] = {
    "digest of another algorithm": {"digest": f"blake3:{'0' * 64}"},
    "no digest": {"digest": None},
    "an odd media type": {"mediaType": "text\n"},
    "a size that is a text": {"size": "1"},
    "a platform that is a text": {"platform": "linux/amd64"},
}


@pytest.mark.parametrize("name", BROKEN_ENTRIES)
async def test_a_broken_entry_refuses_no_other_and_is_named_when_nothing_is_left(
    shelf: Shelf, tmp_path: Path, name: str
) -> None:
    arm, amd = of(shelf.image("arm"), ARM64), of(shelf.image("amd"))
    broken = {**encode(arm), **BROKEN_ENTRIES[name]}
    pushed = shelf.index(broken, amd)
    async with fastoci.Engine(tmp_path / "store") as engine:
        image = await engine.pull(shelf.name, platform="linux/amd64", rootfs=tmp_path / "rootfs")
        assert (image.descriptor.digest, image.manifest_descriptor.digest) == (pushed.digest, amd.digest)
        assert [str(each.platform) for each in await engine.pull_platforms(shelf.name, ["all"])] == ["linux/amd64"]
        with pytest.raises(
            PlatformError, match=r"no manifest for linux/s390x; it has linux/amd64; not followed: .*\[0\]"
        ):
            await engine.pull(shelf.name, platform="linux/s390x")
        await engine.gc()  # an index with a broken entry in it stops nothing
        assert (await engine.verify([shelf.name])).bad == ()
        assert [each.name for each in await engine.images()] == [f"{shelf.name}:latest"]
        await engine.export(tmp_path / "layout")
        await engine.usage()
