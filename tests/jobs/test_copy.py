"""Copies between a registry, a layout and the store: what comes, what is there already, and what an error leaves.

Covers: ends.py, jobs/gathering.py, jobs/store_end.py, layouts/oci_layout_source.py, layouts/open_file.py.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from fastoci import CopyOptions, EndOptions, Engine
from fastoci.errors import (
    BlobNotFoundError,
    DigestMismatchError,
    EndNotFoundError,
    FastociError,
    NotFoundError,
    PlatformError,
    ReferenceSyntaxError,
    UnsupportedError,
)
from fastoci.events import BlobDone, Event, ImageDone, ImageFailed, ImagePlanned
from fastoci.image.digest import Digest
from fastoci.image.layout import REF_NAME
from fastoci.image.platform import Platform
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Layer
from fastoci.testing.registry import Registry, serve
from fastoci.testing.uploads import Uploads
from support.images import made

ARM64 = Platform("linux", "arm64", "v8")
SHARED = Layer.build(made(1, files=2, size=2000))
IMAGE = Image.build([SHARED, Layer.build(made(2, files=1, size=1_500_000))])
OTHER = Image.build([SHARED, Layer.build(made(3, files=1, size=100))], platform=ARM64)
INDEX = Index.build([IMAGE, OTHER])
BOTH = ("linux/amd64", "linux/arm64")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    (tmp_path / "pushed").mkdir()
    registry = Registry(uploads=Uploads(tmp_path / "pushed"))
    registry.add_image("app", "1", INDEX)
    registry.add_image("app", "amd64", IMAGE)
    with serve(registry):
        yield registry


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
async def engine(tmp_path: Path, events: list[Event]) -> AsyncIterator[Engine]:
    async with Engine(tmp_path / "store", observer=events.append) as engine:
        yield engine


def entries(layout: Path) -> list[tuple[str, str]]:
    """What ``index.json`` names, and what they are."""
    manifests = json.loads((layout / "index.json").read_bytes())["manifests"]
    return [(each.get("annotations", {}).get(REF_NAME, ""), each["digest"]) for each in manifests]


def blobs(layout: Path) -> set[str]:
    """The digests of the blobs, each of which is right."""
    found = set()
    for path in (layout / "blobs/sha256").iterdir():
        assert Digest.of(path.read_bytes()).hex == path.name
        found.add(f"sha256:{path.name}")
    return found


def parts(*images: Image | Index) -> set[str]:
    """The digests of all that images are made of."""
    return {str(blob.digest) for image in images for blob, _ in (*image.documents(), *image.blobs())}


async def test_one_platform_of_an_index_comes_to_a_layout(engine: Engine, registry: Registry, tmp_path: Path) -> None:
    copied = await engine.copy(
        f"docker://{registry.address}/app:1", f"oci:{tmp_path}/a:b", CopyOptions(platforms=("linux/arm64",))
    )
    assert entries(tmp_path / "a") == [("b", str(OTHER.descriptor.digest))]
    assert blobs(tmp_path / "a") == parts(OTHER)
    assert copied.descriptor.digest == OTHER.descriptor.digest
    assert (copied.brought, copied.there) == (3, 0)
    assert copied.sent == sum(blob.size for blob, _ in OTHER.blobs())


async def test_all_of_an_index_comes_as_it_is(engine: Engine, registry: Registry, tmp_path: Path) -> None:
    await engine.copy(f"docker://{registry.address}/app:1", f"oci:{tmp_path}/a", CopyOptions(platforms=("all",)))
    assert entries(tmp_path / "a") == [("", str(INDEX.descriptor.digest))]
    assert blobs(tmp_path / "a") == parts(INDEX)


async def test_several_platforms_get_an_index_of_theirs(engine: Engine, registry: Registry, tmp_path: Path) -> None:
    third = Image.build([SHARED], platform=Platform("linux", "s390x"))
    registry.add_image("app", "three", Index.build([third, OTHER, IMAGE]))
    source = f"docker://{registry.address}/app:three"
    copied = await engine.copy(source, f"oci:{tmp_path}/a", CopyOptions(platforms=BOTH))
    index = json.loads((tmp_path / "a/blobs/sha256" / copied.descriptor.digest.hex).read_bytes())
    assert [each["digest"] for each in index["manifests"]] == [str(each.descriptor.digest) for each in (IMAGE, OTHER)]
    assert blobs(tmp_path / "a") == {*parts(IMAGE, OTHER), str(copied.descriptor.digest)}
    with pytest.raises(UnsupportedError, match="has another digest"):
        await engine.copy(source, f"oci:{tmp_path}/a", CopyOptions(platforms=BOTH, preserve_digests=True))


async def test_an_image_goes_all_ways_and_is_the_same(engine: Engine, registry: Registry, tmp_path: Path) -> None:
    everything = CopyOptions(platforms=("all",))
    ways = [
        f"docker://{registry.address}/app:1",
        f"oci:{tmp_path}/a:one",
        "store:registry.test/app:2",
        f"docker://{registry.address}/copy:1",
        f"oci:{tmp_path}/b",
        "store:registry.test/app:3",
        "store:registry.test/app:4",
    ]
    for source, destination in itertools.pairwise(ways):
        copied = await engine.copy(source, destination, everything)
        assert copied.descriptor.digest == INDEX.descriptor.digest
    assert blobs(tmp_path / "b") == parts(INDEX)
    stored = {image.name: image for image in await engine.images()}
    for tag in "234":
        assert stored[f"registry.test/app:{tag}"].descriptor.digest == INDEX.descriptor.digest
        assert list(stored[f"registry.test/app:{tag}"].images) == ["linux/amd64", "linux/arm64/v8"]
    await engine.gc()
    image = await engine.image("registry.test/app:4", platform="linux/arm64")
    await image.check()


async def test_blobs_of_the_store_are_linked(engine: Engine, registry: Registry, tmp_path: Path) -> None:
    await engine.copy(f"docker://{registry.address}/app:amd64", "store:x/app")
    copied = await engine.copy("store:x/app", f"oci:{tmp_path}/a")
    assert (copied.linked, copied.sent) == (3, 0)
    layer = IMAGE.layers[0].descriptor.digest.hex
    assert (tmp_path / "a/blobs/sha256" / layer).samefile(tmp_path / "store/blobs/sha256" / layer)


async def test_bytes_go_from_registry_to_registry_and_touch_no_disk(
    engine: Engine, registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with serve(Registry(uploads=Uploads(tmp_path / "other"))) as other:
        source, destination = f"docker://{registry.address}/app:1", f"docker://{other.address}/to/app:2"
        copied = await engine.copy(source, destination, CopyOptions(platforms=("all",)))
        assert (copied.brought, copied.there) == (5, 0)
        assert [path for path in (tmp_path / "store/blobs").rglob("*") if path.is_file()] == []
        again = await engine.copy(source, destination, CopyOptions(platforms=("all",), names=("3",)))
        assert (again.brought, again.there, again.sent) == (0, 5, 0)
        for tag in "23":
            resolved = await engine.resolve(f"{other.address}/to/app:{tag}")
            assert resolved.top.digest == INDEX.descriptor.digest


async def test_wrong_bytes_get_no_name_in_a_registry(engine: Engine, registry: Registry, tmp_path: Path) -> None:
    layer = IMAGE.layers[1].descriptor
    registry.add_blob(str(layer.digest), bytes(layer.size))
    (tmp_path / "other").mkdir()
    with serve(Registry(uploads=Uploads(tmp_path / "other"))) as other:
        with pytest.raises(DigestMismatchError):
            await engine.copy(f"docker://{registry.address}/app:amd64", f"docker://{other.address}/app:1")
        with pytest.raises(NotFoundError):
            await engine.resolve(f"{other.address}/app:1")


async def test_within_a_registry_blobs_are_mounted(engine: Engine, registry: Registry) -> None:
    (await engine.copy(f"docker://{registry.address}/app:amd64", f"docker://{registry.address}/one:1"))
    copied = await engine.copy(f"docker://{registry.address}/one:1", f"docker://{registry.address}/two:1")
    assert (copied.mounted + copied.there, copied.sent) == (3, 0)


async def test_a_digest_that_a_destination_names_is_the_one(engine: Engine, registry: Registry) -> None:
    source = f"docker://{registry.address}/app:amd64"
    await engine.copy(source, f"docker://{registry.address}/exact@{IMAGE.descriptor.digest}")
    found = await engine.resolve(f"{registry.address}/exact@{IMAGE.descriptor.digest}")
    assert found.top.digest == IMAGE.descriptor.digest
    with pytest.raises(UnsupportedError, match="and no other can be there"):
        await engine.copy(source, f"docker://{registry.address}/exact@{OTHER.descriptor.digest}")


async def test_what_is_there_is_not_sent_again(engine: Engine, registry: Registry, tmp_path: Path) -> None:
    source, destination = f"docker://{registry.address}/app:amd64", f"oci:{tmp_path}/a:b"
    await engine.copy(source, destination)
    registry.log.clear()
    copied = await engine.copy(source, destination)
    assert (copied.there, copied.brought, copied.sent) == (3, 0, 0)
    assert not [entry for entry in registry.log if "/blobs/" in entry.path]


async def test_no_blob_of_a_copy_is_left_in_the_store(engine: Engine, registry: Registry, tmp_path: Path) -> None:
    await engine.copy(f"docker://{registry.address}/app:amd64", f"oci:{tmp_path}/a")
    assert [path for path in (tmp_path / "store/blobs").rglob("*") if path.is_file()] == []


async def test_an_image_gets_several_names(engine: Engine, registry: Registry, tmp_path: Path) -> None:
    source = f"docker://{registry.address}/app:amd64"
    await engine.copy(source, f"oci:{tmp_path}/a:b", CopyOptions(names=("c", "d/e:f")))
    assert [name for name, _ in entries(tmp_path / "a")] == ["b", "c", "d/e:f"]
    await engine.copy(source, "store:x/app:1", CopyOptions(names=("2", "latest")))
    assert [image.name for image in await engine.images()] == [f"docker.io/x/app:{tag}" for tag in ("1", "2", "latest")]


async def test_blobs_are_shared_between_layouts(engine: Engine, registry: Registry, tmp_path: Path) -> None:
    shared = EndOptions(shared_blobs=str(tmp_path / "blobs"))
    source = f"docker://{registry.address}/app:1"
    for name, platform in zip("ab", BOTH, strict=True):
        options = CopyOptions(platforms=(platform,), destination=shared)
        await engine.copy(source, f"oci:{tmp_path}/{name}", options)
        assert [*(tmp_path / name / "blobs").iterdir()] == []
    assert blobs(tmp_path / "blobs" / "..") == parts(IMAGE, OTHER)
    await engine.copy(f"oci:{tmp_path}/b", f"oci:{tmp_path}/c", CopyOptions(source=shared))
    assert blobs(tmp_path / "c") == parts(OTHER)
    assert not list(tmp_path.rglob(".fastoci.lock"))


async def test_an_image_of_a_layout_is_chosen_by_name_or_number(
    engine: Engine, registry: Registry, tmp_path: Path
) -> None:
    for name, platform in zip("ab", BOTH, strict=True):
        options = CopyOptions(platforms=(platform,))
        await engine.copy(f"docker://{registry.address}/app:1", f"oci:{tmp_path}/l:{name}", options)
    for text, image in (("a", IMAGE), ("b", OTHER), ("@0", IMAGE), ("@1", OTHER)):
        copied = await engine.copy(f"oci:{tmp_path}/l:{text}", f"oci:{tmp_path}/m")
        assert copied.descriptor.digest == image.descriptor.digest
    for text, error, words in (
        (
            f"oci:{tmp_path}/l",
            ReferenceSyntaxError,
            "has 2 images: choose one by name.*; there are a, b",
        ),
        (f"oci:{tmp_path}/l:c", BlobNotFoundError, "has no image of that name; there are a, b"),
        (f"oci:{tmp_path}/l:@2", BlobNotFoundError, "has 2 images, and @0 is the first"),
        (f"oci:{tmp_path}/none", EndNotFoundError, "is not there"),
        (f"oci:{tmp_path}", BlobNotFoundError, "is no OCI layout"),
    ):
        with pytest.raises(error, match=words):
            await engine.copy(text, f"oci:{tmp_path}/n")
    assert not (tmp_path / "n").exists()


async def test_wrong_bytes_never_arrive(
    engine: Engine, registry: Registry, tmp_path: Path, events: Sequence[Event]
) -> None:
    source = f"docker://{registry.address}/app:amd64"
    layer = IMAGE.layers[1].descriptor
    registry.add_blob(str(layer.digest), bytes(layer.size))
    for destination in (f"oci:{tmp_path}/a:b", "store:x/app"):
        with pytest.raises(DigestMismatchError) as caught:
            await engine.copy(source, destination)
        assert (caught.value.image, caught.value.blob) == (source, str(layer.digest))
    assert str(layer.digest) not in blobs(tmp_path / "a")
    assert not (tmp_path / "a/index.json").exists()
    assert await engine.images() == ()
    assert [type(event) for event in events if isinstance(event, ImageDone | ImageFailed)] == [ImageFailed] * 2


async def test_a_layout_whose_bytes_are_wrong_is_no_source(engine: Engine, registry: Registry, tmp_path: Path) -> None:
    await engine.copy(f"docker://{registry.address}/app:amd64", f"oci:{tmp_path}/a")
    layer = tmp_path / "a/blobs/sha256" / IMAGE.layers[1].descriptor.digest.hex
    layer.chmod(0o644)
    layer.write_bytes(bytes(layer.stat().st_size))
    with pytest.raises(DigestMismatchError):
        await engine.copy(f"oci:{tmp_path}/a", f"oci:{tmp_path}/b")
    assert layer.name not in {path.name for path in (tmp_path / "b/blobs/sha256").iterdir()}
    layer.write_bytes(b"short")
    with pytest.raises(FastociError, match="has 5 bytes"):
        await engine.copy(f"oci:{tmp_path}/a", f"oci:{tmp_path}/b")
    layer.unlink()
    layer.symlink_to("/etc/hostname")
    with pytest.raises(FastociError):
        await engine.copy(f"oci:{tmp_path}/a", f"oci:{tmp_path}/b")


async def test_what_cannot_be_is_told_before_anything_is_asked(
    engine: Engine, registry: Registry, tmp_path: Path
) -> None:
    for source, destination in (
        ("redis", f"oci:{tmp_path}/a"),
        (f"docker://{registry.address}/app:1", f"oci:{tmp_path}/a:@0"),
        (f"docker://{registry.address}/app:1", "oci:"),
    ):
        with pytest.raises(ReferenceSyntaxError):
            await engine.copy(source, destination)
    assert registry.log == []


async def test_a_platform_that_is_not_there_is_told(engine: Engine, registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(PlatformError):
        await engine.copy(
            f"docker://{registry.address}/app:1", f"oci:{tmp_path}/a", CopyOptions(platforms=("linux/s390x",))
        )
    assert not (tmp_path / "a").exists()


async def test_observers_are_told_what_is_missing_and_what_came(
    engine: Engine, registry: Registry, tmp_path: Path, events: Sequence[Event]
) -> None:
    source = f"docker://{registry.address}/app:amd64"
    await engine.copy(source, f"oci:{tmp_path}/a")
    planned = next(event for event in events if isinstance(event, ImagePlanned))
    assert set(planned.missing) == parts(IMAGE)
    assert {event.blob for event in events if isinstance(event, BlobDone)} == {
        str(blob.digest) for blob, _ in IMAGE.blobs()
    }
    assert events[-1] == ImageDone(source, str(IMAGE.descriptor.digest))
