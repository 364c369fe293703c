"""Additional stores: looked into, never written, left out by name when they cannot be trusted."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci.errors import BlobNotFoundError, StoreError
from fastoci.image.mediatype import OCI_MANIFEST
from fastoci.store.store import Store
from support.store_shelf import Shelf


@pytest.fixture
def base(tmp_path: Path, open_shelf: Callable[[Path], Shelf]) -> Shelf:
    return open_shelf(tmp_path / "base")


def _over(tmp_path: Path, *additional: Path) -> Store:
    return Store.at(tmp_path / "store", additional)


async def test_a_blob_of_an_additional_store_is_there_and_opened_in_place(base: Shelf, tmp_path: Path) -> None:
    blob = await base.put(b"baked in")
    before = sorted(str(path) for path in base.path.rglob("*"))
    store = _over(tmp_path, base.path)
    assert await store.missing([blob]) == []
    assert await store.blobs.begin(blob) is None
    assert await store.read(blob) == b"baked in"
    fd = store.open(blob)
    assert os.fstat(fd).st_ino == base.file(blob).stat().st_ino
    os.close(fd)
    assert list((tmp_path / "store" / "blobs" / "sha256").iterdir()) == []
    assert sorted(str(path) for path in base.path.rglob("*")) == before
    store.close()


async def test_fastoci_json_names_additional_stores(base: Shelf, tmp_path: Path) -> None:
    blob = await base.put(b"baked in")
    _over(tmp_path).close()
    mark = tmp_path / "store" / "fastoci.json"
    mark.write_text(json.dumps({"format": 1, "additional": [str(base.path)]}))
    store = _over(tmp_path)
    assert await store.missing([blob]) == []
    store.close()
    for wrong in ("relative", "/nul\0", "/\ud800"):
        mark.write_text(json.dumps({"format": 1, "additional": [wrong]}))
        with pytest.raises(StoreError, match="absolute"):
            _over(tmp_path)


async def test_a_document_of_an_additional_store_can_be_read_but_is_still_missing(base: Shelf, tmp_path: Path) -> None:
    manifest = await base.put(b"{}", media_type=OCI_MANIFEST)
    store = _over(tmp_path, base.path)
    assert await store.missing([manifest]) == [manifest]
    assert await store.read(manifest) == b"{}"
    store.close()


async def test_another_size_or_a_link_there_counts_as_absent(base: Shelf, tmp_path: Path) -> None:
    short, linked = await base.put(b"cut short"), await base.put(b"linked")
    base.file(short).unlink()
    base.file(short).write_bytes(b"cut")
    (tmp_path / "elsewhere").write_bytes(b"linked")
    base.file(linked).unlink()
    base.file(linked).symlink_to(tmp_path / "elsewhere")
    store = _over(tmp_path, base.path)
    assert await store.missing([short, linked]) == [short, linked]
    with pytest.raises(BlobNotFoundError):
        store.open(linked)
    store.close()


async def test_a_corrupt_blob_is_absent_everywhere_until_it_is_replaced(
    shelf: Shelf, base: Shelf, tmp_path: Path
) -> None:
    blob = await base.put(b"rotten")
    store = Store.at(shelf.path, [base.path])
    await store.mark_corrupt(blob.digest)
    assert await store.missing([blob]) == [blob]
    with pytest.raises(BlobNotFoundError):
        store.open(blob)
    ingest = await store.blobs.begin(blob)
    assert ingest is not None
    await ingest.commit(shelf.feed(ingest, b"rotten").proof())
    assert await store.missing([blob]) == []
    assert shelf.file(blob).read_bytes() == b"rotten"
    store.close()


def _gone(path: Path) -> None:
    path.rename(path.parent / "unmounted")


def _newer(path: Path) -> None:
    (path / "fastoci.json").write_text('{"format": 2}')


def _open_to_all(path: Path) -> None:
    path.chmod(0o777)


def _foreign(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a directory away")
    os.chown(path, 12345, -1)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(_gone, "No such file"), (_newer, "newer"), (_open_to_all, "written by everyone"), (_foreign, "user 12345")],
)
async def test_a_store_that_cannot_be_trusted_is_left_out_by_name(
    base: Shelf, tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    blob = await base.put(b"baked in")
    spoil(base.path)
    store = _over(tmp_path, base.path)
    [error] = store.left_out
    assert str(base.path) in str(error) and reason in str(error)
    assert await store.missing([blob]) == [blob]
    store.close()


async def test_a_store_that_goes_away_later_costs_a_download_and_no_more(base: Shelf, tmp_path: Path) -> None:
    blob = await base.put(b"baked in")
    store = _over(tmp_path, base.path)
    shutil.rmtree(base.path)
    assert await store.missing([blob]) == [blob]
    with pytest.raises(BlobNotFoundError):
        await store.read(blob)
    store.close()
