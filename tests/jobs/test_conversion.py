"""Copies that become another form, or whose layers are compressed anew, or both; and copies of Docker's schema 1.

Covers: jobs/conversion.py.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import zstandard
from msgspec.structs import replace

from fastoci import CopyOptions, Engine, PrefetchRequest
from fastoci.errors import DigestMismatchError, FormatError, UnsupportedError
from fastoci.events import Event, Warned
from fastoci.image import index as indexes
from fastoci.image import manifest as manifests
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.platform import Platform
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Layer
from fastoci.testing.registry import Registry
from support.images import made
from support.schema1_images import payload_of, signed

LAYERS = [Layer.build(made(1, files=2, size=2000)), Layer.build(made(2, files=1, size=1_500_000))]
OCI, DOCKER = (Image.build(LAYERS, docker=docker) for docker in (False, True))
OTHER = Image.build(LAYERS[:1], platform=Platform("linux", "arm64", "v8"))
INDEX = Index.build([OCI, OTHER])
ALL = ("all",)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with Registry() as registry:
        for tag, image in (("oci", OCI), ("docker", DOCKER), ("index", INDEX)):
            registry.add_image("app", tag, image)
        yield registry


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
async def engine(tmp_path: Path, events: list[Event]) -> AsyncIterator[Engine]:
    async with Engine(tmp_path / "store", observer=events.append) as engine:
        yield engine


def warnings(events: list[Event]) -> str:
    return "\n".join(event.message for event in events if isinstance(event, Warned))


def blob(layout: Path, descriptor: Descriptor) -> bytes:
    data = (layout / "blobs/sha256" / descriptor.digest.hex).read_bytes()
    assert Descriptor.of(data, "").digest == descriptor.digest and len(data) == descriptor.size
    return data


def image_of(layout: Path, descriptor: Descriptor) -> manifests.Manifest:
    return manifests.parse(blob(layout, descriptor), descriptor.media_type)


def tar_of(data: bytes) -> bytes:
    if data[:2] == b"\x1f\x8b":
        return gzip.decompress(data)
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read()


def diff_ids(layout: Path, image: manifests.Manifest) -> list[Digest]:
    return [Digest.of(tar_of(blob(layout, layer))) for layer in image.layers]


@pytest.mark.parametrize(("tag", "form", "media_type"), [
    ("oci", "v2s2", mediatype.DOCKER_MANIFEST),
    ("docker", "oci", mediatype.OCI_MANIFEST),
])  # fmt: skip
async def test_another_form_has_the_same_blobs(
    engine: Engine, registry: Registry, tmp_path: Path, tag: str, form: str, media_type: str
) -> None:
    options = CopyOptions(form="oci" if form == "oci" else "v2s2")
    copied = await engine.copy(f"docker://{registry.address}/app:{tag}", f"oci:{tmp_path}/out:1", options)
    image = image_of(tmp_path / "out", copied.descriptor)
    assert image.media_type == media_type
    assert image.config.digest == Digest.of(OCI.config)
    assert [layer.digest for layer in image.layers] == [layer.descriptor.digest for layer in LAYERS]
    again = await engine.copy(f"oci:{tmp_path}/out:1", f"oci:{tmp_path}/back:1", _other(form))
    back = image_of(tmp_path / "back", again.descriptor)
    assert [layer.media_type for layer in back.layers] == [_typed(layer, tag) for layer in LAYERS]


def _other(form: str) -> CopyOptions:
    return CopyOptions(form="v2s2" if form == "oci" else "oci")


def _typed(layer: Layer, tag: str) -> str:
    return mediatype.OCI_LAYER_GZIP if tag == "oci" else mediatype.DOCKER_LAYER_GZIP


async def test_the_form_that_an_image_has_leaves_it_as_it_is(
    engine: Engine, registry: Registry, tmp_path: Path
) -> None:
    options = CopyOptions(form="oci", compress="gzip")
    copied = await engine.copy(f"docker://{registry.address}/app:oci", f"oci:{tmp_path}/out", options)
    assert copied.descriptor.digest == OCI.descriptor.digest
    preserved = CopyOptions(form="oci", preserve_digests=True)  # nothing changes
    copied = await engine.copy(f"docker://{registry.address}/app:oci", f"oci:{tmp_path}/preserved", preserved)
    assert copied.descriptor.digest == OCI.descriptor.digest


async def test_layers_compressed_anew_have_the_same_tars_and_the_same_bytes_each_time(
    engine: Engine, registry: Registry, tmp_path: Path
) -> None:
    source, digests = f"docker://{registry.address}/app:oci", set()
    for number in range(2):
        copied = await engine.copy(source, f"oci:{tmp_path}/{number}", CopyOptions(compress="zstd:7"))
        digests.add(copied.descriptor.digest)
    assert len(digests) == 1
    image = image_of(tmp_path / "0", copied.descriptor)
    assert {layer.media_type for layer in image.layers} == {mediatype.OCI_LAYER_ZSTD}
    assert image.config.digest == Digest.of(OCI.config)
    assert diff_ids(tmp_path / "0", image) == [layer.diff_id for layer in LAYERS]
    assert (copied.brought, copied.sent) == (3, image.config.size + sum(layer.size for layer in image.layers))
    again = await engine.copy(source, f"oci:{tmp_path}/1", CopyOptions(compress="zstd:7"))
    assert (again.there, again.sent) == (3, 0)


async def test_schema_2_becomes_oci_where_its_layers_become_zstd(
    engine: Engine, registry: Registry, tmp_path: Path, events: list[Event]
) -> None:
    options = CopyOptions(compress="zstd")
    copied = await engine.copy(f"docker://{registry.address}/app:docker", f"dir:{tmp_path}/out", options)
    image = manifests.parse((tmp_path / "out/manifest.json").read_bytes(), copied.descriptor.media_type)
    assert (image.media_type, image.layers[0].media_type) == (mediatype.OCI_MANIFEST, mediatype.OCI_LAYER_ZSTD)
    assert "becomes OCI" in warnings(events)
    back = CopyOptions(form="v2s2", compress="gzip")
    copied = await engine.copy(f"dir:{tmp_path}/out", f"store:{registry.address}/app:back", back)
    assert copied.descriptor.media_type == mediatype.DOCKER_MANIFEST
    assert (await engine.image(f"{registry.address}/app:back")).manifest.config.digest == Digest.of(OCI.config)


@pytest.mark.parametrize("transport", ["oci", "oci-archive"])
async def test_layouts_get_oci_unless_digests_are_to_stay(
    engine: Engine, registry: Registry, tmp_path: Path, transport: str
) -> None:
    source, end = f"docker://{registry.address}/app:docker", f"{transport}:{tmp_path}/out"
    assert (await engine.copy(source, end)).descriptor.media_type == mediatype.OCI_MANIFEST
    for options in (CopyOptions(preserve_digests=True), CopyOptions(signatures=True)):
        copied = await engine.copy(source, f"{end}-as-it-is", options)
        assert copied.descriptor.digest == DOCKER.descriptor.digest
    assert (await engine.copy(source, f"dir:{tmp_path}/dir")).descriptor.digest == DOCKER.descriptor.digest


async def test_all_images_of_an_index_are_converted_and_it_says_what_is_lost(
    engine: Engine, registry: Registry, tmp_path: Path, events: list[Event]
) -> None:
    source = f"docker://{registry.address}/app:index"
    copied = await engine.copy(source, f"oci:{tmp_path}/out", CopyOptions(platforms=ALL, form="v2s2"))
    document = blob(tmp_path / "out", copied.descriptor)
    entries = indexes.parse(document, mediatype.DOCKER_LIST).manifests
    assert [entry.platform for entry in entries] == [OCI.platform, OTHER.platform]
    for entry in entries:
        assert image_of(tmp_path / "out", entry).media_type == mediatype.DOCKER_MANIFEST
    assert warnings(events) == ""
    annotated = json.loads(OCI.manifest) | {"annotations": {"a": "b"}}
    registry.add_manifest("app", "told", mediatype.OCI_MANIFEST, json.dumps(annotated).encode())
    await engine.copy(f"docker://{registry.address}/app:told", f"oci:{tmp_path}/told", CopyOptions(form="v2s2"))
    assert "loses its annotations" in warnings(events)


async def test_what_the_other_form_cannot_hold_is_refused_before_anything_is_brought(
    engine: Engine, registry: Registry, tmp_path: Path
) -> None:
    source = f"docker://{registry.address}/app:oci"
    await engine.copy(source, f"oci:{tmp_path}/zstd", CopyOptions(compress="zstd"))
    with pytest.raises(UnsupportedError, match="zstd"):
        await engine.copy(f"oci:{tmp_path}/zstd", f"oci:{tmp_path}/out", CopyOptions(form="v2s2"))
    with pytest.raises(UnsupportedError, match="another digest"):
        await engine.copy(source, f"oci:{tmp_path}/out", CopyOptions(form="v2s2", preserve_digests=True))
    with pytest.raises(ValueError, match="zstd"):
        await engine.copy(source, f"oci:{tmp_path}/out", CopyOptions(form="v2s2", compress="zstd"))
    assert not (tmp_path / "out").exists()


async def test_content_decides_where_the_type_of_a_layer_lies(
    engine: Engine, registry: Registry, tmp_path: Path, events: list[Event]
) -> None:
    zstd = zstandard.ZstdCompressor().compress(tar_of(LAYERS[0].content))  # type: ignore[arg-type]
    lying = Layer(Descriptor.of(zstd, mediatype.OCI_LAYER_GZIP), LAYERS[0].diff_id, zstd)
    plain = Layer(replace(LAYERS[1].descriptor, media_type=mediatype.OCI_LAYER), LAYERS[1].diff_id, LAYERS[1].content)
    registry.add_image("app", "lies", Image.build([lying, plain]))
    copied = await engine.copy(
        f"docker://{registry.address}/app:lies", f"oci:{tmp_path}/out", CopyOptions(compress="zstd")
    )
    image = image_of(tmp_path / "out", copied.descriptor)
    assert {layer.media_type for layer in image.layers} == {mediatype.OCI_LAYER_ZSTD}
    assert image.layers[0].digest == lying.descriptor.digest
    assert diff_ids(tmp_path / "out", image) == [layer.diff_id for layer in LAYERS]
    assert "is said to be gzip and is zstd" in warnings(events)
    assert "is said to be a plain tar and is gzip" in warnings(events)


@pytest.mark.parametrize("many", [False, True], ids=["pull", "prefetch"])
async def test_who_fetches_a_layer_says_that_its_type_lies(
    engine: Engine, registry: Registry, events: list[Event], many: bool
) -> None:
    zstd = zstandard.ZstdCompressor().compress(tar_of(LAYERS[0].content))  # type: ignore[arg-type]
    lying = Layer(Descriptor.of(zstd, mediatype.OCI_LAYER_GZIP), LAYERS[0].diff_id, zstd)
    registry.add_image("app", "lies", Image.build([lying, LAYERS[1]]))
    name = f"{registry.address}/app:lies"
    for _ in range(2):
        if many:
            await engine.prefetch([PrefetchRequest(name)])
        else:
            await engine.pull(name)
    assert warnings(events) == f"layer {lying.descriptor.digest} {mediatype.lie_of(mediatype.OCI_LAYER_GZIP, 'zstd')}"
    assert mediatype.lie_of(mediatype.OCI_LAYER_GZIP, "zstd").startswith("is said to be gzip and is zstd")


@pytest.mark.attack
async def test_wrong_bytes_and_damaged_layers_leave_nothing(engine: Engine, registry: Registry, tmp_path: Path) -> None:
    content = LAYERS[1].content
    assert isinstance(content, bytes)
    registry.add_blob(str(LAYERS[1].descriptor.digest), content[:-1] + b"?")
    cut = content[:-9]
    registry.add_image(
        "app", "cut", Image.build([Layer(Descriptor.of(cut, mediatype.OCI_LAYER_GZIP), LAYERS[1].diff_id, cut)])
    )
    for tag, error in (("oci", DigestMismatchError), ("cut", FormatError)):
        with pytest.raises(error):
            await engine.copy(
                f"docker://{registry.address}/app:{tag}", f"oci:{tmp_path}/out", CopyOptions(compress="zstd")
            )
        assert not (tmp_path / "out" / "index.json").exists()


async def test_schema_1_is_copied_as_what_it_becomes(
    engine: Engine, registry: Registry, tmp_path: Path, events: list[Event]
) -> None:
    payload = payload_of([LAYERS[0].descriptor.digest, None, LAYERS[1].descriptor.digest])
    kind = mediatype.DOCKER_SCHEMA1_SIGNED
    registry.add_manifest("app", "old", kind, signed(payload), digest=str(Digest.of(payload)))
    source = f"docker://{registry.address}/app:old"
    copied = await engine.copy(source, f"oci:{tmp_path}/out:1", CopyOptions(form="oci"))
    image = image_of(tmp_path / "out", copied.descriptor)
    assert image.media_type == mediatype.OCI_MANIFEST
    assert diff_ids(tmp_path / "out", image) == [layer.diff_id for layer in LAYERS]
    config = json.loads(blob(tmp_path / "out", image.config))
    assert config["rootfs"]["diff_ids"] == [str(layer.diff_id) for layer in LAYERS]
    assert "schema 1" in warnings(events)
    with pytest.raises(UnsupportedError, match="another digest"):
        await engine.copy(source, f"oci:{tmp_path}/other", CopyOptions(preserve_digests=True))
    assert await engine.images() == ()


async def test_a_signed_image_of_schema_1_in_a_directory_is_what_it_signs(engine: Engine, tmp_path: Path) -> None:
    payload = payload_of([LAYERS[0].descriptor.digest, LAYERS[1].descriptor.digest])
    directory = tmp_path / "dir"
    directory.mkdir()
    (directory / "version").write_text("Directory Transport Version: 1.1\n")
    (directory / "manifest.json").write_bytes(signed(payload))
    for layer in LAYERS:
        assert isinstance(layer.content, bytes)
        (directory / layer.descriptor.digest.hex).write_bytes(layer.content)
    copied = await engine.copy(f"dir:{directory}", f"oci:{tmp_path}/out")
    image = image_of(tmp_path / "out", copied.descriptor)
    assert image.media_type == mediatype.OCI_MANIFEST
    assert diff_ids(tmp_path / "out", image) == [layer.diff_id for layer in LAYERS]


def test_skopeo_reads_what_was_converted_and_compressed_anew(
    tmp_path: Path, shared: Path, peer: Callable[[str], str]
) -> None:
    async def copy() -> None:
        async with Engine(tmp_path / "store") as engine:
            for name, options in (("zstd", CopyOptions(compress="zstd")), ("docker", CopyOptions(form="v2s2"))):
                await engine.copy(f"oci:{shared}/images/oci:alpine", f"oci:{tmp_path}/{name}", options)

    asyncio.run(copy())
    for name in ("zstd", "docker"):
        command = [peer("skopeo"), "--insecure-policy", "copy", "-q", f"oci:{tmp_path}/{name}", f"dir:{tmp_path}/dir"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
