"""What a store keeps of an image's layers beside their blobs: made while they arrive, once, and never of wrong bytes.

Covers: cli/layer_options.py, layer_interfaces.py, transfer/layer_directories.py, transfer/layer_files.py,
transfer/layer_making.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fastoci
from fastoci import Layers
from fastoci.errors import BlobNotFoundError, DigestMismatchError, StoreError, UnpackError
from fastoci.events import Event, UnpackDone, UnpackProgress, UnpackSkipped, UnpackStarted, Warned
from fastoci.image.digest import Digest
from fastoci.image.layer_file import TAR_OFFSET
from fastoci.jobs.plan import estimate_unpacked
from fastoci.store.usage import Amount
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, directory, opaque, symlink, whiteout
from fastoci.testing.registry import Registry, serve
from fastoci.testing.trees import differences, listing, overlay
from support.disks import mounted as mounted_disk
from support.erofs_listing import erofs_listing
from support.images import made, same
from support.overlays import mounted as mounted_overlay
from support.overlays import needs_mounts

BASE = [directory("etc"), Entry("etc/old", data=b"old"), Entry("etc/kept", data=b"kept"), symlink("lib", "etc")]
UPPER = [directory("etc"), whiteout("etc/old"), Entry("etc/new", data=b"new"), directory("data"), opaque("data")]
LAYERS = [made(1, files=3, size=200_000), BASE, UPPER]
EROFS = Layers("erofs")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners of files need root")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        registry.add_image("app", "latest", built(LAYERS))
        registry.add_image("other", "latest", built([*LAYERS[:2], made(2, files=2, size=50_000)]))
        yield registry


def built(layers: Sequence[list[Entry]]) -> Image:
    return Image.build([Layer.build(layer) for layer in layers])


def layer_file(store: Path, diff_id: Digest) -> Path:
    return store / "layers" / "sha256" / diff_id.hex[:2] / f"{diff_id.hex}.erofs"


def tar_of(store: Path, diff_id: Digest) -> bytes:
    """The bytes of a layer file that are its tar, found by their digest."""
    found = [path for path in (store / "layers").rglob(f"{diff_id.hex}.erofs")]
    assert len(found) == 1
    data = found[0].read_bytes()[TAR_OFFSET:]
    for end in range(1024, len(data) + 1, 512):
        if hashlib.sha256(data[:end]).hexdigest() == diff_id.hex:
            return data[:end]
    raise AssertionError(f"{found[0]} does not hold the tar")


def mounted(store: Path, image: fastoci.Image) -> list[str]:
    """What differs between merged metadata and the model of the layers."""
    assert image.config is not None
    paths = [next((store / "layers").rglob(f"{each.hex}.erofs")) for each in image.config.diff_ids]
    merged = store / "images" / f"{image.manifest_descriptor.digest.hex}.erofs"
    opened = [os.open(path, os.O_RDONLY) for path in (merged, *paths)]
    try:
        return differences(overlay(LAYERS), erofs_listing(opened[0], opened[1:]))
    finally:
        for fd in opened:
            os.close(fd)


def requests(registry: Registry) -> list[str]:
    return [record.path for record in registry.log if "/blobs/" in record.path]


async def test_a_pull_with_layers_has_each_tar_in_a_layer_file_and_the_image_in_one(
    registry: Registry, tmp_path: Path
) -> None:
    async with fastoci.Engine(tmp_path / "s") as engine:
        image = await engine.pull(f"{registry.address}/app", layers=EROFS)
    assert image.config is not None
    for diff_id in image.config.diff_ids:
        assert hashlib.sha256(tar_of(tmp_path / "s", diff_id)).hexdigest() == diff_id.hex
    assert mounted(tmp_path / "s", image) == []
    assert list((tmp_path / "s" / "ingest").iterdir()) == []


async def test_what_is_there_is_neither_fetched_nor_made_again(registry: Registry, tmp_path: Path) -> None:
    events: list[Event] = []
    async with fastoci.Engine(tmp_path / "s", observer=events.append) as engine:
        image = await engine.pull(f"{registry.address}/app", layers=EROFS)
        assert image.config is not None
        before = [tar.stat().st_ino for tar in (tmp_path / "s" / "layers").rglob("*.erofs")]
        fetched = len(requests(registry))
        del events[:]
        await engine.pull(f"{registry.address}/app", layers=EROFS)
    assert [tar.stat().st_ino for tar in (tmp_path / "s" / "layers").rglob("*.erofs")] == before
    assert len(requests(registry)) == fetched
    assert any(isinstance(event, UnpackSkipped) for event in events)
    assert not any(isinstance(event, UnpackStarted | UnpackDone) for event in events)


async def test_layers_that_images_share_are_made_once(registry: Registry, tmp_path: Path) -> None:
    events: list[Event] = []
    async with fastoci.Engine(tmp_path / "s", observer=events.append) as engine:
        app = await engine.pull(f"{registry.address}/app", layers=EROFS)
        other = await engine.pull(f"{registry.address}/other", layers=EROFS)
    assert app.config is not None and other.config is not None
    assert [event.layers for event in events if isinstance(event, UnpackStarted)] == [3, 1]
    names = {each.hex for each in (*app.config.diff_ids, *other.config.diff_ids)}
    assert {path.stem for path in (tmp_path / "s" / "layers").rglob("*.erofs")} == names


async def test_engines_at_the_same_time_make_each_layer_once_and_both_have_it(
    registry: Registry, tmp_path: Path
) -> None:
    stores = [fastoci.Engine(tmp_path / "s") for _ in range(3)]

    async def pull(engine: fastoci.Engine, name: str) -> None:
        async with engine:
            await engine.pull(f"{registry.address}/{name}", layers=EROFS)

    await asyncio.gather(*(pull(engine, name) for engine, name in zip(stores, ("app", "other", "app"), strict=True)))
    async with fastoci.Engine(tmp_path / "s") as engine:
        image = await engine.image(f"{registry.address}/app")
    assert mounted(tmp_path / "s", image) == []
    assert list((tmp_path / "s" / "ingest").iterdir()) == []


async def test_an_image_that_is_there_gets_its_layers_without_a_registry(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path / "s") as engine:
        await engine.pull(f"{registry.address}/app")
        fetched = len(registry.log)
        image = await engine.pull(f"{registry.address}/app", layers=EROFS, policy="never")
        assert mounted(tmp_path / "s", image) == []
        assert len(registry.log) == fetched


async def test_a_tree_is_made_of_the_tars_in_layer_files(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path / "s") as engine:
        image = await engine.pull(f"{registry.address}/app", layers=EROFS)
        for layer in image.manifest.layers:
            blob = tmp_path / "s" / "blobs" / "sha256" / layer.digest.hex
            size = blob.stat().st_size
            blob.unlink()
            blob.write_bytes(b"\0" * size)  # nobody may read it
        await image.unpack(tmp_path / "root")
    assert same(tmp_path / "root", *LAYERS)


async def test_a_pull_makes_layer_files_and_a_tree_at_once(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path / "s") as engine:
        image = await engine.pull(f"{registry.address}/app", layers=EROFS, rootfs=tmp_path / "root")
    assert same(tmp_path / "root", *LAYERS)
    assert mounted(tmp_path / "s", image) == []


async def test_a_layer_with_another_diff_id_leaves_nothing_of_it(registry: Registry, tmp_path: Path) -> None:
    layers = [Layer.build(layer) for layer in LAYERS]
    layers[1] = replace(layers[1], diff_id=Digest.parse("sha256:" + "5" * 64))
    registry.add_image("wrong", "latest", Image.build(layers))
    async with fastoci.Engine(tmp_path / "s") as engine:
        with pytest.raises(DigestMismatchError, match="5555"):
            await engine.pull(f"{registry.address}/wrong", layers=EROFS)
    assert not list((tmp_path / "s" / "layers").rglob("5555*"))
    assert not list((tmp_path / "s").glob("images/*"))
    assert [path for path in (tmp_path / "s" / "ingest").iterdir() if path.name.startswith("layer-")] == []


async def test_a_layer_that_is_damaged_in_the_store_is_mended_and_made(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path / "s") as engine:
        image = await engine.pull(f"{registry.address}/app")
        blob = tmp_path / "s" / "blobs" / "sha256" / image.manifest.layers[0].digest.hex
        data = bytearray(blob.read_bytes())
        data[len(data) // 2] ^= 1
        blob.unlink()
        blob.write_bytes(data)
        image = await engine.pull(f"{registry.address}/app", layers=EROFS)
        assert mounted(tmp_path / "s", image) == []


async def test_a_pull_that_is_cancelled_leaves_no_layer_under_way(registry: Registry, tmp_path: Path) -> None:
    for after in range(0, 40, 4):
        async with fastoci.Engine(tmp_path / "s") as engine:
            pull = asyncio.create_task(engine.pull(f"{registry.address}/app", layers=EROFS))
            await asyncio.sleep(after / 1000)
            pull.cancel()
            await asyncio.wait([pull])
        names = [path.name for path in (tmp_path / "s" / "ingest").iterdir()]
        assert [name for name in names if name.startswith(("layer-", "image-"))] == []
    async with fastoci.Engine(tmp_path / "s") as engine:
        image = await engine.pull(f"{registry.address}/app", layers=EROFS)
    assert mounted(tmp_path / "s", image) == []


async def test_limits_hold_for_layers_that_are_made_side_by_side(registry: Registry, tmp_path: Path) -> None:
    limits = fastoci.Limits(unpacked_entries=len(LAYERS[0]) + 2)
    async with fastoci.Engine(tmp_path / "s", limits=limits) as engine:
        with pytest.raises(UnpackError, match="entries"):
            await engine.pull(f"{registry.address}/app", layers=EROFS)


@as_root
async def test_the_store_keeps_one_tree_of_an_image_for_its_owner_alone(registry: Registry, tmp_path: Path) -> None:
    events: list[Event] = []
    async with fastoci.Engine(tmp_path / "s", observer=events.append) as engine:
        image = await engine.pull(f"{registry.address}/app", layers=Layers("rootfs"))
        tree = tmp_path / "s" / "images" / "rootfs" / image.manifest_descriptor.digest.hex
        assert same(tree, *LAYERS)
        assert tree.parent.stat().st_mode & 0o777 == 0o700
        done = next(event for event in events if isinstance(event, UnpackDone))
        assert (await engine.usage()).layers == Amount(1, done.size)
        assert done.size > 0
        tree.with_name(f"{tree.name}.json").unlink()  # of a tree that was made before there were records
        await engine.pull(f"{registry.address}/app", layers=Layers("rootfs"))
        assert (await engine.usage()).layers == Amount(1, estimate_unpacked(image.manifest.layers))
    assert sum(isinstance(event, UnpackDone) for event in events) == 1


@as_root
async def test_a_disk_without_inodes_for_layer_directories_has_some_for_layer_files(
    registry: Registry, tmp_path: Path
) -> None:
    registry.add_image("many", "latest", built([[Entry(f"{number}", data=b"x") for number in range(200)]]))
    (tmp_path / "disk").mkdir()
    store = tmp_path / "disk" / "s"
    with mounted_disk(tmp_path / "disk", "-t", "tmpfs", "-o", "size=20m,nr_inodes=150", "tmpfs"):
        async with fastoci.Engine(store) as engine:
            with pytest.raises(StoreError, match=r"No space left|inodes"):
                await engine.pull(f"{registry.address}/many", layers=Layers("overlay"))
            assert list(store.glob("layers/overlay/*")) == []
            await (await engine.pull(f"{registry.address}/many", layers=EROFS)).check()
            assert len(list(store.glob("layers/*/*/*.erofs"))) == 1


@as_root
async def test_the_space_of_a_tree_that_is_there_is_not_reserved_again(registry: Registry, tmp_path: Path) -> None:
    registry.add_image("large", "latest", built([made(4, files=3, size=6_000_000, compressibility=0.0)]))
    (tmp_path / "disk").mkdir()
    with mounted_disk(tmp_path / "disk", "-t", "tmpfs", "-o", "size=52m", "tmpfs"):
        async with fastoci.Engine(tmp_path / "disk" / "s") as engine:
            for _ in range(2):
                await engine.pull(f"{registry.address}/large", layers=Layers("rootfs"))
            await engine.remove(f"{registry.address}/large")
            await engine.gc()
            assert (await engine.usage()).layers.size == 0


async def test_a_prefetch_makes_the_layers_of_all_its_images(registry: Registry, tmp_path: Path) -> None:
    names = [f"{registry.address}/{name}" for name in ("app", "other")]
    async with fastoci.Engine(tmp_path / "s") as engine:
        result = await engine.prefetch([fastoci.PrefetchRequest(name) for name in names], layers=EROFS)
        assert [image.outcome for image in result.images] == ["fetched", "fetched"]
        again = await engine.prefetch([fastoci.PrefetchRequest(name) for name in names], layers=EROFS)
        assert [image.outcome for image in again.images] == ["present", "present"]
        image = await engine.image(names[0])
    assert mounted(tmp_path / "s", image) == []
    assert len(list((tmp_path / "s" / "images").glob("*.erofs"))) == 2


def test_only_layer_files_can_stand_for_blobs() -> None:
    assert Layers("erofs", only=True).only
    with pytest.raises(ValueError, match="only"):
        Layers("overlay", only=True)
    with pytest.raises(ValueError, match="squashfs"):
        Layers("squashfs")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="only"):
        Layers("erofs", only=1)  # type: ignore[arg-type]


def test_the_command_wants_layer_files_where_blobs_are_to_go(cli: Callable[..., Any], tmp_path: Path) -> None:
    done = cli("pull", "--store", tmp_path / "s", "--layers", "overlay", "--layers-only", "127.0.0.1:1/x")
    assert done.returncode == 2
    assert "--layers-only needs --layers erofs" in done.stderr


def test_a_layout_is_made_of_blobs_that_go_afterwards_and_are_fetched_once(
    cli: Callable[..., Any], registry: Registry, tmp_path: Path
) -> None:
    store, layout = tmp_path / "s", tmp_path / "layout"
    options = ["--store", store, "--tls-verify=false", "--layers", "erofs", "--layers-only", "--oci", layout]
    done = cli("pull", f"{registry.address}/app", *options)
    assert done.returncode == 0, done.stderr
    asked = [record.path for record in registry.log if "/blobs/" in record.path]
    assert len(asked) == len(set(asked)) == len(blobs_of(layout)) - 1
    assert cli("gc", "--store", store).returncode == 0
    assert len(blobs_of(store)) == 2


def blobs_of(store: Path) -> set[str]:
    return {path.name for path in (store / "blobs" / "sha256").iterdir()}


ONLY = Layers("erofs", only=True)


async def test_blobs_go_when_layer_files_stand_for_them_and_nothing_is_fetched_again(
    registry: Registry, tmp_path: Path
) -> None:
    async with fastoci.Engine(tmp_path / "s") as engine:
        image = await engine.pull(f"{registry.address}/app", layers=ONLY)
        layers = {layer.digest.hex for layer in image.manifest.layers}
        assert not layers & blobs_of(tmp_path / "s")
        assert image.manifest.config.digest.hex in blobs_of(tmp_path / "s")
        fetched = len(requests(registry))
        again = await engine.pull(f"{registry.address}/app", layers=ONLY)
        await again.check()
        assert len(requests(registry)) == fetched
        stored = await engine.pull(f"{registry.address}/app", policy="never", layers=ONLY)
        await stored.unpack(tmp_path / "root")
        assert len(requests(registry)) == fetched
    assert same(tmp_path / "root", *LAYERS)
    assert mounted(tmp_path / "s", image) == []


async def test_blobs_come_back_for_a_pull_that_wants_them(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path / "s") as engine:
        await engine.pull(f"{registry.address}/app", layers=ONLY)
        image = await engine.pull(f"{registry.address}/app")
        assert {layer.digest.hex for layer in image.manifest.layers} <= blobs_of(tmp_path / "s")
        await engine.pull(f"{registry.address}/other", layers=ONLY)
        shared = {layer.digest.hex for layer in image.manifest.layers}
        assert shared <= blobs_of(tmp_path / "s")  # which this image still needs


async def test_a_prefetch_drops_the_blobs_of_what_came_and_does_not_fetch_them_again(
    registry: Registry, tmp_path: Path
) -> None:
    wanted = [fastoci.PrefetchRequest(f"{registry.address}/{name}") for name in ("app", "other")]
    async with fastoci.Engine(tmp_path / "s") as engine:
        result = await engine.prefetch(wanted, layers=ONLY)
        assert [image.outcome for image in result.images] == ["fetched", "fetched"]
        app = await engine.image(f"{registry.address}/app")
        assert not {layer.digest.hex for layer in app.manifest.layers} & blobs_of(tmp_path / "s")
        fetched = len(requests(registry))
        again = await engine.prefetch(wanted, layers=ONLY)
        assert [image.outcome for image in again.images] == ["present", "present"]
        assert len(requests(registry)) == fetched


@pytest.mark.parametrize("layers", [EROFS, ONLY], ids=["with blobs", "without"])
async def test_a_layer_file_that_is_damaged_is_found_by_who_reads_it_and_not_used(
    registry: Registry, tmp_path: Path, layers: Layers
) -> None:
    events: list[Event] = []
    async with fastoci.Engine(tmp_path / "s", observer=events.append) as engine:
        image = await engine.pull(f"{registry.address}/app", layers=layers)
        assert image.config is not None
        damage(next((tmp_path / "s" / "layers").rglob(f"{image.config.diff_ids[0].hex}.erofs")))
        await image.unpack(tmp_path / "root")
    assert same(tmp_path / "root", *LAYERS)
    assert any(isinstance(event, Warned) and "is damaged, and is deleted" in event.message for event in events)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[TAR_OFFSET + len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


@as_root
async def test_layer_directories_show_the_image_by_the_options_that_are_printed(
    registry: Registry, tmp_path: Path
) -> None:
    needs_mounts()
    implied = [Entry("etc/implied/file", data=b"no entry names the directory")]
    registry.add_image("implied", "latest", built([*LAYERS, implied, [Entry("top", data=b"top")]]))
    async with fastoci.Engine(tmp_path / "s") as engine:
        for name, layers in (("app", LAYERS), ("implied", [*LAYERS, implied, [Entry("top", data=b"top")]])):
            image = await engine.pull(f"{registry.address}/{name}", layers=Layers("overlay"))
            directories = parsed(await image.overlay_options())
            with mounted_overlay([Path(each) for each in reversed(directories)], tmp_path / name) as shown:
                assert differences(overlay(layers), listing(shown)) == []
        assert len(directories) == 2  # of four layers that only count together, and the one on top


async def test_an_image_without_layer_directories_has_no_options(registry: Registry, tmp_path: Path) -> None:
    async with fastoci.Engine(tmp_path / "s") as engine:
        image = await engine.pull(f"{registry.address}/app")
        with pytest.raises(BlobNotFoundError, match="lacks layer directories"):
            await image.overlay_options()


def parsed(options: Sequence[str]) -> list[str]:
    """The directories that an option names, the topmost first."""
    assert len(options) == 1
    name, _, value = options[0].partition("=")
    assert name == "lowerdir"
    return value.split(":")


async def test_a_layer_whose_names_need_more_than_the_memory_becomes_the_same_file(
    registry: Registry, tmp_path: Path
) -> None:
    many = [Entry(f"{number:0200}", data=b"") for number in range(20_000)]
    registry.add_image("many", "latest", built([many]))
    made = []
    for memory in (4 << 20, 24 << 20):
        store = tmp_path / str(memory)
        async with fastoci.Engine(store, limits=fastoci.Limits(memory=memory)) as engine:
            pool = engine._open.context.layering.reader._buffers.pool
            await engine.pull(f"{registry.address}/many", layers=EROFS)
            assert pool.aside == pool.in_use == 0
        files = [*(store / "layers").rglob("*.erofs"), *(store / "images").glob("*.erofs")]
        made.append([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])
    assert len(made[0]) == 2
    assert made[0] == made[1]


async def test_an_image_on_top_of_one_without_blobs_is_recorded_without_them(
    registry: Registry, tmp_path: Path
) -> None:
    async with fastoci.Engine(tmp_path / "s") as engine:
        image = await engine.pull(f"{registry.address}/app", layers=ONLY)
        again = await engine.record("again:1", image.manifest.raw)
        await again.unpack(tmp_path / "root")
        await engine.gc()
        assert (await engine.verify(["again:1"])).bad == ()
    assert same(tmp_path / "root", *LAYERS)


async def test_progress_of_a_tar_in_a_layer_file_counts_compressed_bytes(registry: Registry, tmp_path: Path) -> None:
    events: list[Event] = []
    async with fastoci.Engine(tmp_path / "s", observer=events.append) as engine:
        image = await engine.pull(f"{registry.address}/app", layers=EROFS)
        del events[:]
        await image.unpack(tmp_path / "root")
    total = sum(layer.size for layer in image.manifest.layers)
    assert max(event.size for event in events if isinstance(event, UnpackProgress)) == total


async def test_space_is_reserved_for_layers_that_are_not_there_yet(registry: Registry, tmp_path: Path) -> None:
    names = [f"{registry.address}/{name}" for name in ("app", "other")]
    async with fastoci.Engine(tmp_path / "s") as engine:
        resolved = [await engine.resolve(name) for name in names]
        layering = engine._open.context.layering
        assert await layering.estimate(resolved[:1], "erofs") == resolved[0].unpacked_estimate
        await engine.pull(names[0], layers=EROFS)
        assert await layering.estimate(resolved[:1], "erofs") == 0
        await engine.pull(names[1])
        assert await layering.estimate(resolved, "erofs") == estimate_unpacked(resolved[1].manifest.layers[2:])
        assert await layering.estimate(resolved[:1], "overlay") == resolved[0].unpacked_estimate
        await engine.pull(names[0], layers=Layers("erofs-4k"))
        assert await layering.estimate(resolved[:1], "erofs-4k") == 0


async def test_layer_files_in_blocks_hold_each_layer_and_a_hash_tree_on_request(
    registry: Registry, tmp_path: Path
) -> None:
    async with fastoci.Engine(tmp_path / "s") as engine:
        image = await engine.pull(f"{registry.address}/app", layers=Layers("erofs-4k", verity=True))
        assert image.config is not None
        lowest = layer_file(tmp_path / "s", image.config.diff_ids[1])
        fd = os.open(lowest, os.O_RDONLY)
        try:
            assert differences(overlay([BASE]), erofs_listing(fd)) == []
        finally:
            os.close(fd)
        sidecar = json.loads(lowest.with_name(f"{lowest.name}.dmverity").read_bytes())
        assert sidecar.keys() == {"roothash", "hashoffset"}
        assert lowest.read_bytes()[sidecar["hashoffset"] :].startswith(b"verity")
        assert not list((tmp_path / "s" / "images").glob("*.erofs"))
        before = lowest.stat().st_ino
        await engine.pull(f"{registry.address}/app", layers=Layers("erofs-4k", verity=True))
        assert lowest.stat().st_ino == before
        await engine.pull(f"{registry.address}/app", layers=EROFS)
        assert mounted(tmp_path / "s", image) == []


@as_root
async def test_a_blob_that_nobody_reads_beside_a_tree_that_is_there_comes_all_the_same(
    registry: Registry, tmp_path: Path
) -> None:
    registry.add_image("large", "latest", built([made(3, files=3, size=6_000_000, compressibility=0.0)]))
    async with fastoci.Engine(tmp_path / "s") as engine:
        image = await engine.pull(f"{registry.address}/large", layers=Layers("rootfs"))
        blob = tmp_path / "s" / "blobs" / "sha256" / image.manifest.layers[0].digest.hex
        blob.unlink()
        await asyncio.wait_for(engine.pull(f"{registry.address}/large", layers=Layers("rootfs")), 20)
    assert blob.stat().st_size == image.manifest.layers[0].size
