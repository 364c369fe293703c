"""Power cuts during two pulls, the second of a newer image of the same name, and a gc: then a pull in the next boot.

``make power-cuts`` makes 2,000 cuts for each level of durability; ``make test`` some, by a seed that is printed.
``FASTOCI_SEED`` repeats one.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fastoci import Engine, Layers
from fastoci.errors import StoreError
from fastoci.image.digest import Digest
from fastoci.store.opening import existing_store
from fastoci.store.refs import Refs
from fastoci.store.store import Store
from fastoci.testing.images import Image
from support.crash_harness import LAYERS, CrashHarness, image, wrong_blobs, wrong_refs
from support.power_cut_model import History, record
from support.scratch import scratch

CUTS = int(os.environ.get("FASTOCI_CUTS", "15"))
SEED = int(os.environ.get("FASTOCI_SEED", "0")) or random.randrange(1, 1 << 32)
OLD, NEW = image(LAYERS[:1]), image()


@pytest.fixture
def next_boot(monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of another boot, which is the present one for stores that this process opens."""
    boot = str(uuid.uuid4())
    monkeypatch.setattr("fastoci.store.store.boot_id", lambda: boot)
    return boot


@pytest.fixture
def after() -> Iterator[Path]:
    """Where the store of a cut is put."""
    with scratch("cut") as directory:
        yield directory / "store"


def _history(harness: CrashHarness, log: Path) -> History:
    """Of two pulls and a gc."""
    history = History(harness.root)
    for served, command in (
        (OLD, harness.command(rootfs=False)),
        (NEW, harness.command(rootfs=False)),
        (NEW, harness.gc_command()),
    ):
        harness.registry.add_image("app", "1", served)
        record(harness.start(command, waits=True), log)
        history.add(log)
    assert wrong_blobs(harness.store) == wrong_refs(harness.store) == []
    assert {path.name for path in harness.store.glob("blobs/*/[!.]*")} == set(_sizes(NEW))
    return history


def _sizes(image: Image) -> dict[str, int]:
    """The size of each blob, by hex digest."""
    blobs = [image.descriptor, *(blob for blob, _ in image.blobs())]
    return {blob.digest.hex: blob.size for blob in blobs}


def _wrong(store: Path, boot: str, when: int, history: History, level: str) -> list[str]:
    """What no power cut may leave."""
    distrusted = {path.name.partition("-")[2] for path in store.glob("unsynced/*/*") if path.parent.name != boot}
    sizes = _sizes(OLD) | _sizes(NEW)
    trusted = {
        blob.name: blob
        for blob in store.glob("blobs/*/[!.]*")
        if blob.name not in distrusted and blob.stat().st_size == sizes[blob.name]
    }
    found = [
        f"wrong blob {name}" for name, path in trusted.items() if hashlib.sha256(path.read_bytes()).hexdigest() != name
    ]
    if not (store / "refs").exists():
        return found + (["the store is gone"] if when > history.marks[0] else [])
    try:
        with closing(existing_store(str(store))) as paths:
            refs, broken = Refs(paths).list()
    except StoreError as error:
        return [*found, str(error)]
    found += [str(error) for error in broken]
    tops = {ref.descriptor.digest.hex for ref in refs}
    if when > history.marks[0] and not tops:
        found.append("the reference is gone")
    if when > history.marks[1] and tops != {NEW.descriptor.digest.hex}:
        found.append("the new reference is gone")
    if level != "none":
        # a marker whose removal was not synced costs one more fetch: the blob is right all the same
        wrong = {line.rpartition(" ")[2] for line in wrong_blobs(store)}
        right = {path.name for path in store.glob("blobs/*/[!.]*")} - wrong
        images = [each for each in (OLD, NEW) if each.descriptor.digest.hex in tops]
        found += [f"{name} is gone" for each in images for name in _sizes(each) if name not in right]
    return found


