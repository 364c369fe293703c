"""Garbage collection: what goes, what stays and why, and that a plan which is no longer true does no harm.

Covers: store/gc/retention.py, store/gc/stale.py.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fastoci import files
from fastoci.directory import Directory
from fastoci.errors import StoreError
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.links import Link
from fastoci.image.stored_image import StoredImage
from fastoci.store.gc import collect
from fastoci.store.gc.collect import GcPlan
from fastoci.store.gc.retention import Retention
from fastoci.store.graph import Marks
from support.store_shelf import Shelf

DAY = 86400.0
OTHER_BOOT = "11111111-2222-4333-8444-555555555555"


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """References count as settled at once."""
    monkeypatch.setattr(collect, "_SETTLED_NS", -(10**18))


async def image(shelf: Shelf, name: str, *layers: bytes, used: float = 0.0, pinned: bool = False) -> StoredImage:
    """An image with a config of its own, last used ``used`` seconds ago."""
    config = await shelf.put(name.encode(), media_type=mediatype.OCI_CONFIG)
    blobs = [await shelf.put(layer, media_type=mediatype.OCI_LAYER) for layer in layers]
    form = {"schemaVersion": 2, "config": encode(config), "layers": [encode(blob) for blob in blobs]}
    manifest = await shelf.put(json.dumps(form).encode(), media_type=mediatype.OCI_MANIFEST)
    ref = StoredImage(f"registry.test/{name}:1", manifest, {"linux/amd64": manifest}, "2023-11-14T22:13:20Z", pinned)
    await shelf.record(ref)
    touch(shelf, ref, used)
    return ref


def touch(shelf: Shelf, ref: StoredImage, ago: float) -> None:
    then = time.time() - ago
    os.utime(shelf.store.paths.ref_path(ref.name), (then, then))


def names(shelf: Shelf) -> list[str]:
    return [ref.name.split("/")[1].split(":")[0] for ref in shelf.store.refs.list()[0]]


def blobs(shelf: Shelf) -> set[str]:
    return {path.name for path in (shelf.path / "blobs" / "sha256").iterdir()}


async def until(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0.001)


async def collected(shelf: Shelf, retention: Retention | None = None) -> GcPlan:
    plan = await shelf.store.plan_gc(retention or Retention())
    await shelf.store.gc(plan)
    return plan


async def test_what_no_reference_reaches_goes_and_the_rest_stays(shelf: Shelf) -> None:
    await image(shelf, "one", b"shared", b"first")
    await image(shelf, "two", b"shared", b"second")
    kept = blobs(shelf)
    stray = [await shelf.put(b"stray"), await shelf.put(b"other", "sha512")]
    plan = await shelf.store.plan_gc(Retention())
    assert {(item.kind, item.name, item.size, item.why) for item in plan.items} == {
        ("blob", str(blob.digest), 5, "in no image") for blob in stray
    }
    assert (plan.size, plan.kept_blobs) == (10, len(kept))
    assert plan.kept_size == sum(path.stat().st_size for path in (shelf.path / "blobs" / "sha256").iterdir()) - 5
    assert all(str(blob.digest) in str(plan) for blob in stray)
    assert await shelf.store.gc(plan) == plan.items
    assert blobs(shelf) == kept
    assert os.listdir(shelf.path / "blobs" / "sha512") == []
    assert (await shelf.store.plan_gc(Retention())).items == ()


async def test_a_plan_changes_nothing(shelf: Shelf) -> None:
    await shelf.put(b"stray")
    before = sorted(path for path in shelf.path.rglob("*"))
    await shelf.store.plan_gc(Retention(max_count=0))
    assert sorted(path for path in shelf.path.rglob("*")) == before


async def test_an_index_keeps_all_that_is_present_below_it(shelf: Shelf) -> None:
    ref = await image(shelf, "one", b"layer")
    absent = Descriptor.of(b"never fetched", mediatype.OCI_MANIFEST)
    inner = {"schemaVersion": 2, "manifests": [encode(ref.descriptor), encode(absent)]}
    nested = await shelf.put(json.dumps(inner).encode(), media_type=mediatype.OCI_INDEX)
    outer = {"schemaVersion": 2, "manifests": [encode(nested)]}
    top = await shelf.put(json.dumps(outer).encode(), media_type=mediatype.DOCKER_LIST)
    kept = blobs(shelf)
    await shelf.record(StoredImage("registry.test/index:1", top, {}, "2023-11-14T22:13:20Z"))
    await shelf.store.forget(ref.name)
    assert (await collected(shelf)).items == ()
    assert blobs(shelf) == kept


async def test_what_is_of_an_unknown_type_is_kept_and_not_looked_into(shelf: Shelf) -> None:
    odd = await shelf.put(b'{"manifests": "no"}', media_type="application/x-odd+json")
    await shelf.record(StoredImage("registry.test/odd:1", odd, {}, "2023-11-14T22:13:20Z"))
    assert (await collected(shelf)).items == ()


async def test_what_other_tools_listed_in_the_index_is_kept(shelf: Shelf) -> None:
    ref = await image(shelf, "one", b"layer")
    foreign = {**encode(ref.descriptor), "annotations": {"org.opencontainers.image.ref.name": "theirs"}}
    (shelf.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [foreign]}))
    await shelf.store.forget(ref.name)
    assert (await collected(shelf)).items == ()
    (shelf.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": []}))
    assert len((await collected(shelf)).items) == 3


@pytest.mark.parametrize("whose", ["ours", "another tool's"])
async def test_a_broken_entry_of_an_index_stops_gc_only_where_nobody_said_which_are_needed(
    shelf: Shelf, whose: str
) -> None:
    held, ref = await image(shelf, "held", b"layer"), await image(shelf, "other", b"other layer")
    broken = {key: value for key, value in encode(ref.descriptor).items() if key != "mediaType"}
    data = json.dumps({"schemaVersion": 2, "manifests": [broken, encode(held.descriptor)]}).encode()
    top = await shelf.put(data, media_type=mediatype.OCI_INDEX)
    if whose == "ours":
        await shelf.record(StoredImage("registry.test/index:1", top, held.images, "2023-11-14T22:13:20Z"))
    else:
        (shelf.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [encode(top)]}))
    for each in (held, ref):
        await shelf.store.forget(each.name)
    if whose == "ours":
        assert len((await collected(shelf)).items) == 3
        assert shelf.store.holds(held.descriptor) and not shelf.store.holds(ref.descriptor)
    else:
        with pytest.raises(StoreError, match="what it needs is unknown"):
            await shelf.store.plan_gc(Retention())
        assert shelf.store.holds(ref.descriptor)


async def test_an_entry_of_our_own_is_no_root(shelf: Shelf) -> None:
    ref = await image(shelf, "one", b"layer")
    await shelf.store.update_index()
    await shelf.store.forget(ref.name)
    assert len((await collected(shelf)).items) == 3


async def test_a_broken_reference_stops_gc(shelf: Shelf) -> None:
    ref = await image(shelf, "one", b"layer")
    stray = await shelf.put(b"stray")
    plan = await shelf.store.plan_gc(Retention())
    Path(shelf.store.paths.ref_path(ref.name)).write_text("{")
    with pytest.raises(StoreError, match="not a reference"):
        await shelf.store.plan_gc(Retention())
    with pytest.raises(StoreError, match="not a reference"):
        await shelf.store.gc(plan)
    assert shelf.store.holds(stray)


async def test_a_document_that_nobody_can_read_stops_gc_and_a_damaged_one_does_not(shelf: Shelf) -> None:
    manifest = await shelf.put(b"[]", media_type=mediatype.OCI_MANIFEST)
    await shelf.record(StoredImage("registry.test/odd:1", manifest, {}, "2023-11-14T22:13:20Z"))
    with pytest.raises(StoreError, match="what it needs is unknown"):
        await shelf.store.plan_gc(Retention())
    file = shelf.file(manifest)
    file.unlink()
    file.write_bytes(b"{}")
    assert (await shelf.store.plan_gc(Retention())).items == ()  # its name is kept, whatever it is


@pytest.mark.parametrize(
    ("retention", "left"),
    [
        (Retention(), ["a", "b", "c", "d"]),
        (Retention(max_age_s=1.5 * DAY), ["a", "b", "d"]),
        (Retention(max_age_s=0.5 * DAY), ["a", "d"]),
        (Retention(max_count=3), ["a", "b", "d"]),
        (Retention(max_count=0), ["d"]),
        (Retention(max_age_s=2.5 * DAY, max_count=2), ["a", "d"]),
    ],
)
async def test_the_least_recently_used_images_go_and_pinned_ones_never(
    shelf: Shelf, retention: Retention, left: list[str]
) -> None:
    for age, name in enumerate("abcd"):
        await image(shelf, name, b"shared", name.encode() * 10, used=age * DAY, pinned=name == "d")
    plan = await collected(shelf, retention)
    assert names(shelf) == left
    gone = [item for item in plan.items if item.kind == "blob"]
    assert len(gone) == 3 * (4 - len(left))  # manifest, config and a layer each
    assert {item.why for item in gone} <= {"only in images that go"}
    for ref in shelf.store.refs.list()[0]:
        assert await shelf.store.missing(await needed(shelf, ref)) == []


async def needed(shelf: Shelf, ref: StoredImage) -> Sequence[Descriptor]:
    from fastoci.image.manifest import parse

    manifest = parse(await shelf.store.read(ref.descriptor), ref.descriptor.media_type)
    return (ref.descriptor, manifest.config, *manifest.layers)


async def test_no_image_stops_gc_by_what_it_says_of_types(shelf: Shelf) -> None:
    """Layers that claim to be manifests, and an index that calls another image's blobs what they are not."""
    plain = await image(shelf, "plain", b"needed")
    config = await shelf.put(b"config", media_type=mediatype.OCI_CONFIG)
    layer = await shelf.put(b"no manifest", media_type=mediatype.OCI_MANIFEST)
    form = {"schemaVersion": 2, "config": encode(config), "layers": [encode(layer)]}
    manifest = await shelf.put(json.dumps(form).encode(), media_type=mediatype.OCI_MANIFEST)
    entries = [encode(manifest), encode(layer), {**encode(plain.descriptor), "mediaType": mediatype.OCI_INDEX}]
    document = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    index = await shelf.put(document, media_type=mediatype.OCI_INDEX)
    await shelf.record(StoredImage("registry.test/a:1", index, {"linux/amd64": manifest}, "2023-11-14T22:13:20Z"))
    await shelf.put(b"stray")
    assert len((await collected(shelf)).items) == 1
    assert await shelf.store.missing([*await needed(shelf, plain), index, manifest, config, layer]) == []


