"""A full disk: typed errors with numbers, what was finished stays, and it goes on when there is room."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from fastoci.errors import StoreFullError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.stored_image import StoredImage
from support.store_shelf import Shelf


def _fill(disk: Path) -> None:
    """Leave less than 64 KiB, also after delayed allocations have given back what they reserved too much."""
    fd = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
    try:
        while os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize >= 65_536:
            with suppress(OSError):
                while True:
                    os.write(fd, bytes(4096))
            with suppress(OSError):
                os.fsync(fd)
    finally:
        os.close(fd)


async def test_a_full_disk_stops_a_blob_and_room_lets_it_go_on(
    small_disk: Path, open_shelf: Callable[[Path], Shelf]
) -> None:
    shelf = open_shelf(small_disk / "store")
    small = await shelf.put(shelf.random(100_000))
    filler = small_disk / "filler"
    filler.write_bytes(bytes(8 << 20))
    data = shelf.random(9 << 20, 1)
    ingest = await shelf.store.blobs.begin(shelf.describe(data))
    assert ingest is not None
    verifier = shelf.feed(ingest, data, until=1 << 20)
    ingest.checkpoint(1 << 20, verifier.state())
    with pytest.raises(StoreFullError) as caught:
        shelf.feed(ingest, data, verifier=verifier)
    assert caught.value.path == str(shelf.ingest(ingest.blob) / "data")
    assert "No space left on device" in str(caught.value)
    assert "bytes wanted" in str(caught.value)
    await ingest.abort()
    assert await shelf.store.missing([small, ingest.blob]) == [ingest.blob]
    filler.unlink()
    again = await shelf.store.blobs.begin(ingest.blob)
    assert again is not None
    assert 1 << 20 <= again.offset < len(data)
    await again.commit(shelf.feed(again, data).proof())
    assert await shelf.store.read(ingest.blob) == data


async def test_a_disk_without_inodes_stops_a_blob_and_leaves_nothing_half_made(
    small_disk: Path, open_shelf: Callable[[Path], Shelf]
) -> None:
    shelf = open_shelf(small_disk / "store")
    fillers = []
    with pytest.raises(OSError, match="No space"):
        for number in range(1000):
            (small_disk / f"filler-{number}").touch()
            fillers.append(small_disk / f"filler-{number}")
    descriptors = sorted(os.listdir("/proc/self/fd"))
    for free in range(3):  # the directory; its lock; the data
        for filler in fillers[:free]:
            filler.unlink(missing_ok=True)
        with pytest.raises(StoreFullError):
            await shelf.store.blobs.begin(shelf.describe(b"content"))
        with pytest.raises(StoreFullError):
            shelf.store.refs.set(StoredImage("example.com/app:1", shelf.describe(b"content"), {}, ""))
        assert sorted(os.listdir("/proc/self/fd")) == descriptors
        assert shelf.store.refs.list() == ((), ())
    for filler in fillers:
        filler.unlink(missing_ok=True)
    blob = await shelf.put(b"content")
    assert await shelf.store.missing([blob]) == []
    shelf.store.refs.set(StoredImage("example.com/app:1", blob, {}, ""))
    assert os.listdir(small_disk / "store" / "ingest") == []


async def test_a_full_disk_leaves_the_old_index(small_disk: Path, open_shelf: Callable[[Path], Shelf]) -> None:
    shelf = open_shelf(small_disk / "store")
    top = Descriptor("a/b", Digest.of(b"content"), 7, annotations={"note": "x" * 500_000})
    shelf.store.refs.set(StoredImage("example.com/app:1", top, {}, ""))
    before = (shelf.path / "index.json").read_bytes()
    _fill(small_disk)
    with pytest.raises(StoreFullError) as caught:
        await shelf.store.update_index()
    assert caught.value.path.startswith(str(shelf.path))
    assert (shelf.path / "index.json").read_bytes() == before
    (small_disk / "filler").unlink()
    await shelf.store.update_index()
    assert (shelf.path / "index.json").read_bytes() != before