async def _pull(store: Path, harness: CrashHarness) -> list[str]:
    """A pull in the next boot; what is wrong then."""
    async with Engine(store) as engine:
        await engine.pull(f"{harness.registry.address}/app:1")
        await engine.gc(await engine.plan_gc())
    found = wrong_blobs(store) + wrong_refs(store)
    here = {path.name for path in store.glob("blobs/*/[!.]*")}
    return found + [f"no blob {name}" for name in _sizes(NEW) if name not in here]


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("level", ["commit", "batch", "none"])
async def test_after_a_power_cut_nothing_wrong_is_trusted_and_the_next_pull_goes_on(
    harness: CrashHarness, after: Path, next_boot: str, level: str, tmp_path: Path
) -> None:
    harness.durability = level
    history = await asyncio.to_thread(_history, harness, tmp_path / "log")
    instants = history.instants()
    draw = random.Random(SEED)
    kinds: Counter[str] = Counter()
    for number in range(CUTS):
        when = draw.choice(instants)
        context = f"seed {SEED}, cut {number} at {when} of {history.end}"
        after.parent.mkdir(exist_ok=True)
        history.cut(when, draw).write(after.parent)
        assert _wrong(after, next_boot, when, history, level) == [], context
        kinds["blobs"] += len(list(after.glob("blobs/*/*")))
        kinds["partial blobs"] += sum(path.stat().st_size > 0 for path in after.glob("ingest/*/data"))
        kinds["markers"] += len(list(after.glob("unsynced/*/*")))
        kinds["references"] += len(list(after.glob("refs/*/[!.]*")))
        assert await _pull(after, harness) == [], context
        shutil.rmtree(after)
    print(
        f"seed {SEED}, {level}: {number + 1} cuts of {len(history.changes)} changes, {len(history.syncs)} syncs;",
        end="",
    )
    print(f" they left {dict(kinds)}")
    assert kinds["blobs"] > 0
    assert (kinds["markers"] > 0) == (level != "commit")


def _layer_files(store: Path) -> dict[str, str]:
    """Layer files where containerd may look, hashed."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in store.glob("layers/sha256/*/*.erofs")}


def _wrong_layers(path: Path, whole: dict[str, str]) -> list[str]:
    """Layer files that are trusted and are not what was written."""
    found = [name for name, content in _layer_files(path).items() if whole[name] != content]
    store = Store.at(path)
    try:
        infos = [store.layers.find(Digest("sha256", name.removesuffix(".erofs"))) for name in whole]
        for info in (each for each in infos if each is not None):
            content = Path(info.path).read_bytes()
            if hashlib.sha256(content).hexdigest() != whole[os.path.basename(info.path)]:
                found.append(info.path)
        if store.layers.find_merged(NEW.descriptor.digest) is not None:
            found.append("merged metadata of another boot")
    finally:
        store.close()
    return found


@pytest.mark.timeout(7200)
async def test_after_a_power_cut_no_layer_file_is_wrong_and_the_next_pull_goes_on(
    harness: CrashHarness, after: Path, next_boot: str, tmp_path: Path
) -> None:
    harness.durability = "batch"
    history = History(harness.root)
    harness.registry.add_image("app", "1", NEW)
    command = [*harness.command(rootfs=False), "--layers", "erofs"]
    await asyncio.to_thread(record, harness.start(command, waits=True), tmp_path / "log")
    await asyncio.to_thread(history.add, tmp_path / "log")
    files = [*harness.store.glob("layers/*/*/*.erofs"), *harness.store.glob("layers/merge/*.erofs")]
    whole = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert len(whole) == len(LAYERS)
    draw = random.Random(SEED)
    instants = history.instants()
    for number in range(max(4, CUTS // 4)):
        when = draw.choice(instants[len(instants) // 4 :])  # layers come late
        context = f"seed {SEED}, cut {number} at {when} of {history.end}"
        after.parent.mkdir(exist_ok=True)
        await asyncio.to_thread(lambda cut: cut.write(after.parent), history.cut(when, draw))
        assert _wrong_layers(after, whole) == [], context
        async with Engine(after) as engine:
            await engine.pull(f"{harness.registry.address}/app:1", layers=Layers("erofs"))
        found = [*after.glob("layers/*/*/*.erofs"), *after.glob("layers/merge/*.erofs")]
        assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found} == whole, context
        shutil.rmtree(after)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("omitted", ["files", "directories"])
async def test_a_store_that_did_not_sync_would_be_found_out(
    harness: CrashHarness, after: Path, next_boot: str, omitted: str, tmp_path: Path
) -> None:
    history = await asyncio.to_thread(_history, harness, tmp_path / "log")
    careless = history.without(files=omitted == "files", directories=omitted == "directories")
    assert 0 < len(careless.syncs) < len(history.syncs)
    instants = history.instants()
    draw = random.Random(SEED)
    for _ in range(200):
        when = draw.choice(instants)
        careless.cut(when, draw).write(after.parent)
        if after.exists() and _wrong(after, next_boot, when, history, "commit"):
            return
        shutil.rmtree(after, ignore_errors=True)
    pytest.fail(f"seed {SEED}: of 200 cuts none was wrong")
