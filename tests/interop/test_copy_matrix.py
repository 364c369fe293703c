"""Each place that images come from, to each that they go to: with docker-registry, and with skopeo on either side.

``FASTOCI_IMAGES=all`` copies all shared images, and lets skopeo read every result.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from fastoci import CopyOptions, Engine
from fastoci.errors import UnsupportedError
from fastoci.image.digest import Digest
from fastoci.image.platform import Platform
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Layer
from fastoci.testing.registry import Registry, serve
from support.images import made

PLACES = ("docker", "oci", "oci-archive", "docker-archive", "dir", "store")
FOREIGN = tuple(place for place in PLACES if place != "store")  # that skopeo writes, too
ALL = CopyOptions(platforms=("all",))
IMAGE = Image.build([Layer.build(made(seed, files=2, size=3000)) for seed in (1, 2)])
INDEX = Index.build([IMAGE, Image.build([IMAGE.layers[0]], platform=Platform("linux", "arm64", "v8"))])
EVERYTHING = os.environ.get("FASTOCI_IMAGES") == "all"
NAME = "docker.io/library/one:1"
NAMELESS = "alpine-net-monitor"  # its manifest does not say its media type, so docker-registry refuses it
LARGE = "node-app"  # from one place to all
UNREAD = ("gzip-header-crc", "zstd-skippable-first")  # of which skopeo sees no compression in an archive of docker
IMAGES = Path(__file__).resolve().parents[2].parent / "shared" / "images"


class Peer(Protocol):
    address: str


class Places:
    """Names for one image in each place, and what skopeo calls them."""

    def __init__(self, directory: Path, registry: str, store: Path) -> None:
        self._directory = directory
        self._registry = registry
        self._store = store

    def end(self, place: str, name: str) -> str:
        """What an image is called in a place."""
        path = self._directory / f"{name}.{place}"
        ends: Mapping[str, str] = {
            "docker": f"docker://{self._registry}/{self._directory.name.lower().replace('_', '-')}/{name}:1",
            "oci": f"oci:{path}:one",
            "oci-archive": f"oci-archive:{path}:one",
            "docker-archive": f"docker-archive:{path}:{NAME}",
            "dir": f"dir:{path}",
            "store": f"store:matrix.test/{name}:1",
        }
        return ends[place]

    def for_skopeo(self, end: str) -> str:
        """The same for skopeo, which takes the store for a layout."""
        return f"oci:{self._store}:{end.removeprefix('store:')}" if end.startswith("store:") else end


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with Engine(tmp_path / "store") as engine:
        yield engine


@pytest.fixture
def places(tmp_path: Path, docker_registry: Peer) -> Places:
    return Places(tmp_path, docker_registry.address, tmp_path / "store")


@pytest.fixture
async def origin() -> AsyncIterator[str]:
    """A registry that has the images: ``docker://ADDRESS/NAME``."""
    registry = Registry()
    registry.add_image("image", "1", IMAGE)
    registry.add_image("index", "1", INDEX)
    with serve(registry):
        yield f"docker://{registry.address}"


def parts(*images: Image | Index) -> set[str]:
    """The digests of all that images are made of."""
    return {str(blob.digest) for image in images for blob, _ in (*image.documents(), *image.blobs())}


async def everything_of(engine: Engine, end: str, layout: Path) -> set[str]:
    """The digests of what an image at an end is made of, each held against its bytes."""
    await engine.copy(end, f"oci:{layout}", ALL)
    found = set()
    for path in (layout / "blobs/sha256").iterdir():
        assert Digest.of(path.read_bytes()).hex == path.name
        found.add(f"sha256:{path.name}")
    return found


@pytest.mark.parametrize("source", PLACES)
async def test_an_image_goes_from_each_place_to_each_and_is_the_same(
    engine: Engine, places: Places, origin: str, tmp_path: Path, source: str
) -> None:
    begin = places.end(source, "begin")
    await engine.copy(f"{origin}/image:1", begin)
    for place in PLACES:
        end = places.end(place, f"from-{source}")
        copied = await engine.copy(begin, end)
        assert copied.descriptor.digest == IMAGE.descriptor.digest
        assert await everything_of(engine, end, tmp_path / f"check-{place}") == parts(IMAGE)


@pytest.mark.parametrize("source", PLACES if EVERYTHING else ("docker-archive", "store"))
async def test_all_platforms_go_wherever_an_index_can_be(
    engine: Engine, places: Places, origin: str, tmp_path: Path, source: str
) -> None:
    begin = places.end(source, "begin")
    if source == "docker-archive":
        with pytest.raises(UnsupportedError, match="several platforms"):
            await engine.copy(f"{origin}/index:1", begin, ALL)
        return
    await engine.copy(f"{origin}/index:1", begin, ALL)
    for place in PLACES:
        if place != "docker-archive":
            end = places.end(place, f"all-from-{source}")
            await engine.copy(begin, end, ALL)
            assert await everything_of(engine, end, tmp_path / f"check-{place}") == parts(INDEX)


