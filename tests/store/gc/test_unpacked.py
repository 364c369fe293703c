"""Unpacked layers in a collection: what goes with which image, and what is in use.

Covers: store/gc/unpacked.py, store/gc/in_use.py, store/layers/unpacked.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastoci.errors import StoreError
from fastoci.image.config import chain_id
from fastoci.image.digest import Digest
from fastoci.store.gc import collect
from fastoci.store.gc.eviction import Shortage
from fastoci.store.gc.retention import Retention
from fastoci.store.store import Store
from fastoci.testing.suites.filling import proof_of
from support.layer_files import TREE, compressed, facts_of, file_of, image, put, put_merged, put_tree, tar_of, write
from support.store_shelf import Shelf

# Of no other process that tests: what is mounted anywhere on the machine stays, told by its digest.
_OWN = 1000 + 100 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
TARS = [tar_of(_OWN + seed) for seed in range(4)]
DIGESTS = [Digest.of(tar) for tar in TARS]
ALONE = tar_of(_OWN + 99)


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """References count as settled at once."""
    monkeypatch.setattr(collect, "_SETTLED_NS", -(10**18))


def there(shelf: Shelf) -> set[str]:
    """The digits of all that is unpacked."""
    files = {path.name.partition(".")[0] for path in shelf.path.glob("layers/*/*/*.erofs")}
    files |= {path.name.partition(".")[0] for path in shelf.path.glob("layers/merge/*.erofs")}
    files |= {path.name.partition(".")[0] for path in shelf.path.glob("images/*.erofs")}
    return files | {path.name for path in shelf.path.glob("layers/overlay/*")}


def digits(*digests: Digest) -> set[str]:
    return {digest.hex for digest in digests}


async def gc(store: Store, retention: Retention | None = None) -> dict[str, str]:
    """What a collection deletes, by name, and why."""
    plan = await store.plan_gc(retention or Retention())
    gone = await store.gc(plan)
    assert set(gone) == set(plan.items)
    return {item.name: item.why for item in gone}


@contextmanager
def mounted_elsewhere(*arguments: str | Path) -> Iterator[None]:
    """What ``mount`` mounts, in the mount namespace of another process.

    No namespace that another test makes meanwhile gets a copy of it, which would keep it in use after the end.
    """
    script = 'mount "$@" && echo mounted && read end'
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *arguments]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != b"mounted\n":
            pytest.skip("cannot mount in a mount namespace here")
        yield
        process.stdin.close()


@contextmanager
def overlay(at: Path, source: str, *lower: Path) -> Iterator[None]:
    at.mkdir()
    lowers = ":".join(map(str, lower))
    with mounted_elsewhere("-t", "overlay", source, "-o", f"lowerdir={lowers}", at):
        yield


@contextmanager
def loop_device(file: Path) -> Iterator[None]:
    find = ["losetup", "--find", "--show", "--read-only", str(file)]
    done = subprocess.run(find, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr}")
    try:
        yield
    finally:
        subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)
        while Path("/sys/block", Path(done.stdout.strip()).name, "loop/backing_file").exists():
            time.sleep(0.01)  # the kernel lets go of it a little later


async def test_layers_stay_while_an_image_has_them(shelf: Shelf) -> None:
    one = await image(shelf, "one", TARS[0], TARS[1])
    two = await image(shelf, "two", TARS[0], TARS[2])
    await put_tree(shelf.store.layers, TARS[1])
    before = there(shelf)
    assert await gc(shelf.store) == {}
    await shelf.store.forget(one.name)
    plan = await shelf.store.plan_gc(Retention())
    unpacked = [item for item in plan.items if item.kind in ("layer", "merged", "directory")]
    assert {(item.kind, item.name, item.size) for item in unpacked} == {
        ("layer", f"layers/sha256/{DIGESTS[1].hex[:2]}/{DIGESTS[1].hex}", len(file_of(TARS[1]))),
        ("merged", f"images/{one.descriptor.digest.hex}", len(b"merged metadata")),
        ("directory", f"layers/overlay/{DIGESTS[1].hex}", 0),
    }
    await gc(shelf.store)
    assert there(shelf) == before - digits(DIGESTS[1], one.descriptor.digest)
    assert shelf.store.layers.find_merged(two.descriptor.digest) is not None
    assert os.listdir(shelf.path / "ingest") == []
    await shelf.store.forget(two.name)
    await gc(shelf.store)
    assert there(shelf) == set()


async def test_a_tree_of_several_layers_stays_while_an_image_has_them_lowest(shelf: Shelf) -> None:
    await image(shelf, "one", *TARS[:3])
    chains = [DIGESTS[:2], DIGESTS[:3], DIGESTS[1:3]]
    for digests in chains:
        ingest = await shelf.store.layers.begin_directory(chain_id(digests), owners=True)
        assert ingest is not None
        await ingest.commit(TREE, [proof_of(TARS[DIGESTS.index(digest)]) for digest in digests])
    assert list(await gc(shelf.store)) == [f"layers/overlay/{chain_id(chains[2]).hex}"]
    await shelf.store.forget("registry.test/one:1")
    async with shelf.store.layers.keep([DIGESTS[0], chain_id(DIGESTS[:2])]):
        await gc(shelf.store)
        assert there(shelf) == digits(DIGESTS[0], chain_id(DIGESTS[:2]))


async def test_layers_that_a_job_needs_stay(shelf: Shelf) -> None:
    async with shelf.store.layers.keep(DIGESTS[:2]):
        plan = await shelf.store.plan_gc(Retention())
        for tar in TARS[:3]:
            await put(shelf.store.layers, tar)
        gone = await gc(shelf.store)
        assert gone == {f"layers/sha256/{DIGESTS[2].hex[:2]}/{DIGESTS[2].hex}": "of no image"}
        assert await shelf.store.gc(plan) == ()
    plan = await shelf.store.plan_gc(Retention())
    async with shelf.store.layers.keep(DIGESTS[:1]):
        await shelf.store.gc(plan)
        assert there(shelf) == digits(DIGESTS[0])


async def test_an_image_that_comes_after_the_plan_keeps_its_layers(shelf: Shelf) -> None:
    await put(shelf.store.layers, TARS[0])
    plan = await shelf.store.plan_gc(Retention())
    assert len(plan.items) == 1
    await image(shelf, "one", TARS[0], unpack=False)
    assert await shelf.store.gc(plan) == ()
    assert there(shelf) == digits(DIGESTS[0])


async def test_what_a_power_cut_may_have_damaged_goes(shelf: Shelf) -> None:
    ref = await image(shelf, "one", TARS[0])
    layers = shelf.store.layers
    await put(layers, TARS[1], reasons=["opaque root"])
    for path in (*shelf.path.glob("images/*.json"), *shelf.path.glob("layers/merge/*.json")):
        fields = json.loads(path.read_bytes())
        path.write_text(json.dumps(fields | {"boot_id": "another", "synced": False}))
    (shelf.path / "layers/sha256/ab").mkdir(mode=0o755)
    orphan = shelf.path / "layers/sha256/ab" / f"ab{'0' * 62}.erofs"
    orphan.write_bytes(b"without a record")
    why = "not whole, or of another boot and not synced"
    assert await gc(shelf.store) == {
        f"images/{ref.descriptor.digest.hex}": why,
        f"layers/merge/{DIGESTS[1].hex}": why,
        f"layers/sha256/ab/{orphan.stem}": why,
    }
    assert there(shelf) == digits(DIGESTS[0])


async def test_what_killed_processes_left_goes_and_what_is_under_way_stays(shelf: Shelf) -> None:
    left = shelf.path / "ingest" / f"overlay-{DIGESTS[0].hex}" / "gone" / "tree" / "deep"
    left.mkdir(parents=True)
    held = await shelf.store.layers.begin(DIGESTS[1])
    assert held is not None
    assert await gc(shelf.store) == {f"overlay-{DIGESTS[0].hex}": "left half-way"}
    assert os.listdir(shelf.path / "ingest") == [f"layer-{DIGESTS[1].hex}"]
    write(held, TARS[1])
    await held.commit(facts_of(TARS[1]), proof_of(TARS[1]))


async def test_a_layer_that_is_mounted_stays(shelf: Shelf, tmp_path: Path) -> None:
    await put_tree(shelf.store.layers, TARS[0])
    await put_tree(shelf.store.layers, TARS[1])
    found = shelf.store.layers.find_directory(DIGESTS[0], owners=True)
    assert found is not None
    (tmp_path / "lower").mkdir()
    with overlay(tmp_path / "mount", "overlay", Path(found.path), tmp_path / "lower"):
        await gc(shelf.store)
        assert there(shelf) == digits(DIGESTS[0])
    await gc(shelf.store)
    assert there(shelf) == set()


async def test_a_file_behind_a_loop_device_stays(shelf: Shelf, tmp_path: Path) -> None:
    await put(shelf.store.layers, TARS[0])
    await put(shelf.store.layers, TARS[1])
    path = shelf.store.layers.path(DIGESTS[0])
    with loop_device(path):
        await gc(shelf.store)
        assert there(shelf) == digits(DIGESTS[0])
    await gc(shelf.store)
    assert there(shelf) == set()


async def test_an_image_that_is_mounted_keeps_its_layers_without_a_reference(shelf: Shelf, tmp_path: Path) -> None:
    ref = await image(shelf, "one", TARS[0], TARS[1])
    await put(shelf.store.layers, TARS[2])
    before = there(shelf)
    await shelf.store.forget(ref.name)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with overlay(tmp_path / "mount", f"fastoci:{ref.descriptor.digest.hex}", tmp_path / "one", tmp_path / "two"):
        blobs = {str(shelf.describe(compressed(tar)).digest) for tar in TARS[:2]}
        assert set(await gc(shelf.store)) == {f"layers/sha256/{DIGESTS[2].hex[:2]}/{DIGESTS[2].hex}", *blobs}
        assert len(list(shelf.path.glob("blobs/sha256/*"))) == 2, "it can be mounted again"
        shelf.file(ref.descriptor).unlink()  # and without its documents
        await gc(shelf.store)
        assert there(shelf) == before - digits(DIGESTS[2])
    await gc(shelf.store)
    assert there(shelf) == set()


async def test_the_tree_of_an_image_goes_with_it_unless_it_is_bound_somewhere(shelf: Shelf, tmp_path: Path) -> None:
    ref = await image(shelf, "one", TARS[0], unpack=False)
    trees = [shelf.store.layers.make_tree_place(digest) for digest in (ref.descriptor.digest, DIGESTS[1])]
    for tree in trees:
        (tree / "deep").mkdir(parents=True)
    left = trees[0].parent / f".{ref.descriptor.digest.hex}.{'0' * 16}.fastoci"
    left.mkdir(mode=0o700)
    (left / "lock").touch(mode=0o600)
    assert list(await gc(shelf.store)) == [f"images/rootfs/{DIGESTS[1].hex}", f"images/rootfs/{left.name}"]
    assert [path.name for path in trees[0].parent.iterdir()] == [ref.descriptor.digest.hex]
    await shelf.store.forget(ref.name)
    (tmp_path / "bound").mkdir()
    with mounted_elsewhere("--bind", trees[0], tmp_path / "bound"):
        await gc(shelf.store)
        assert trees[0].exists()
    await gc(shelf.store)
    assert list(trees[0].parent.iterdir()) == []
    assert os.listdir(shelf.path / "ingest") == []


async def test_the_tree_of_an_image_counts_as_much_as_was_recorded_and_is_evicted_for_its_space(shelf: Shelf) -> None:
    ref = await image(shelf, "one", ALONE, unpack=False)
    tree = shelf.store.layers.make_tree_place(ref.descriptor.digest)
    tree.mkdir()
    before = (await shelf.store.usage()).layers.size
    await shelf.store.layers.record_tree(ref.descriptor.digest, 1 << 40)
    assert (await shelf.store.usage()).layers.size - before == 1 << 40
    assert (await shelf.store.plan_gc(Retention(max_size=1 << 41))).items == ()
    plan, freed = await shelf.store.plan_eviction(Shortage(1 << 39))
    assert freed >= 1 << 40
    assert ref.name in {item.name for item in plan.items}
    plan = await shelf.store.plan_gc(Retention(max_size=1 << 39))
    assert {item.name for item in plan.items} >= {ref.name, f"images/rootfs/{tree.name}"}
    await shelf.store.gc(plan)
    assert list(tree.parent.iterdir()) == []


@pytest.mark.parametrize("record", ["", "{}", '{"manifest": "another", "size": 1}', '{"size": -1}'])
async def test_a_record_that_is_none_counts_nothing_and_one_without_a_tree_goes(shelf: Shelf, record: str) -> None:
    ref = await image(shelf, "one", ALONE, unpack=False)
    tree = shelf.store.layers.make_tree_place(ref.descriptor.digest)
    tree.mkdir()
    before = (await shelf.store.usage()).layers.size
    path = tree.with_name(f"{tree.name}.json")
    path.write_text(record)
    assert (await shelf.store.usage()).layers.size == before
    assert shelf.store.layers.tree_size(ref.descriptor.digest) is None
    assert await gc(shelf.store) == {}
    tree.rmdir()
    assert list(await gc(shelf.store)) == [f"images/rootfs/{tree.name}"]
    assert not path.exists()


async def test_what_containerd_links_to_stays(shelf: Shelf, tmp_path: Path) -> None:
    for tar in TARS[:2]:
        await put(shelf.store.layers, tar)
    mark = shelf.path / "fastoci.json"
    snapshotter = tmp_path / "snapshotter"
    mark.write_text(json.dumps({"format": 1, "containerd": [str(snapshotter), str(tmp_path / "not there")]}))
    for number in (1, 2):
        (snapshotter / "snapshots" / str(number)).mkdir(parents=True)
    (snapshotter / "snapshots/1/layer.erofs").symlink_to(shelf.store.layers.path(DIGESTS[0]))
    (snapshotter / "snapshots/2/layer.erofs").write_bytes(b"its own")
    await gc(shelf.store)
    assert there(shelf) == digits(DIGESTS[0])
    (snapshotter / "snapshots/1/layer.erofs").unlink()
    mark.write_text('{"format": 1, "containerd": "a"}')
    with pytest.raises(StoreError, match='"containerd" is not an array'):
        await shelf.store.plan_gc(Retention())
    mark.write_text('{"format": 1}')
    await gc(shelf.store)
    assert there(shelf) == set()


async def test_the_limit_of_a_store_counts_layers(shelf: Shelf) -> None:
    one = await image(shelf, "one", tar_of(9, 300_000))
    os.utime(shelf.store.paths.ref_path(one.name), (1, 1))
    await image(shelf, "two", TARS[1])
    usage = await shelf.store.usage()
    assert usage.layers.blobs == 4
    assert usage.total.size > usage.layers.size > 300_000
    assert await shelf.store.size() == usage.total.size
    small = usage.total.size - 250_000
    plan = await shelf.store.plan_gc(Retention(max_size=small, low_size=small))
    assert {item.name for item in plan.items if item.kind == "ref"} == {one.name}
    assert sum(item.kind == "layer" for item in plan.items) == 1
    assert plan.kept_size < small
    await gc(shelf.store, Retention(max_size=small))
    assert (await shelf.store.usage()).layers.blobs == 2


async def test_space_for_a_job_is_found_in_layers(shelf: Shelf) -> None:
    tar = tar_of(9, 1_000_000)
    ref = await image(shelf, "one", tar)
    await image(shelf, "two", TARS[1])
    shelf.file(shelf.describe(b"compressed" + tar[::2])).unlink()  # the layer file is nearly all there is of it
    plan, freed = await shelf.store.plan_eviction(Shortage(900_000, frozenset({"registry.test/two:1"})))
    assert freed >= 1_000_000
    assert ref.name in {item.name for item in plan.items}
    await shelf.store.gc(plan)
    assert shelf.store.layers.find(Digest.of(tar)) is None


async def test_a_store_without_layers_reads_no_config(shelf: Shelf) -> None:
    ref = await image(shelf, "one", TARS[0], unpack=False)
    blob = shelf.file(shelf.describe(b"compressed" + TARS[0][::2]))
    blob.chmod(0o644)
    os.truncate(blob, 1)
    assert await gc(shelf.store) == {}
    async with shelf.store.layers.keep([]):
        await put_merged(shelf.store.layers, ref.descriptor.digest, [])
    assert await gc(shelf.store) == {}
