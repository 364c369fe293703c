"""Levels of durability: when a blob is synced, and what a power cut would find.

Covers: store/ingest/unsynced.py.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fastoci.boot import boot_id
from fastoci.errors import StoreError
from fastoci.image.digest import Digest
from fastoci.image.stored_image import StoredImage
from fastoci.limits import Level
from fastoci.store.ingest.unsynced import Unsynced
from fastoci.store.opening import open_store
from support.store_shelf import Shelf

OTHER_BOOT = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
def open_at(tmp_path: Path) -> Iterator[Callable[[Level], Shelf]]:
    shelves: list[Shelf] = []

    def make(level: Level) -> Shelf:
        shelves.append(Shelf(tmp_path / "store", level))
        return shelves[-1]

    yield make
    for shelf in shelves:
        shelf.store.close()


def markers(shelf: Shelf) -> list[str]:
    directory = shelf.path / "unsynced" / boot_id()
    return sorted(os.listdir(directory)) if directory.is_dir() else []


class Calls:
    """Which calls were made, in order, and on what."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        for name in ("fsync", "fdatasync", "rename"):
            monkeypatch.setattr(os, name, self._spy(name, getattr(os, name)))

    def _spy(self, name: str, real: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object, **directories: int) -> None:
            target = os.readlink(f"/proc/self/fd/{arguments[0]}") if isinstance(arguments[0], int) else arguments[1]
            self.made.append(f"{name} {Path(str(target)).name[:8]}")
            real(*arguments, **directories)

        return call