@pytest.mark.parametrize("planted", ["fifo", "link"])
async def test_what_is_no_file_in_a_manifests_place_counts_as_absent(
    shelf: Shelf, tmp_path: Path, planted: str
) -> None:
    ref = await image(shelf, "one", b"layer")
    shelf.file(ref.descriptor).unlink()
    if planted == "fifo":
        os.mkfifo(shelf.file(ref.descriptor))
    else:
        shelf.file(ref.descriptor).symlink_to(tmp_path / "elsewhere")
    assert len((await collected(shelf)).items) == 2
    assert os.path.lexists(shelf.file(ref.descriptor))


@pytest.mark.parametrize(
    ("high", "low", "left"),
    [
        (500_000, None, ["a", "b", "c", "d"]),
        (411_000, None, ["a", "b", "d"]),  # what is shared counts once: 100 kB each, and 10 kB for all
        (399_000, 230_000, ["a", "d"]),
        (399_000, 100_000, ["d"]),
        (0, None, ["d"]),
    ],
)
async def test_when_there_is_too_much_images_go_until_the_low_mark(
    shelf: Shelf, high: int, low: int | None, left: list[str]
) -> None:
    for age, name in enumerate("abcd"):
        layer = shelf.random(100_000, seed=age)
        await image(shelf, name, bytes(10_000), layer, used=age * DAY, pinned=name == "d")
    await shelf.put(b"stray")
    plan = await collected(shelf, Retention(max_size=high, low_size=low))
    assert names(shelf) == left
    assert plan.kept_size <= max(low or high, 115_000)
    for ref in shelf.store.refs.list()[0]:
        assert await shelf.store.missing(await needed(shelf, ref)) == []


