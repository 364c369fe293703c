"""An image store of containers/storage: what its links lead to, what is left of a removal, and broken records."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastoci.errors import FormatError, StoreError
from fastoci.image.containers_storage import Record, StorageLayer, TarFacts, image_record
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.layer_interfaces import Split
from fastoci.store.layers.image_store import ImageStore
from support.image_stores import records
from support.store_shelf import Shelf

FIRST = StorageLayer("a" * 64, "", f"{'b' * 64}/tree", (), None, Digest.of(b"first"), 5)
SECOND = StorageLayer("c" * 64, FIRST.id, f"{'d' * 64}/tree", (FIRST.link,), size=7)


@pytest.fixture
def store(shelf: Shelf) -> ImageStore:
    found = shelf.store.layers.image_store
    assert isinstance(found, ImageStore)
    return found


def image(name: str) -> Record:
    config = Descriptor("config", Digest.of(name.encode()), 1)
    return image_record(name, config, config, {"manifest": b"{}"}, SECOND.id, "")


def add(store: ImageStore, name: str) -> None:
    fd = store.new_split()
    try:
        os.write(fd, b"split")
        store.add([FIRST, SECOND], {FIRST.id: Split(fd, TarFacts(3))}, image(name), {"manifest": b"{}"})
    finally:
        os.close(fd)


def names(path: Path) -> set[str]:
    return {each.name for each in path.iterdir()}


def test_links_lead_to_layer_directories_relative_for_the_kernel_and_absolute_for_podman(
    shelf: Shelf, store: ImageStore
) -> None:
    add(store, "a")
    overlay = shelf.path / "layers/overlay"
    for layer in (FIRST, SECOND):
        assert os.readlink(overlay / "l" / layer.link) == f"../{layer.shows}"
        assert os.readlink(overlay / layer.id / "diff") == f"{overlay}/{layer.shows}"
        assert (overlay / layer.id / "link").read_text() == layer.link
    assert (overlay / SECOND.id / "lower").read_text() == f"l/{FIRST.link}"
    assert not (overlay / FIRST.id / "lower").exists()
    assert (shelf.path / f"layers/overlay-layers/{FIRST.id}.tar-split.gz").read_bytes() == b"split"
    assert store.known_layers() == {FIRST.id}


def test_who_has_read_before_sees_by_the_lock_that_records_changed(shelf: Shelf, store: ImageStore) -> None:
    locks = [shelf.path / "layers" / name for name in ("overlay-layers/layers.lock", "overlay-images/images.lock")]
    add(store, "a")
    before = [lock.read_bytes() for lock in locks]
    add(store, "b")
    for old, lock in zip(before, locks, strict=True):
        assert len(old) == 64
        assert lock.read_bytes() != old


def test_a_layer_that_another_image_has_stays_until_that_goes_too(shelf: Shelf, store: ImageStore) -> None:
    add(store, "a")
    add(store, "b")
    assert store.withdraw("a")
    assert [each["names"] for each in records(shelf.path, "images")] == [["b"]]
    assert names(shelf.path / "layers/overlay") == {FIRST.id, SECOND.id, "l"}
    assert store.withdraw(str(image("b")["id"]))
    assert names(shelf.path / "layers/overlay") == {"l"}
    assert names(shelf.path / "layers/overlay/l") == set()
    assert names(shelf.path / "layers/overlay-layers") == {".lock", "layers.json", "layers.lock"}
    assert names(shelf.path / "layers/overlay-images") == {"images.json", "images.lock"}
    assert not store.withdraw("b")


def test_what_a_killed_process_left_goes_with_the_next_removal(shelf: Shelf, store: ImageStore) -> None:
    add(store, "a")
    left = shelf.path / "layers/overlay" / ("e" * 64)
    left.mkdir(mode=0o700)
    (left / "diff").symlink_to("nowhere")
    (shelf.path / "layers/overlay-layers/.new").write_text("half")
    add(store, "b")
    store.withdraw("a")
    assert not left.exists()


def test_all_is_for_its_owner_alone(shelf: Shelf, store: ImageStore) -> None:
    add(store, "a")
    for name in ("overlay-layers", "overlay-images", "overlay", "overlay/l", f"overlay/{FIRST.id}"):
        assert (shelf.path / "layers" / name).stat().st_mode & 0o777 == 0o700
    for name in ("overlay-layers/layers.json", "overlay-images/images.json", "overlay-layers/layers.lock"):
        assert (shelf.path / "layers" / name).stat().st_mode & 0o777 == 0o600


def test_records_that_are_none_are_left_as_they_are(shelf: Shelf, store: ImageStore) -> None:
    add(store, "a")
    broken = shelf.path / "layers/overlay-images/images.json"
    broken.write_text("{")
    with pytest.raises(FormatError, match=r"images\.json"):
        add(store, "b")
    assert broken.read_text() == "{"


def test_a_directory_of_another_user_is_refused(shelf: Shelf, store: ImageStore) -> None:
    (shelf.path / "layers").mkdir(mode=0o755)
    (shelf.path / "layers/overlay-layers").mkdir(mode=0o777)
    (shelf.path / "layers/overlay-layers").chmod(0o777)
    with pytest.raises(StoreError, match="can be written by everyone"):
        add(store, "a")
