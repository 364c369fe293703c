"""What the store says it has, and reading it.

Covers: interfaces.py, store/blobs.py.
"""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci.errors import BlobNotFoundError, StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import BlobStore
from support.store_shelf import Shelf


def test_the_store_is_a_blob_store(shelf: Shelf) -> None:
    store: BlobStore = shelf.store  # the type checker's test
    assert store is shelf.store


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("size", [0, 1, 65_537, (3 << 20) + 7])
async def test_a_blob_comes_out_as_it_went_in(shelf: Shelf, size: int, algorithm: str) -> None:
    data = shelf.random(size)
    blob = await shelf.put(data, algorithm)
    assert await shelf.store.missing([blob]) == []
    assert await shelf.store.read(blob) == data
    assert stat.S_IMODE(shelf.file(blob).stat().st_mode) == 0o444
    fd = shelf.store.open(blob)
    try:
        assert os.pread(fd, size + 1, 0) == data
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
    assert os.listdir(shelf.path / "ingest") == []


async def test_missing_answers_each_digest_once_in_the_order_asked(shelf: Shelf) -> None:
    there = await shelf.put(b"there")
    absent = [shelf.describe(bytes([number])) for number in range(5)]
    asked = [absent[3], there, absent[1], absent[3], there, absent[0]]
    assert await shelf.store.missing(asked) == [absent[3], absent[1], absent[0]]


def _plant_symlink(path: Path) -> None:
    path.parent.joinpath("elsewhere").write_bytes(b"content")
    path.symlink_to("elsewhere")


PLANTS: dict[str, Callable[[Path], object]] = {
    "a link to the right bytes": _plant_symlink,
    "a dangling link": lambda path: path.symlink_to("/nonexistent"),
    "a FIFO": os.mkfifo,
    "a directory": Path.mkdir,
    "a shorter file": lambda path: path.write_bytes(b"conten"),
    "a longer file": lambda path: path.write_bytes(b"contents"),
    "an empty file": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
async def test_what_is_not_the_blob_counts_as_absent(shelf: Shelf, plant: Callable[[Path], object]) -> None:
    blob = shelf.describe(b"content")
    plant(shelf.file(blob))
    assert await shelf.store.missing([blob]) == [blob]
    with pytest.raises(BlobNotFoundError):
        shelf.store.open(blob)
    with pytest.raises(BlobNotFoundError):
        await shelf.store.read(blob)


@pytest.mark.parametrize("plant", [p for name, p in PLANTS.items() if name != "a directory"])
async def test_what_is_not_the_blob_is_replaced(shelf: Shelf, plant: Callable[[Path], object]) -> None:
    blob = shelf.describe(b"content")
    plant(shelf.file(blob))
    assert await shelf.put(b"content") == blob
    assert shelf.file(blob).lstat().st_mode == stat.S_IFREG | 0o444
    assert await shelf.store.read(blob) == b"content"


async def test_a_directory_in_a_blobs_place_is_named_before_anything_is_fetched(shelf: Shelf) -> None:
    blob = shelf.describe(b"content")
    shelf.file(blob).mkdir()
    with pytest.raises(StoreError, match="is a directory") as caught:
        await shelf.store.blobs.begin(blob)
    assert caught.value.path == str(shelf.file(blob))
    assert os.listdir(shelf.path / "ingest") == []


async def test_a_blob_of_another_boot_that_was_not_synced_is_absent_until_replaced(
    shelf: Shelf, open_shelf: Callable[[Path], Shelf]
) -> None:
    blob = await shelf.put(b"content")
    markers = shelf.path / "unsynced" / "11111111-2222-4333-8444-555555555555"
    markers.mkdir(parents=True)
    (markers / f"sha256-{blob.digest.hex}").touch()
    again = open_shelf(shelf.path)
    assert await again.store.missing([blob]) == [blob]
    with pytest.raises(BlobNotFoundError, match="not synced"):
        again.store.open(blob)
    await again.put(b"content")
    assert await again.store.missing([blob]) == []
    assert not markers.exists()


async def test_a_blob_of_this_boot_that_was_not_synced_is_there(
    shelf: Shelf, open_shelf: Callable[[Path], Shelf]
) -> None:
    blob = await shelf.put(b"content")
    markers = shelf.path / "unsynced" / Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    markers.mkdir(parents=True)
    (markers / f"sha256-{blob.digest.hex}").touch()
    assert await open_shelf(shelf.path).store.missing([blob]) == []


async def test_markers_that_another_process_cleared_count_no_more(
    shelf: Shelf, open_shelf: Callable[[Path], Shelf]
) -> None:
    blob = await shelf.put(b"content")
    marker = shelf.path / "unsynced" / "another" / f"sha256-{blob.digest.hex}"
    marker.parent.mkdir(parents=True)
    marker.touch()
    again = open_shelf(shelf.path)
    assert not again.store.holds(blob)
    marker.unlink()
    assert again.store.holds(blob)


async def test_a_read_only_store_reads_and_refuses_to_begin(
    shelf: Shelf, open_shelf: Callable[[Path], Shelf], read_only: Callable[[Path], Path]
) -> None:
    blob = await shelf.put(b"content")
    sealed = open_shelf(read_only(shelf.path))
    assert await sealed.store.read(blob) == b"content"
    assert await sealed.store.blobs.begin(blob) is None
    other = shelf.describe(b"other")
    with pytest.raises(StoreError, match="Read-only file system") as caught:
        await sealed.store.blobs.begin(other)
    assert caught.value.path == str(sealed.ingest(other))


async def test_closing_twice_is_fine(shelf: Shelf) -> None:
    await shelf.put(b"content")
    shelf.store.close()
    shelf.store.close()


async def test_a_descriptor_with_a_lie_about_the_size_leaves_the_right_blob(shelf: Shelf) -> None:
    blob = await shelf.put(b"content")
    lie = Descriptor(blob.media_type, blob.digest, 3)
    ingest = await shelf.store.blobs.begin(lie)
    assert ingest is not None
    await ingest.abort(discard=True)
    assert await shelf.store.read(blob) == b"content"


async def test_a_blob_that_comes_and_goes_is_there_or_absent_and_nothing_else(shelf: Shelf) -> None:
    """Somebody finds it damaged and fetches it again, over and over."""
    blob = await shelf.put(b"content")
    file, aside, over = shelf.file(blob), shelf.path / "aside", threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            file.rename(aside)
            aside.rename(file)

    moving = threading.Thread(target=come_and_go)
    moving.start()
    try:
        found = [0, 0]
        while min(found) < 500:
            try:
                os.close(shelf.store.open(blob))
                found[0] += 1
            except BlobNotFoundError:
                found[1] += 1
    finally:
        over.set()
        moving.join()