async def test_what_is_not_in_this_store_takes_no_room_in_it(shelf: Shelf) -> None:
    for age, name in enumerate("abc"):
        layer = shelf.random(100_000, seed=age)
        await image(shelf, name, layer, used=age * DAY)
        if name != "a":  # as if it were in an additional store
            shelf.file(Descriptor(mediatype.OCI_LAYER, Digest.of(layer), len(layer))).unlink()
    assert (await collected(shelf, Retention(max_size=150_000))).kept_size < 150_000
    assert names(shelf) == ["a", "b", "c"]
    await collected(shelf, Retention(max_size=50_000))
    assert names(shelf) == []


def test_a_low_mark_above_the_high_one_is_refused() -> None:
    with pytest.raises(ValueError, match="low_size"):
        Retention(max_size=1, low_size=2)
    with pytest.raises(ValueError, match="low_size"):
        Retention(low_size=2)


@pytest.mark.parametrize("change", ["used", "pulled again", "pinned"])
async def test_an_image_that_was_used_after_the_plan_stays(shelf: Shelf, change: str) -> None:
    ref = await image(shelf, "one", b"layer", used=10 * DAY)
    before = blobs(shelf)
    plan = await shelf.store.plan_gc(Retention(max_age_s=DAY))
    assert len(plan.items) == 4
    if change == "used":
        shelf.store.refs.touch(ref.name)
    elif change == "pinned":
        await shelf.store.pin(ref.name, True)
    else:
        await shelf.record(ref)
    assert await shelf.store.gc(plan) == ()
    assert names(shelf) == ["one"]
    assert blobs(shelf) == before