async def test_a_committed_blob_is_synced_before_its_name(
    open_at: Callable[[Level], Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = open_at("commit")
    await shelf.put(b"first")
    calls = Calls(monkeypatch)
    blob = await shelf.put(b"content")
    assert calls.made == ["fdatasync data", f"rename {blob.digest.hex[:8]}", "fsync sha256"]
    assert markers(shelf) == []
    shelf.store.close()


async def test_at_none_a_marker_is_on_the_disk_before_the_name_and_nothing_else_is_synced(
    open_at: Callable[[Level], Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = open_at("none")
    await shelf.put(b"first")
    calls = Calls(monkeypatch)
    blob = await shelf.put(b"content")
    assert calls.made == [f"fsync {boot_id()[:8]}", f"rename {blob.digest.hex[:8]}"]
    assert f"sha256-{blob.digest.hex}" in markers(shelf)
    assert await shelf.store.read(blob) == b"content"
    shelf.store.close()


@pytest.mark.parametrize("level", ["batch", "none"])
async def test_one_sync_serves_the_markers_of_a_job(
    open_at: Callable[[Level], Shelf], monkeypatch: pytest.MonkeyPatch, level: Level
) -> None:
    shelf = open_at(level)
    await shelf.put(b"first")
    contents = [bytes([number]) for number in range(20)]
    calls = Calls(monkeypatch)
    shelf.store.blobs.mark_pending([shelf.describe(content) for content in contents])
    assert len(markers(shelf)) == 21
    for content in contents:
        await shelf.put(content)
    assert [call for call in calls.made if call.startswith("f")] == [f"fsync {boot_id()[:8]}"]
    shelf.store.close()


async def test_a_batch_is_synced_before_its_reference_and_then_has_no_markers(
    open_at: Callable[[Level], Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = open_at("batch")
    large = await shelf.put(shelf.random(2 << 20))
    assert markers(shelf) == []
    blobs = [await shelf.put(bytes([number])) for number in range(5)]
    assert len(markers(shelf)) == 5
    calls = Calls(monkeypatch)
    await shelf.record(StoredImage("registry.test/a:1", large, {}, "2023-11-14T22:13:20Z"))
    assert [call for call in calls.made if "fdatasync" in call] == [
        f"fdatasync {blob.digest.hex[:8]}" for blob in blobs
    ]
    assert calls.made.index("fsync sha256") < next(n for n, call in enumerate(calls.made) if "rename" in call)
    assert markers(shelf) == []
    shelf.store.close()


async def test_what_another_process_brought_for_a_batch_is_synced_with_it_and_marked_once(
    open_at: Callable[[Level], Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf, other = open_at("batch"), open_at("batch")
    data = b"content"
    blob = shelf.describe(data)
    async with shelf.store.session([blob]) as session, session.reserve() as writer:
        calls = Calls(monkeypatch)
        ingest = await other.store.lent_writer(blob).begin(blob)
        assert ingest is not None
        verifier = other.feed(ingest, data)
        ingest.sink.finish()
        await ingest.commit(verifier.proof())
        await writer.adopt(blob)
        assert calls.made == [f"rename {blob.digest.hex[:8]}"]
        assert len(markers(shelf)) == 1
        await writer.record(StoredImage("registry.test/a:1", blob, {}, "2023-11-14T22:13:20Z"))
    assert f"fdatasync {blob.digest.hex[:8]}" in calls.made
    assert markers(shelf) == []


async def test_a_damaged_blob_that_another_process_replaced_is_trusted_again(
    open_at: Callable[[Level], Shelf],
) -> None:
    shelf = open_at("commit")
    blob = await shelf.put(b"content")
    await shelf.store.mark_corrupt(blob.digest)
    async with shelf.store.session([blob]) as session, session.reserve() as writer:
        assert tuple(session.missing) == (blob,)
        await open_at("commit").put(b"content")
        await writer.adopt(blob)
    assert await shelf.store.missing([blob]) == []


async def test_a_blob_that_the_disk_loses_at_the_end_of_a_batch_has_no_name_any_more(
    open_at: Callable[[Level], Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = open_at("batch")
    first, second = await shelf.put(b"first"), await shelf.put(b"second")
    real = os.fdatasync

    def fail(fd: int) -> None:
        if first.digest.hex in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EIO, "injected")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StoreError, match=first.digest.hex):
        shelf.store.blobs.flush()
    assert await shelf.store.missing([first, second]) == [first]
    assert markers(shelf) == [f"sha256-{first.digest.hex}"]
    shelf.store.close()


@pytest.mark.parametrize("level", ["commit", "batch", "none"])
async def test_a_blob_of_another_boot_that_was_not_synced_is_absent_until_it_is_replaced(
    open_at: Callable[[Level], Shelf], level: Level
) -> None:
    shelf = open_at("none")
    blob = await shelf.put(b"content")
    (shelf.path / "unsynced" / boot_id()).rename(shelf.path / "unsynced" / OTHER_BOOT)  # as if the power was cut
    shelf.store.close()
    shelf = open_at(level)
    assert await shelf.store.missing([blob]) == [blob]
    await shelf.put(b"content")
    shelf.store.blobs.flush()
    assert await shelf.store.missing([blob]) == []
    assert not (shelf.path / "unsynced" / OTHER_BOOT).exists()
    assert bool(markers(shelf)) == (level == "none")
    shelf.store.close()


async def test_a_marker_that_another_process_has_cleared_is_made_again(open_at: Callable[[Level], Shelf]) -> None:
    shelf = open_at("none")
    blob = shelf.describe(b"content")
    shelf.store.blobs.mark_pending([blob])
    (shelf.path / "unsynced" / boot_id() / f"sha256-{blob.digest.hex}").unlink()
    await shelf.put(b"content")
    assert markers(shelf) == [f"sha256-{blob.digest.hex}"]
    shelf.store.close()


def test_markers_are_not_left_in_a_directory_that_another_process_made_and_did_not_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_store(tmp_path / "store")) as paths:
        boot = tmp_path / "store" / "unsynced" / "boot"
        boot.mkdir(parents=True)
        unsynced = Unsynced(paths, "boot")
        calls = Calls(monkeypatch)
        unsynced.mark([Digest.of(b"first")])
        assert set(calls.made) == {"fsync store", "fsync unsynced", "fsync boot"}
        calls.made.clear()
        unsynced.mark([Digest.of(b"second")])
        assert calls.made == ["fsync boot"]


def test_there_is_no_other_level(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="durability"):
        Shelf(tmp_path / "store", "some")  # type: ignore[arg-type]


async def test_a_reference_in_a_directory_that_a_killed_process_made_is_as_durable_as_any(
    open_at: Callable[[Level], Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = open_at("commit")
    blob = await shelf.put(b"manifest")
    ref = StoredImage("registry.test/app:1", blob, {}, "2023-11-14T22:13:20Z", False)
    directory = Path(shelf.store.paths.ref_path(ref.name)).parent
    directory.mkdir()
    calls = Calls(monkeypatch)
    await shelf.record(ref)
    assert "fsync refs" in calls.made
    calls.made.clear()
    await shelf.record(ref)
    assert "fsync refs" not in calls.made


async def test_a_marker_can_be_read_by_others_whatever_the_umask(open_at: Callable[[Level], Shelf]) -> None:
    before = os.umask(0o077)
    try:
        shelf = open_at("none")
        await shelf.put(b"content")
    finally:
        os.umask(before)
    (marker,) = markers(shelf)
    assert (shelf.path / "unsynced" / boot_id() / marker).stat().st_mode & 0o777 == 0o644