@pytest.mark.parametrize("place", PLACES)
async def test_skopeo_reads_every_result(
    engine: Engine, places: Places, origin: str, tmp_path: Path, copy_image: Callable[..., None], place: str
) -> None:
    end = places.end(place, "image")
    await engine.copy(f"{origin}/image:1", end)
    await asyncio.to_thread(read_by_skopeo, copy_image, places.for_skopeo(end), tmp_path / "read", IMAGE)


def read_by_skopeo(copy_image: Callable[..., None], end: str, into: Path, image: Image) -> None:
    """Let skopeo read all of an image, which verifies it."""
    copy_image(end, f"dir:{into}")
    manifest = (into / "manifest.json").read_bytes()
    if not end.startswith("docker-archive:"):  # of which skopeo makes a manifest of its own
        assert manifest == image.manifest
    assert json.loads(manifest)["config"]["digest"] == str(Digest.of(image.config))


@pytest.mark.parametrize("place", FOREIGN)
async def test_what_skopeo_writes_is_read(
    engine: Engine, places: Places, origin: str, tmp_path: Path, copy_image: Callable[..., None], place: str
) -> None:
    end = places.end(place, "image")
    await asyncio.to_thread(copy_image, f"{origin}/image:1", end)
    copied = await engine.copy(end, f"oci:{tmp_path}/read")
    if place == "docker-archive":  # which keeps configs, and layers without their compression
        manifest = json.loads((tmp_path / "read/blobs/sha256" / copied.descriptor.digest.hex).read_bytes())
        assert manifest["config"]["digest"] == str(Digest.of(IMAGE.config))
    else:
        assert copied.descriptor.digest == IMAGE.descriptor.digest
        assert await everything_of(engine, end, tmp_path / "read") == parts(IMAGE)


@pytest.mark.parametrize("name", ["image", "index"])
async def test_the_layout_is_the_one_that_skopeo_leaves(
    engine: Engine, origin: str, tmp_path: Path, copy_image: Callable[..., None], name: str
) -> None:
    source = f"{origin}/{name}:1"
    await asyncio.to_thread(copy_image, source, f"oci:{tmp_path}/theirs")
    await engine.copy(source, f"oci:{tmp_path}/ours")
    await asyncio.to_thread(copy_image, source, f"oci:{tmp_path}/theirs-all:all", "--all")
    await engine.copy(source, f"oci:{tmp_path}/ours-all:all", ALL)
    for kind in ("", "-all"):
        ours, theirs = tmp_path / f"ours{kind}", tmp_path / f"theirs{kind}"
        assert (ours / "index.json").read_bytes() == (theirs / "index.json").read_bytes()
        assert contents(ours) == contents(theirs)


def shared_images() -> list[tuple[str, str]]:
    """The layouts of the shared folder and their images; a placeholder in the short form."""
    found = []
    for layout in ("oci", "docker-schema2", "edge-cases") if EVERYTHING else ():
        rows = json.loads((IMAGES / layout / "index.json").read_bytes())["manifests"]
        found += [(layout, row["annotations"]["org.opencontainers.image.ref.name"]) for row in rows]
    found = [each for each in found if each[1] != NAMELESS]
    return found or [("none", "none")]


@pytest.mark.parametrize(("layout", "name"), shared_images())
async def test_a_shared_image_goes_from_each_place_to_each(
    engine: Engine, places: Places, tmp_path: Path, copy_image: Callable[..., None], layout: str, name: str
) -> None:
    if not EVERYTHING:
        pytest.skip("FASTOCI_IMAGES=all: the long form")
    options = CopyOptions(platforms=("linux/amd64",))
    first = await engine.copy(f"oci:{IMAGES / layout}:{name}", places.end("oci", "seed"), options)
    everywhere = [place for place in PLACES if name != "artifact" or place != "docker-archive"]
    for source in everywhere if name != LARGE else ("docker",):
        begin = places.end(source, "begin")
        assert (await engine.copy(places.end("oci", "seed"), begin)).descriptor.digest == first.descriptor.digest
        for place in everywhere:
            copied = await engine.copy(begin, places.end(place, f"from-{source}"))
            assert copied.descriptor.digest == first.descriptor.digest
        # Docker's manifests in a layout skopeo takes for none.
        is_seen = layout != "docker-schema2" or source in ("docker", "docker-archive", "dir")
        if is_seen and not (source == "docker-archive" and name in UNREAD):
            await asyncio.to_thread(copy_image, places.for_skopeo(begin), f"dir:{tmp_path}/read-{source}")


def contents(layout: Path) -> dict[str, bytes]:
    """The blobs of a layout."""
    return {path.name: path.read_bytes() for path in (layout / "blobs/sha256").iterdir()}