async def test_a_reference_recorded_after_the_plan_keeps_its_blobs(shelf: Shelf) -> None:
    ref = await image(shelf, "one", b"layer")
    await shelf.store.forget(ref.name)
    plan = await shelf.store.plan_gc(Retention())
    assert len(plan.items) == 3
    await shelf.record(ref)
    assert await shelf.store.gc(plan) == ()
    assert await shelf.store.missing(await needed(shelf, ref)) == []


async def test_a_reference_written_a_moment_before_the_plan_is_read_again(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file may change again within the clock's tick and look the same."""
    monkeypatch.undo()
    ref = await image(shelf, "one", b"layer", used=10 * DAY)
    plan = await shelf.store.plan_gc(Retention(max_age_s=DAY))
    assert plan.stamps == {}
    assert await shelf.store.gc(plan) == ()
    assert names(shelf) == [ref.name.split("/")[1].split(":")[0]]


async def test_foreign_files_among_the_blobs_stay(shelf: Shelf, tmp_path: Path) -> None:
    directory = shelf.path / "blobs" / "sha256"
    (directory / "notes.txt").write_text("mine")
    (directory / ("0" * 64)).mkdir()
    (directory / ("1" * 64)).symlink_to(tmp_path)
    (directory / ("Z" * 64)).write_text("no digest")
    os.mkfifo(directory / ("2" * 64))
    before = sorted(os.listdir(directory))
    assert (await collected(shelf)).items == ()
    assert sorted(os.listdir(directory)) == before


async def test_nothing_is_deleted_through_a_link_out_of_the_store(shelf: Shelf, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("data", "state", "lock", "sha256-" + "1" * 64):
        (outside / name).write_text("mine")
        os.utime(outside / name, (0, 0))
    os.utime(outside, (0, 0))
    (shelf.path / "unsynced").mkdir()
    for link in (shelf.path / "unsynced" / OTHER_BOOT, shelf.path / "ingest" / ("2" * 64)):
        link.symlink_to(outside)
        os.utime(link, (0, 0), follow_symlinks=False)
    again = Shelf(shelf.path)
    assert (await collected(again)).items == ()
    again.store.close()
    assert len(os.listdir(outside)) == 4


async def test_files_that_are_no_markers_leases_or_references_stay_and_stop_nothing(shelf: Shelf) -> None:
    ref = await image(shelf, "one", b"first")
    for directory in (
        "unsynced",
        f"unsynced/{OTHER_BOOT}",
        "leases",
        f"refs/{shelf.store.paths.ref(ref.name)[0]}",
    ):
        (shelf.path / directory).mkdir(exist_ok=True)
        (shelf.path / directory / "README").write_text("mine")
        (shelf.path / directory / "notes").mkdir()
    before = set(shelf.path.rglob("*"))
    again = Shelf(shelf.path)
    assert (await collected(again)).items == ()
    again.store.close()
    assert before <= set(shelf.path.rglob("*"))


async def test_a_blob_that_became_a_directory_after_the_plan_stays(shelf: Shelf) -> None:
    blob = await shelf.put(b"stray")
    plan = await shelf.store.plan_gc(Retention())
    shelf.file(blob).unlink()
    shelf.file(blob).mkdir()
    assert await shelf.store.gc(plan) == ()
    assert shelf.file(blob).is_dir()


async def partial(shelf: Shelf, data: bytes) -> Path:
    ingest = await shelf.begin(shelf.describe(data))
    assert ingest is not None
    verifier = shelf.feed(ingest, data, until=len(data) // 2)
    ingest.checkpoint(verifier.offset, verifier.state())
    await ingest.abort()
    return shelf.ingest(ingest.blob)


def age(directory: Path, hours: float) -> None:
    then = time.time() - hours * 3600
    for path in (*directory.iterdir(), directory):
        os.utime(path, (then, then))


async def test_an_unfinished_blob_stays_for_a_day(shelf: Shelf) -> None:
    young, old = await partial(shelf, bytes(1000)), await partial(shelf, bytes(2000))
    age(young, 23)
    age(old, 25)
    plan = await collected(shelf)
    assert [(item.kind, item.name, item.size) for item in plan.items] == [("ingest", f"sha256:{old.name}", 1000)]
    assert os.listdir(shelf.path / "ingest") == [young.name]


async def test_an_unfinished_blob_that_is_gone_on_with_stays_however_old(shelf: Shelf) -> None:
    directory = await partial(shelf, bytes(1000))
    age(directory, 25)
    plan = await shelf.store.plan_gc(Retention())
    assert len(plan.items) == 1
    ingest = await shelf.begin(shelf.describe(bytes(1000)))
    assert ingest is not None
    age(directory, 25)
    assert (await shelf.store.plan_gc(Retention())).items == ()
    assert await shelf.store.gc(plan) == ()
    await ingest.commit(shelf.feed(ingest, bytes(1000)).proof())


@pytest.mark.parametrize(("synced", "left"), [(0, 0), (100, 1)])
async def test_an_unfinished_blob_of_another_boot_stays_if_some_of_it_was_synced(
    shelf: Shelf, synced: int, left: int
) -> None:
    from fastoci.store.ingest.checkpoint import State

    directory = await partial(shelf, bytes(1000))
    state = State.decode((directory / "state").read_bytes())
    assert state is not None
    (directory / "state").write_bytes(State(OTHER_BOOT, synced, state.offset, state.hash_state).encode())
    await collected(shelf)
    assert len(os.listdir(shelf.path / "ingest")) == left


async def test_what_a_kill_after_the_rename_leaves_goes(shelf: Shelf) -> None:
    ref = await image(shelf, "one", b"layer")
    directory = shelf.ingest(ref.descriptor)
    directory.mkdir()
    (directory / "lock").touch()
    (directory / "state").touch()
    plan = await collected(shelf)
    assert [item.why for item in plan.items] == ["a rest of one that is done"]
    assert os.listdir(shelf.path / "ingest") == []


async def test_markers_go_with_their_blobs_and_those_of_no_blob_go_too(shelf: Shelf) -> None:
    blob = await shelf.put(b"stray")
    markers = shelf.path / "unsynced" / OTHER_BOOT
    markers.mkdir(parents=True)
    (markers / f"sha256-{blob.digest.hex}").touch()
    (markers / f"sha256-{'0' * 64}").touch()
    again = Shelf(shelf.path)
    try:
        plan = await again.store.plan_gc(Retention())
        assert {item.kind for item in plan.items} == {"blob", "marker"}
        await again.store.gc(plan)
    finally:
        again.store.close()
    assert not markers.exists()


async def test_a_cancelled_gc_ends_soon_and_the_next_goes_on(shelf: Shelf) -> None:
    def fill() -> None:
        for number in range(3000):
            (shelf.path / "blobs" / "sha256" / f"{number:064x}").touch()

    await asyncio.to_thread(fill)
    plan = await shelf.store.plan_gc(Retention())
    task = asyncio.create_task(shelf.store.gc(plan))
    await until(lambda: len(blobs(shelf)) < 3000)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 0 < len(blobs(shelf)) < 3000
    await shelf.store.gc(plan)
    assert blobs(shelf) == set()


async def index_of(shelf: Shelf, *entries: Descriptor, note: str = "") -> Descriptor:
    form = {"schemaVersion": 2, "manifests": list(map(encode, entries)), "annotations": {"note": note}}
    return await shelf.put(json.dumps(form).encode(), media_type=mediatype.OCI_INDEX)


async def fat(shelf: Shelf, *layers: Descriptor) -> Descriptor:
    """A manifest of more bytes than one is read of."""
    config = await shelf.put(b"{}", media_type=mediatype.OCI_CONFIG)
    form = {"schemaVersion": 2, "config": encode(config), "layers": list(map(encode, layers)), "x": "y" * (4 << 20)}
    return await shelf.put(json.dumps(form).encode(), media_type=mediatype.OCI_MANIFEST)


@pytest.mark.attack
@pytest.mark.parametrize("named", ["by a reference", "below an index of another tool"])
async def test_a_document_too_large_to_be_read_stops_gc_by_name(shelf: Shelf, named: str) -> None:
    layer = await shelf.put(b"layer", media_type=mediatype.OCI_LAYER)
    manifest = await fat(shelf, layer)
    if named == "by a reference":
        await shelf.record(StoredImage("registry.test/fat:1", manifest, {}, "2023-11-14T22:13:20Z"))
    else:
        top = await index_of(shelf, manifest)
        (shelf.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [encode(top)]}))
    with pytest.raises(StoreError, match=f"{manifest.digest.hex} has {manifest.size} bytes, more than 4194304"):
        await shelf.store.plan_gc(Retention())
    with pytest.raises(StoreError, match="more than 4194304"):
        await shelf.store.gc(GcPlan((), 0, 0, {}))
    assert shelf.store.holds(layer)


@pytest.mark.attack
async def test_a_blob_too_large_for_a_document_stops_no_gc_when_an_index_calls_it_one(shelf: Shelf) -> None:
    plain = await image(shelf, "plain", b"needed")
    large = await fat(shelf)
    top = await index_of(shelf, plain.descriptor, large)
    ref = StoredImage("registry.test/a:1", top, {"linux/amd64": plain.descriptor}, "2023-11-14T22:13:20Z")
    await shelf.record(ref)
    assert [item.name for item in (await collected(shelf)).items] == [str(Digest.of(b"{}"))]
    assert shelf.store.holds(large)


@pytest.mark.attack
async def test_gc_reads_each_document_once_and_remembers_nothing_that_is_absent(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = await image(shelf, "plain", b"needed")
    absent = [Descriptor.of(str(number).encode(), mediatype.OCI_MANIFEST) for number in range(3000)]
    level = await index_of(shelf, *absent)
    for depth in range(3):
        level = await index_of(shelf, *[level] * 1000, note=str(depth))
    ref = StoredImage("registry.test/a:1", level, {"linux/amd64": plain.descriptor}, "2023-11-14T22:13:20Z")
    await shelf.record(ref)
    reads: list[str] = []
    read = files.read

    def counted(directory: Directory, name: str, limit: int) -> bytes | None:
        reads.append(name)
        return read(directory, name, limit)

    monkeypatch.setattr(files, "read", counted)
    marks = Marks(shelf.store.paths)
    marks.follow([Link.of(level), Link.of(plain.descriptor)])
    assert len(reads) == len(set(reads)) == 5
    assert len(marks.sizes) == 7


@pytest.mark.attack
async def test_an_index_cannot_make_another_images_blobs_larger(shelf: Shelf) -> None:
    """Or else it would make gc take images away, for a store that is larger than it may be."""
    await image(shelf, "plain", b"needed")
    needed = Descriptor(mediatype.OCI_LAYER, Digest.of(b"needed"), 1 << 60)
    top = await index_of(shelf, needed)
    await shelf.record(StoredImage("registry.test/a:1", top, {}, "2023-11-14T22:13:20Z"))
    assert (await collected(shelf, Retention(max_size=1 << 20))).items == ()
    assert (await shelf.store.usage()).total.size < 1 << 20
