"""Several platforms of an index at once: what is fetched, recorded, kept, mended and exported.

Covers: jobs/resolve.py, jobs/pull.py, jobs/offline.py, jobs/image.py, shortcuts.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import fastoci
from fastoci.errors import BlobNotFoundError, FastociError, PlatformError, ReferenceSyntaxError
from fastoci.events import BlobDone, Event, ImageDone, ImagePlanned, ImageStarted
from fastoci.image import index as index_document
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.platform import Platform
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve

BASE = Layer.build([Entry("base", "file", b"shared by all")])
NAMES = ("linux/amd64", "linux/arm64", "linux/arm/v7")


def image_for(name: str) -> Image:
    own = Layer.build([Entry(name.replace("/", "-"), "file", b"")])
    return Image.build([BASE, own], platform=Platform.parse(name))


IMAGES = {name: image_for(name) for name in NAMES}
ATTESTATION = Image.build([Layer.build([Entry("sbom", "file", b"")])], platform=Platform("unknown", "unknown"))
INDEX = Index.build([*IMAGES.values(), ATTESTATION])


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    made.add_image("multi", "latest", INDEX)
    with serve(made) as served:
        yield served


def add_index(registry: Registry, tag: str, entries: list[dict[str, Any]]) -> Descriptor:
    data = json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": entries}).encode()
    made = Descriptor.of(data, mediatype.OCI_INDEX)
    for name in (tag, str(made.digest)):
        registry.add_manifest("multi", name, made.media_type, data, digest=str(made.digest))
    return made


def names(images: tuple[fastoci.Image, ...]) -> list[str]:
    return [str(image.platform) for image in images]


async def test_several_platforms_are_pulled_with_each_blob_once_and_recorded_under_one_name(
    registry: Registry, tmp_path: Path
) -> None:
    events: list[Event] = []
    wanted = ("linux/arm64", "linux/amd64")
    name = f"{registry.address}/multi"
    async with fastoci.Engine(tmp_path / "store", observer=events.append) as engine:
        pulled = await engine.pull_platforms(name, wanted)
        assert names(pulled) == list(wanted)
        assert [image.manifest_descriptor.digest for image in pulled] == [IMAGES[n].descriptor.digest for n in wanted]
        (ref,) = await engine.images()
        assert (ref.descriptor.digest, set(ref.images)) == (INDEX.descriptor.digest, set(wanted))
        for platform in wanted:
            await (await engine.image(name, platform=platform)).unpack(tmp_path / platform)
            assert sorted(path.name for path in (tmp_path / platform).iterdir()) == ["base", platform.replace("/", "-")]
        with pytest.raises(PlatformError):
            await engine.image(name, platform="linux/arm/v7")
    done = [event.blob for event in events if isinstance(event, BlobDone)]
    assert len(done) == len(set(done)) and str(BASE.descriptor.digest) in done
    assert [event.platform for event in events if isinstance(event, ImagePlanned)] == list(wanted)
    assert len([event for event in events if isinstance(event, ImageStarted)]) == 1
    assert [event.digest for event in events if isinstance(event, ImageDone)] == [str(INDEX.descriptor.digest)]
    asked = [request.path for request in registry.log if request.path.endswith(str(BASE.descriptor.digest))]
    assert len(asked) == 1


async def test_all_are_the_images_of_the_index_and_no_attestations(registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/multi"
    async with fastoci.Engine(tmp_path / "store") as engine:
        assert names(await engine.pull_platforms(name, ["all"])) == list(NAMES)
        (ref,) = await engine.images()
        assert set(ref.images) == set(NAMES)


async def test_a_platform_that_the_index_does_not_have_records_nothing(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path / "store") as engine:
        with pytest.raises(PlatformError, match="no manifest for linux/s390x"):
            await engine.pull_platforms(f"{registry.address}/multi", ["linux/amd64", "linux/s390x"])
        assert await engine.images() == ()


async def test_a_part_that_is_gone_records_nothing_and_the_next_pull_goes_on(
    registry: Registry, tmp_path: Path
) -> None:
    name, lost = f"{registry.address}/multi", IMAGES["linux/arm64"].layers[1]
    registry.remove_blob(str(lost.descriptor.digest))
    async with fastoci.Engine(tmp_path / "store") as engine:
        with pytest.raises(FastociError):
            await engine.pull_platforms(name, ["all"])
        assert await engine.images() == ()
        registry.add_blob(str(lost.descriptor.digest), lost.content)
        assert len(await engine.pull_platforms(name, ["all"])) == len(NAMES)


async def test_two_platforms_of_one_manifest_are_one_image(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path / "store") as engine:
        found = await engine.pull_platforms(f"{registry.address}/multi", ["linux/amd64", "linux/amd64/v3", "amd64"])
        assert names(found) == ["linux/amd64"]


async def test_a_lone_manifest_is_all_that_there_is_and_has_one_platform(registry: Registry, tmp_path: Path) -> None:
    registry.add_image("one", "latest", IMAGES["linux/arm64"])
    name = f"{registry.address}/one"
    async with fastoci.Engine(tmp_path / "store") as engine:
        assert names(await engine.pull_platforms(name, ["all"])) == ["linux/arm64"]
        with pytest.raises(PlatformError, match="linux/arm64 only"):
            await engine.pull_platforms(name, ["linux/arm64", "linux/amd64"])


async def test_all_are_found_in_nested_indexes_and_where_nothing_says_a_platform(
    registry: Registry, tmp_path: Path
) -> None:
    arm, amd = IMAGES["linux/arm64"].descriptor, IMAGES["linux/amd64"].descriptor
    inner = add_index(registry, "inner", [encode(replace(arm, platform=None))])
    add_index(
        registry,
        "nested",
        [encode(amd), encode(replace(inner, platform=arm.platform)), encode(replace(amd, annotations={"x": "y"}))],
    )
    add_index(registry, "silent", [encode(replace(each, platform=None)) for each in (arm, amd)])
    async with fastoci.Engine(tmp_path / "store") as engine:
        for tag in ("nested", "silent"):
            found = await engine.pull_platforms(f"{registry.address}/multi:{tag}", ["all"])
            assert sorted(names(found)) == ["linux/amd64", "linux/arm64"]
            ref = (await engine.images([f"{registry.address}/multi:{tag}"]))[0]
            assert set(ref.images) == {"linux/amd64", "linux/arm64"}


async def test_an_index_without_images_has_nothing_of_all(registry: Registry, tmp_path: Path) -> None:
    add_index(registry, "none", [encode(ATTESTATION.descriptor)])
    async with fastoci.Engine(tmp_path / "store") as engine:
        with pytest.raises(PlatformError, match="the index has no image; it has unknown/unknown"):
            await engine.pull_platforms(f"{registry.address}/multi:none", ["all"])


async def test_the_store_gives_what_it_has_of_several_platforms(registry: Registry, tmp_path: Path) -> None:
    name, two = f"{registry.address}/multi", list(NAMES[:2])
    async with fastoci.Engine(tmp_path / "store") as engine:
        await engine.pull_platforms(name, two)
        asked = len(registry.log)
        assert names(await engine.pull_platforms(name, two, policy="never")) == two
        assert names(await engine.pull_platforms(name, two, policy="missing")) == two
        assert names(await engine.pull_platforms(name, ["all"], policy="never")) == two
        with pytest.raises(PlatformError):
            await engine.pull_platforms(name, NAMES, policy="never")
        assert len(registry.log) == asked
        assert names(await engine.pull_platforms(name, ["all"], policy="missing")) == list(NAMES)
        assert names(await engine.pull_platforms(name, ["all"], policy="never")) == sorted(NAMES)


async def test_what_was_pulled_stays_through_gc_and_goes_with_its_name(registry: Registry, tmp_path: Path) -> None:
    name, two = f"{registry.address}/multi", NAMES[:2]
    async with fastoci.Engine(tmp_path / "store") as engine:
        await engine.pull_platforms(name, two)
        await engine.gc()
        verified = await engine.verify([name])
        assert (verified.blobs, verified.bad) == (2 * 3 + 1 + 1, ())  # manifest, config, layer; the base; the index
        assert [image.size for image in await engine.images()] == [
            sum({blob.digest: blob.size for n in two for blob, _ in IMAGES[n].blobs()}.values())
        ]
        await engine.remove(name)
        await engine.gc()
        assert not list((tmp_path / "store/blobs/sha256").iterdir())


async def test_a_repair_brings_back_what_is_lost_of_each_platform(registry: Registry, tmp_path: Path) -> None:
    name, two = f"{registry.address}/multi", NAMES[:2]
    blobs = tmp_path / "store/blobs/sha256"
    async with fastoci.Engine(tmp_path / "store") as engine:
        await engine.pull_platforms(name, two)
        lost = {IMAGES[each].layers[1].descriptor.digest.hex for each in two}
        lost.add(IMAGES[two[1]].descriptor.digest.hex)
        for each in lost:
            (blobs / each).unlink()
        with pytest.raises(BlobNotFoundError):
            await engine.pull_platforms(name, two, policy="never")
        repaired = await engine.repair([name])
        assert ({each.partition(":")[2] for each in repaired.repaired}, repaired.failed) == (lost, ())
        assert len(await engine.pull_platforms(name, two, policy="never")) == 2


@pytest.mark.parametrize("by", ["the images", "the store"])
async def test_a_layout_of_several_platforms_names_the_index_and_has_what_was_asked_for(
    registry: Registry, tmp_path: Path, by: str
) -> None:
    name, layout = f"{registry.address}/multi", tmp_path / "layout"
    async with fastoci.Engine(tmp_path / "store") as engine:
        images = await engine.pull_platforms(name, NAMES[:2])
        if by == "the images":
            await images[0].export(layout, images[1:])
        else:
            await engine.export(layout, [name])
    (entry,) = index_document.parse((layout / "index.json").read_bytes(), mediatype.OCI_INDEX).manifests
    assert entry.digest == INDEX.descriptor.digest
    wanted = {blob.digest.hex for each in NAMES[:2] for blob, _ in (*IMAGES[each].blobs(), *IMAGES[each].documents())}
    assert {path.name for path in (layout / "blobs/sha256").iterdir()} == wanted | {INDEX.descriptor.digest.hex}


async def test_an_index_that_is_damaged_in_the_store_is_mended_on_its_way_out(
    registry: Registry, tmp_path: Path
) -> None:
    name, layout = f"{registry.address}/multi", tmp_path / "layout"
    async with fastoci.Engine(tmp_path / "store") as engine:
        images = await engine.pull_platforms(name, NAMES[:2])
        path = await engine.path(INDEX.descriptor.digest)
        path.chmod(0o644)
        path.write_bytes(bytes(len(INDEX.index)))
        await images[0].export(layout, images[1:])
    assert (layout / "blobs/sha256" / INDEX.descriptor.digest.hex).read_bytes() == INDEX.index


def test_programs_that_are_not_async_pull_several_too(registry: Registry, tmp_path: Path) -> None:
    name, store = f"{registry.address}/multi", tmp_path / "store"
    assert fastoci.pull(name, store=store, platform=NAMES[:2]) == store
    fastoci.pull(name, store=store, platform=["all"], policy="never")
    entries = json.loads((store / "index.json").read_bytes())["manifests"]
    assert [entry["digest"] for entry in entries] == [str(INDEX.descriptor.digest)]
    with pytest.raises(ValueError, match="one platform"):
        fastoci.pull(name, store=tmp_path / "other", platform=NAMES, rootfs=tmp_path / "root")
    with pytest.raises(ReferenceSyntaxError):
        fastoci.pull(name, store=tmp_path / "other", platform=["all", "a/b/c/d"])
    with pytest.raises(ReferenceSyntaxError):
        fastoci.pull(name, store=tmp_path / "other", platform="all")
    assert not (tmp_path / "other").exists()
