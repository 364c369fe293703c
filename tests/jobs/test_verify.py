"""Everything hashed again: what is bad is found and named, and nothing is changed; and repaired when asked for.

Covers: jobs/maintenance.py, jobs/rehash.py, jobs/repair.py, store/verify_cursor.py.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

import fastoci
from fastoci import _core
from fastoci.errors import BlobNotFoundError, NotFoundError, StoreBusyError
from fastoci.events import BlobStarted, Event, VerifyProgress
from fastoci.image.digest import Digest
from fastoci.jobs.rehash import Outcome, Rate, Rehash, Target
from fastoci.store.opening import existing_store
from fastoci.store.verify_cursor import CursorFile
from fastoci.testing.registry import Registry, serve
from support.images import FIRST, SECOND, image_of

IMAGE = image_of(FIRST, SECOND)
OTHER = image_of(FIRST)
LAYER = IMAGE.layers[1].descriptor
SHARED = IMAGE.layers[0].descriptor


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        registry.add_image("app", "1", IMAGE)
        registry.add_image("other", "1", OTHER)
        yield registry


@pytest.fixture
async def filled(registry: Registry, tmp_path: Path) -> Path:
    async with fastoci.Engine(tmp_path / "store") as engine:
        await engine.pull(f"{registry.address}/app:1")
        await engine.pull(f"{registry.address}/other:1")
    return tmp_path / "store"


def file(store: Path, digest: Digest) -> Path:
    return store / "blobs" / "sha256" / digest.hex


def rewrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    rewrite(path, bytes(data))


def tree(store: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns)
        for path in store.rglob("*")
        if path.is_file() and "verify" not in path.parts
    }


async def test_a_whole_store_is_hashed_and_good(filled: Path) -> None:
    events: list[Event] = []
    async with fastoci.Engine(filled, observer=events.append) as engine:
        result = await engine.verify()
    blobs = list((filled / "blobs" / "sha256").iterdir())
    assert (result.blobs, result.size, result.bad) == (len(blobs), sum(blob.stat().st_size for blob in blobs), ())
    assert VerifyProgress(result.blobs, result.size) in events
    assert not (filled / "verify" / "cursor").exists()


async def test_each_kind_of_bad_blob_is_named_with_who_needs_it(filled: Path, registry: Registry) -> None:
    app, other = f"{registry.address}/app:1", f"{registry.address}/other:1"
    flip(file(filled, LAYER.digest))
    rewrite(file(filled, SHARED.digest), b"short")
    config = Digest.of(IMAGE.config)
    file(filled, config).unlink()
    stray = filled / "blobs" / "sha256" / ("0" * 64)
    stray.write_bytes(b"stray")
    link = filled / "blobs" / "sha256" / ("1" * 64)
    link.symlink_to("/etc/passwd")
    os.mkfifo(filled / "blobs" / "sha256" / ("2" * 64))
    before = tree(filled)
    async with fastoci.Engine(filled) as engine:
        result = await engine.verify()
    found = {bad.digest: (bad.kind, bad.expected, bad.found, bad.references) for bad in result.bad}
    assert found == {
        str(LAYER.digest): ("corrupt", LAYER.size, LAYER.size, (app,)),
        str(SHARED.digest): ("size", SHARED.size, 5, (app, other)),
        str(config): ("missing", len(IMAGE.config), None, (app,)),
        f"sha256:{'0' * 64}": ("corrupt", None, 5, ()),
        f"sha256:{'1' * 64}": ("unreadable", None, None, ()),
        f"sha256:{'2' * 64}": ("unreadable", None, None, ()),
    }
    assert tree(filled) == before
    codes = {bad.kind: bad.error.exit_code for bad in result.bad}
    assert codes == {"corrupt": 6, "size": 6, "missing": 3, "unreadable": 8}


@pytest.mark.parametrize("name", ["z" * 64, "A" * 64, "0" * 63, "note.txt"])
async def test_a_file_that_is_no_blob_is_passed_over(filled: Path, name: str) -> None:
    (filled / "blobs" / "sha256" / name).write_bytes(b"foreign")
    async with fastoci.Engine(filled) as engine:
        assert (await engine.verify()).bad == ()
        assert (await engine.usage()).reclaimable.blobs == 0
    assert (filled / "blobs" / "sha256" / name).exists()


async def test_references_limit_what_is_hashed(filled: Path, registry: Registry) -> None:
    flip(file(filled, LAYER.digest))
    async with fastoci.Engine(filled) as engine:
        other = await engine.verify([f"{registry.address}/other:1"])
        app = await engine.verify([f"{registry.address}/app:1"])
        with pytest.raises(BlobNotFoundError):
            await engine.verify([f"{registry.address}/none:1"])
    assert not other.bad and other.blobs == 3
    assert [bad.digest for bad in app.bad] == [str(LAYER.digest)]


async def test_a_cancelled_round_goes_on_behind_what_was_hashed_and_remembers_what_was_bad(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = sorted(path.name for path in (filled / "blobs" / "sha256").iterdir())
    flip(filled / "blobs" / "sha256" / digests[0])
    loop, hashed = asyncio.get_running_loop(), asyncio.Event()

    def wait(rate: Rate, size: int) -> None:  # until all stops: a very slow rate
        loop.call_soon_threadsafe(hashed.set)
        rate._stop.wait()

    limits = fastoci.Limits(workers=1, memory=4 << 20)  # two files at a time
    async with fastoci.Engine(filled, limits=limits) as engine:
        with monkeypatch.context() as patched:
            patched.setattr(Rate, "wait", wait)
            running = asyncio.create_task(engine.verify())
            await hashed.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        cursor = json.loads((filled / "verify" / "cursor").read_bytes())
        assert cursor["after"] in {f"sha256:{name}" for name in digests[:-1]}
        assert cursor["bad"] == [f"sha256:{digests[0]}"]
        result = await engine.verify()
        assert result.behind == cursor["after"]
        assert result.blobs == len([name for name in digests if f"sha256:{name}" > cursor["after"]]) + 1
        assert [bad.digest for bad in result.bad] == [f"sha256:{digests[0]}"]
        assert (await engine.verify()).blobs == len(digests)


async def test_two_rounds_at_once_are_one_too_many(filled: Path) -> None:
    paths = existing_store(str(filled))
    turn = CursorFile(paths)
    async with fastoci.Engine(filled) as engine:
        with pytest.raises(StoreBusyError):
            await engine.verify()
        turn.close()
        assert not (await engine.verify()).bad
    paths.close()


async def test_a_blob_in_an_additional_store_is_verified_for_those_who_need_it(
    filled: Path, registry: Registry, tmp_path: Path
) -> None:
    async with fastoci.Engine(tmp_path / "over", additional=[filled]) as engine:
        await engine.pull(f"{registry.address}/app:1")
        flip(file(filled, LAYER.digest))
        assert not (await engine.verify()).bad
        [bad] = (await engine.verify([f"{registry.address}/app:1"])).bad
        assert bad.path == str(file(filled, LAYER.digest))
        await engine.repair()
        assert not (await engine.verify([f"{registry.address}/app:1"])).bad
    assert file(tmp_path / "over", LAYER.digest).stat().st_size == LAYER.size


async def test_repair_brings_back_what_is_bad_or_missing_and_fetches_nothing_else(
    filled: Path, registry: Registry
) -> None:
    manifest = IMAGE.descriptor.digest
    flip(file(filled, LAYER.digest))
    rewrite(file(filled, SHARED.digest), b"short")
    file(filled, manifest).unlink()
    registry.log.clear()
    async with fastoci.Engine(filled) as engine:
        result = await engine.repair()
        assert set(result.repaired) == {str(LAYER.digest), str(SHARED.digest), str(manifest)}
        assert not result.failed
        assert not (await engine.verify()).bad
    gets = [record.path.rpartition("/")[2] for record in registry.log if record.path.count("/") > 2]
    assert sorted(set(gets)) == sorted(result.repaired)  # a large one comes in parts


async def test_what_a_repaired_manifest_names_is_kept_from_a_collection(
    filled: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastoci.store.gc.collect._SETTLED_NS", 0)
    app = f"{registry.address}/app:1"
    file(filled, IMAGE.descriptor.digest).unlink()
    flip(file(filled, LAYER.digest))
    leases: list[str] = []

    def look(event: Event) -> None:
        if isinstance(event, BlobStarted):
            leases.extend(path.read_text() for path in (filled / "leases").iterdir() if path.name[0] != ".")

    async with fastoci.Engine(filled, observer=look) as engine:
        plan = await engine.plan_gc()
        assert str(LAYER.digest) in {item.name for item in plan.items}
        await engine.repair([app])
        assert all(str(blob.digest) in leases[-1] for blob in (IMAGE.descriptor, LAYER, SHARED))
        await engine.gc(plan)
        assert (await engine.verify([app])).bad == ()


async def test_a_repair_that_fails_leaves_the_bad_blob_and_repairs_the_others(filled: Path, registry: Registry) -> None:
    flip(file(filled, LAYER.digest))
    damaged = file(filled, LAYER.digest).read_bytes()
    rewrite(file(filled, Digest.of(OTHER.config)), b"{}")
    registry.remove_blob(str(LAYER.digest))
    async with fastoci.Engine(filled) as engine:
        result = await engine.repair()
    assert result.repaired == (str(Digest.of(OTHER.config)),)
    [(name, error)] = result.failed
    assert name == f"{registry.address}/app:1" and isinstance(error, NotFoundError)
    assert file(filled, LAYER.digest).read_bytes() == damaged


async def test_a_blob_that_cannot_be_had_does_not_keep_the_others_of_its_image(
    filled: Path, registry: Registry
) -> None:
    gone, other = sorted((LAYER.digest, SHARED.digest), key=str)
    for digest in (gone, other):
        flip(file(filled, digest))
    registry.remove_blob(str(gone))
    async with fastoci.Engine(filled) as engine:
        result = await engine.repair([f"{registry.address}/app:1"])
    assert result.repaired == (str(other),)
    assert [type(error) for _, error in result.failed] == [NotFoundError]


def test_files_of_all_sizes_are_hashed_in_lanes(tmp_path: Path) -> None:
    buffer = _core.BUFFER_SIZE
    targets = []
    for number, size in enumerate([0, 1, 64, buffer - 1, buffer, buffer + 1, 3 * buffer, *range(100, 200)]):
        data = os.urandom(size)
        path = tmp_path / str(number)
        path.write_bytes(data)
        targets.append(Target(number, str(path), Digest.of(data), size, partial(os.open, path, os.O_RDONLY)))
    wrong = replace(targets[5], number=len(targets), digest=targets[4].digest, size=None)
    done: list[Outcome] = []
    count = 0

    def read(size: int) -> None:
        nonlocal count
        count += size

    pool = _core.Pool(8 * buffer)
    buffers = [pool.take() for _ in range(8)]
    Rehash([*targets, wrong], rate=None, done=done.append, read=read).run(
        [each for each in buffers if each is not None]
    )
    assert {outcome.target.number for outcome in done if outcome.error} == {wrong.number}
    assert len(done) == len(targets) + 1
    assert count == sum(outcome.size for outcome in done)
    for each in buffers:
        assert each is not None
        each.release()
