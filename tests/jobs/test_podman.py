"""Images that a store shows to podman: records, links and tar-split, and what becomes of them."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import fastoci
from fastoci import IntoPodman, PrefetchRequest
from fastoci.errors import UnsupportedError
from fastoci.image.digest import Digest
from fastoci.image.platform import Platform
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Entry, Layer, directory, hardlink, whiteout
from fastoci.testing.registry import Registry, serve
from fastoci.testing.trees import differences, listing, overlay
from support.image_stores import Reader, records
from support.overlays import needs_mounts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layer directories with owners need root")

BASE = [directory(".", mode=0o755), directory("etc"), Entry("etc/old", data=b"old"), Entry("etc/kept", data=b"kept")]
UPPER = [directory("etc"), whiteout("etc/old"), Entry("etc/new", data=b"new", uid=1234)]
LINKED = [hardlink("again", "etc/kept")]
# Of no other process that tests: what is mounted anywhere on the machine stays, told by its digest.
OTHER = [Entry(f"b-{os.environ.get('PYTEST_XDIST_WORKER')}")]
STRICT_ROOT = [directory(".", mode=0o511), directory("etc"), Entry("etc/old", data=b"old")]
IMAGES = {
    "plain": [BASE, UPPER],
    "other": [BASE, OTHER],
    "merged": [BASE, LINKED, UPPER],
    "root": [STRICT_ROOT, UPPER],
    "twice": [BASE, UPPER, BASE],
}


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        for name, layers in IMAGES.items():
            registry.add_image(name, "latest", Image.build([Layer.build(layer) for layer in layers]))
        yield registry


async def show(store: Path, registry: Registry, *names: str) -> None:
    async with fastoci.Engine(store) as engine:
        for name in names:
            image = await engine.pull(f"{registry.address}/{name}")
            await image.show_to_podman()


async def test_records_lead_to_the_layer_directories(registry: Registry, tmp_path: Path) -> None:
    await show(tmp_path, registry, "plain")
    (image,), layers = records(tmp_path, "images"), records(tmp_path, "layers")
    assert image["names"] == [f"{registry.address}/plain:latest"]
    assert image["layer"] == layers[-1]["id"]
    assert [layer["diff-digest"] for layer in layers] == [str(Layer.build(each).diff_id) for each in (BASE, UPPER)]
    assert layers[1]["uidset"] == [0, 1234]
    overlay = tmp_path / "layers/overlay"
    for layer, content in zip(layers, ("old", "new"), strict=True):
        own = overlay / str(layer["id"])
        link = overlay / "l" / (own / "link").read_text()
        assert os.path.samefile(own / "diff", link)
        assert (link / "etc" / content).read_bytes() == content.encode()
        assert (own / "lower").exists() is (layer is not layers[0])
    assert (overlay / (overlay / str(layers[1]["id"]) / "lower").read_text()).samefile(
        overlay / str(layers[0]["id"]) / "diff"
    )


async def test_documents_are_beside_the_image_under_their_digests(registry: Registry, tmp_path: Path) -> None:
    await show(tmp_path, registry, "plain")
    (image,) = records(tmp_path, "images")
    files = {Digest.of(path.read_bytes()) for path in (tmp_path / f"layers/overlay-images/{image['id']}").iterdir()}
    assert files == {Digest("sha256", str(image["id"])), Digest("sha256", str(image["digest"]).partition(":")[2])}


async def test_what_is_shown_already_is_left_as_it_is(registry: Registry, tmp_path: Path) -> None:
    await show(tmp_path, registry, "plain")
    before = records(tmp_path, "layers")
    split = next((tmp_path / "layers/overlay-layers").glob("*.tar-split.gz"))
    inode = split.stat().st_ino
    await show(tmp_path, registry, "plain")
    assert records(tmp_path, "layers") == before
    assert split.stat().st_ino == inode


async def test_gc_keeps_what_is_shown_until_it_is_withdrawn(registry: Registry, tmp_path: Path) -> None:
    await show(tmp_path, registry, "plain", "other")
    async with fastoci.Engine(tmp_path) as engine:
        for name in ("plain", "other"):
            await engine.remove(f"{registry.address}/{name}")
        await engine.gc()
        trees = {path.parent.name for path in (tmp_path / "layers/overlay").glob("*/tree")}
        assert trees == {Layer.build(each).diff_id.hex for each in (BASE, UPPER, OTHER)}
        assert not list((tmp_path / "blobs/sha256").iterdir())
        await engine.hide_from_podman(f"{registry.address}/plain")
        await engine.gc()
        assert {path.parent.name for path in (tmp_path / "layers/overlay").glob("*/tree")} < trees
        assert len(records(tmp_path, "layers")) == 2
        await engine.hide_from_podman(f"{registry.address}/other")
        await engine.gc()
    assert not list((tmp_path / "layers/overlay/l").iterdir())
    assert [path.name for path in (tmp_path / "layers/overlay").iterdir()] == ["l"]


async def test_layer_directories_that_are_shown_are_durable(registry: Registry, tmp_path: Path) -> None:
    await show(tmp_path, registry, "plain")
    for done in (tmp_path / "layers/overlay").glob("*/done"):
        assert json.loads(done.read_bytes())["synced"] is True


async def test_a_name_that_is_not_shown_cannot_be_hidden(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path) as engine:
        with pytest.raises(fastoci.errors.BlobNotFoundError, match="is not shown"):
            await engine.hide_from_podman("none")


async def test_readers_that_lock_find_whole_images_only_while_others_come_and_go(
    registry: Registry, tmp_path: Path
) -> None:
    await show(tmp_path, registry, "plain")
    layers = tmp_path / "layers"
    ended = asyncio.Event()

    def look() -> int:
        """As containers/storage reads: both locks, then both files."""
        with ExitStack() as held:
            for name in ("overlay-layers/layers.lock", "overlay-images/images.lock"):
                lock = held.enter_context((layers / name).open("rb"))
                fcntl.lockf(lock, fcntl.LOCK_SH)
            known = {each["id"]: each for each in records(tmp_path, "layers")}
            images = records(tmp_path, "images")
            for image in images:
                top = image["layer"]
                while top:
                    assert (layers / "overlay" / str(top) / "diff").is_dir()
                    top = known[top].get("parent")
            return len(images)

    async def read() -> set[int]:
        seen = set()
        while not ended.is_set():
            seen.add(await asyncio.to_thread(look))
        return seen

    reading = asyncio.create_task(read())
    async with fastoci.Engine(tmp_path) as engine:
        image = await engine.pull(f"{registry.address}/other")
        for _ in range(8):
            await image.show_to_podman()
            await engine.hide_from_podman(f"{registry.address}/other")
    ended.set()
    assert await reading <= {1, 2}


async def test_an_image_of_several_platforms_is_refused_before_anything_of_it_is_fetched(tmp_path: Path) -> None:
    built = [Image.build([Layer.build(BASE)], platform=Platform("linux", name)) for name in ("amd64", "arm64")]
    with serve(Registry()) as registry:
        registry.add_image("app", "latest", Index.build(built))
        name = f"{registry.address}/app"
        async with fastoci.Engine(tmp_path / "store") as engine:
            with pytest.raises(UnsupportedError, match="choose one"):
                await engine.pull_platforms(name, ["all"], into=IntoPodman())
            done = await engine.prefetch([PrefetchRequest(name, platforms=("all",))], into=IntoPodman())
        assert [type(image.error) for image in done.images] == [UnsupportedError]
        assert not [record for record in registry.log if "/blobs/" in record.path]


def run_reader(program: str, store: Path, place: Path) -> Reader:
    needs_mounts()
    place.mkdir()
    return Reader(program, place, store)


@pytest.mark.parametrize("name", ["plain", "twice"])
async def test_skopeo_makes_the_layers_again(
    registry: Registry, tmp_path: Path, peer: Callable[[str], str], name: str
) -> None:
    store, out = tmp_path / "s", tmp_path / "out"
    await show(store, registry, name)
    reader = run_reader(peer("skopeo"), store, tmp_path / "r")
    try:
        source = f"containers-storage:{registry.address}/{name}:latest"
        reader.run("--insecure-policy", "copy", "-q", source, f"dir:{out}")
    finally:
        reader.end()
    layers = json.loads((out / "manifest.json").read_bytes())["layers"]
    assert [layer["digest"] for layer in layers] == [str(Layer.build(each).diff_id) for each in IMAGES[name]]


@pytest.mark.parametrize("name", ["merged", "root"])
async def test_skopeo_refuses_to_copy_what_is_not_layer_by_layer(
    registry: Registry, tmp_path: Path, peer: Callable[[str], str], name: str
) -> None:
    await show(tmp_path / "s", registry, name)
    reader = run_reader(peer("skopeo"), tmp_path / "s", tmp_path / "r")
    try:
        source = f"containers-storage:{registry.address}/{name}:latest"
        said = reader.run("--insecure-policy", "copy", "-q", source, f"dir:{tmp_path}/out", code=1)
    finally:
        reader.end()
    assert "physical layers" in said


@pytest.mark.parametrize("name", sorted(IMAGES))
async def test_a_container_of_podman_has_the_files_of_the_image(
    registry: Registry, tmp_path: Path, peer: Callable[[str], str], name: str
) -> None:
    store = tmp_path / "s"
    await show(store, registry, name)
    podman = run_reader(peer("podman"), store, tmp_path / "r")
    try:
        container = podman.run("create", "--network", "none", f"{registry.address}/{name}:latest", "x").strip()
        root = Path(podman.run("mount", container).strip())
        own = {"etc/hosts", "etc/hostname", "etc/resolv.conf", "run", "run/.containerenv", ""}
        found = [node for node in listing(root) if node.path not in own]
        expected = [node for node in overlay(IMAGES[name]) if node.path not in own]
        assert differences(expected, found) == []
        assert root.stat().st_mode & 0o7777 == (0o511 if name == "root" else 0o755)
        podman.run("rm", "-f", container)
        assert podman.run("images", "--format", "{{.Repository}} {{.ReadOnly}}").split() == [
            f"{registry.address}/{name}",
            "true",
        ]
    finally:
        podman.end()
