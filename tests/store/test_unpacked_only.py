"""Images that are kept unpacked only: which blobs go, which stay, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from fastoci.image.digest import Digest
from fastoci.store.gc import collect
from fastoci.store.gc.retention import Retention
from fastoci.store.unpacked_only import drop_blobs
from support.layer_files import compressed, image, put, tar_of
from support.store_shelf import Shelf

TARS = [tar_of(seed) for seed in range(3)]
DIGESTS = [Digest.of(tar) for tar in TARS]


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """References count as settled at once."""
    monkeypatch.setattr(collect, "_SETTLED_NS", -(10**18))


def layers_there(shelf: Shelf) -> set[int]:
    """The numbers of the layers whose blobs are there."""
    return {number for number, tar in enumerate(TARS) if shelf.file(shelf.describe(compressed(tar))).exists()}


async def test_blobs_that_layer_files_stand_for_go_and_are_not_missing(shelf: Shelf) -> None:
    ref = await image(shelf, "one", TARS[0], TARS[1], layers_only=True)
    gone = await drop_blobs(shelf.store, [ref.name])
    assert {item.name for item in gone} == {str(shelf.describe(compressed(tar)).digest) for tar in TARS[:2]}
    assert layers_there(shelf) == set()
    assert shelf.store.layers.find_merged(ref.descriptor.digest) is not None
    usage = await shelf.store.usage()
    assert (usage.missing.blobs, usage.references[0].missing.blobs) == (0, 0)
    assert await drop_blobs(shelf.store, [ref.name, "registry.test/nothing:1"]) == ()
    assert (await shelf.store.plan_gc(Retention())).items == ()


async def test_a_blob_that_another_image_needs_stays(shelf: Shelf) -> None:
    one = await image(shelf, "one", TARS[0], TARS[1], layers_only=True)
    await image(shelf, "two", TARS[1], TARS[2])
    await drop_blobs(shelf.store, [one.name, "registry.test/two:1"])
    assert layers_there(shelf) == {1, 2}


async def test_one_manifest_under_two_names_needs_its_blobs_when_one_of_them_does(shelf: Shelf) -> None:
    one = await image(shelf, "one", TARS[0], layers_only=True)
    for name in ("another", "zwei"):
        await shelf.record(replace(one, name=f"registry.test/{name}:1", layers_only=False))
        assert await drop_blobs(shelf.store, [one.name]) == ()
        assert layers_there(shelf) == {0}
        await shelf.store.forget(f"registry.test/{name}:1")
    await drop_blobs(shelf.store, [one.name])
    assert layers_there(shelf) == set()


async def test_a_blob_without_its_layer_file_stays(shelf: Shelf) -> None:
    ref = await image(shelf, "one", TARS[0], TARS[1], unpack=False, layers_only=True)
    await put(shelf.store.layers, TARS[1], form="4k")
    assert await drop_blobs(shelf.store, [ref.name]) == ()
    assert layers_there(shelf) == {0, 1}


async def test_a_blob_that_a_job_needs_stays(shelf: Shelf) -> None:
    ref = await image(shelf, "one", TARS[0], TARS[1], layers_only=True)
    async with shelf.store.keep([shelf.describe(compressed(TARS[0]))]):
        await drop_blobs(shelf.store, [ref.name])
    assert layers_there(shelf) == {0}


async def test_a_plan_of_before_spares_the_blob_of_a_layer_file_that_is_gone_since(shelf: Shelf) -> None:
    await image(shelf, "one", TARS[0], layers_only=True)
    plan = await shelf.store.plan_gc(Retention())
    assert [item.kind for item in plan.items] == ["blob"]
    shelf.store.layers.path(DIGESTS[0]).unlink()
    assert await shelf.store.gc(plan) == ()
    assert layers_there(shelf) == {0}


async def test_layer_files_are_synced_before_their_blobs_go(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "store", "batch")
    try:
        ref = await image(shelf, "one", TARS[0], unpack=False, layers_only=True)
        await put(shelf.store.layers, TARS[0], reasons=["opaque root"])
        assert (await shelf.store.plan_gc(Retention())).items == (), "a power cut may take the layer file"
        await drop_blobs(shelf.store, [ref.name])
        found = shelf.store.layers.find(DIGESTS[0])
        assert found is not None
        assert found.synced
        assert layers_there(shelf) == set()
        assert list((shelf.path / "ingest").iterdir()) == []
    finally:
        shelf.store.close()


async def test_a_reference_remembers_that_its_layers_are_kept_unpacked(shelf: Shelf) -> None:
    ref = await image(shelf, "one", TARS[0], layers_only=True)
    assert (await shelf.store.image(ref.name)).layers_only
    await shelf.record(replace(ref, layers_only=False))
    assert not (await shelf.store.image(ref.name)).layers_only
