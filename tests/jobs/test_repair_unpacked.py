"""Layer files repaired: made again of their blobs, or of what the registry has; and a blob made of its layer file.

Covers: jobs/repair_unpacked.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

import fastoci
from fastoci import Layers
from fastoci.errors import NotFoundError
from fastoci.events import Event, Warned
from fastoci.image.digest import Digest
from fastoci.layer_interfaces import LayerStore
from fastoci.store.store import Store
from fastoci.store.unpacked_only import drop_blobs
from fastoci.testing.registry import Registry, serve
from support.images import image_of, made
from support.stores import on_disk

FIRST, SECOND = made(1, files=3, size=1_500_000), made(2, files=2, size=20_000)
PACKED, PLAIN = image_of(FIRST, SECOND), image_of(FIRST, SECOND, compression="none")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        registry.add_image("app", "packed", PACKED)
        registry.add_image("app", "plain", PLAIN)
        yield registry


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with on_disk(tmp_path / "store") as store:
        yield store


async def pull(store: Store, registry: Registry, tag: str) -> str:
    async with fastoci.Engine(store.path) as engine:
        image = await engine.pull(f"{registry.address}/app:{tag}", layers=Layers("erofs"))
        return str(image.reference)


def flip(path: Path, offset: int = 5000) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def whole(layers: LayerStore, *diff_ids: Digest) -> list[bytes]:
    return [layers.path(diff_id).read_bytes() for diff_id in diff_ids]


async def test_a_layer_file_is_made_again_of_its_blob(store: Store, registry: Registry) -> None:
    name = await pull(store, registry, "packed")
    diff_ids = [layer.diff_id for layer in PACKED.layers]
    before = whole(store.layers, *diff_ids)
    flip(store.layers.path(diff_ids[0]))
    registry.log.clear()
    events: list[Event] = []
    async with fastoci.Engine(store.path, observer=events.append) as engine:
        repair = await engine.repair()
        assert (repair.repaired, repair.failed) == ((str(diff_ids[0]),), ())
        assert (await engine.verify()).bad == ()
    assert whole(store.layers, *diff_ids) == before
    assert registry.log == [], "what is there is not asked for"
    assert [event.image for event in events if isinstance(event, Warned)] == [name]


async def test_merged_metadata_is_made_again(store: Store, registry: Registry) -> None:
    await pull(store, registry, "packed")
    manifest = PACKED.descriptor.digest
    found = store.layers.find_merged(manifest)
    assert found is not None
    before = Path(found.path).read_bytes()
    flip(Path(found.path), 0)
    async with fastoci.Engine(store.path) as engine:
        assert (await engine.repair()).repaired == (str(manifest),)
    assert Path(found.path).read_bytes() == before


async def test_an_image_that_is_kept_unpacked_only_is_mended_by_its_registry(store: Store, registry: Registry) -> None:
    name = await pull(store, registry, "packed")
    store.refs.set(replace(await store.image(name), layers_only=True))
    await drop_blobs(store, [name])
    diff_ids = [layer.diff_id for layer in PACKED.layers]
    blobs = [store.path / "blobs" / "sha256" / layer.descriptor.digest.hex for layer in PACKED.layers]
    assert not any(blob.exists() for blob in blobs)
    async with fastoci.Engine(store.path) as engine:
        assert (await engine.repair()).repaired == ()
        flip(store.layers.path(diff_ids[1]))
        repair = await engine.repair()
        assert set(repair.repaired) == {str(PACKED.layers[1].descriptor.digest), str(diff_ids[1])}
        assert (await engine.verify()).bad == ()
    assert not any(blob.exists() for blob in blobs)


async def test_a_blob_that_is_not_compressed_is_made_of_its_layer_file(store: Store, registry: Registry) -> None:
    await pull(store, registry, "plain")
    registry.log.clear()
    blobs = [store.path / "blobs" / "sha256" / layer.diff_id.hex for layer in PLAIN.layers]
    before = [blob.read_bytes() for blob in blobs]
    flip(blobs[0])
    blobs[1].unlink()
    async with fastoci.Engine(store.path) as engine:
        repair = await engine.repair()
        assert repair.failed == ()
        assert set(repair.repaired) == {str(layer.diff_id) for layer in PLAIN.layers}
    assert [blob.read_bytes() for blob in blobs] == before
    assert registry.log == [], "no registry is asked"


async def test_a_layer_file_that_cannot_be_made_again_is_not_used(store: Store, registry: Registry) -> None:
    name = await pull(store, registry, "packed")
    store.refs.set(replace(await store.image(name), layers_only=True))
    await drop_blobs(store, [name])
    registry.remove_blob(str(PACKED.layers[0].descriptor.digest))
    flip(store.layers.path(PACKED.layers[0].diff_id))
    async with fastoci.Engine(store.path) as engine:
        repair = await engine.repair()
    assert [name for name, _ in repair.failed] == [name]
    assert isinstance(repair.failed[0][1], NotFoundError)
    assert store.layers.find(PACKED.layers[0].diff_id) is None
