"""File systems that do not keep what the store is built on are refused, once, with the reason."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fastoci import _core, locks
from fastoci.directory import Directory
from fastoci.errors import StoreError, StoreFullError
from fastoci.image.layout import OCI_LAYOUT
from fastoci.store import filesystem_probe
from fastoci.store.layout import StoreLayout
from fastoci.store.opening import open_store
from support.store_shelf import Shelf

TMPFS, EXT4 = 0x01021994, 0xEF53


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[StoreLayout]:
    with closing(open_store(tmp_path / "store")) as paths:
        yield paths


def _between(paths: StoreLayout) -> list[Path]:
    """The directories between which blobs move."""
    return [Path(paths.root, "ingest"), Path(paths.root, "blobs", "sha256")]


def test_the_kind_of_a_file_system_is_told(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    kind = _core.file_system(fd)
    os.close(fd)
    assert kind > 0
    assert _core.file_system(fd) == -errno.EBADF


def test_a_good_file_system_is_asked_once_and_nothing_is_left(
    paths: StoreLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem_probe.check(paths)
    assert [os.listdir(directory) for directory in _between(paths)] == [[], []]
    monkeypatch.setattr(filesystem_probe, "_NETWORK", {})
    monkeypatch.setattr(os, "rename", None)  # whoever asks again fails
    filesystem_probe.check(paths)


def test_a_link_in_the_probes_place_is_not_followed(paths: StoreLayout, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    for directory in _between(paths):
        (directory / ".probe").symlink_to(tmp_path / "mine")
    filesystem_probe.check(paths)
    assert (tmp_path / "mine").read_text() == "precious"
    assert [os.listdir(directory) for directory in _between(paths)] == [[], []]


def test_a_store_that_was_copied_to_another_mount_is_asked_again(paths: StoreLayout) -> None:
    filesystem_probe.check(paths)
    probed = Path(paths.root, "leases", ".probed")
    probed.write_text("1 1")
    filesystem_probe.check(paths)
    assert probed.read_text() != "1 1"


def test_a_network_file_system_is_refused_by_name(paths: StoreLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem_probe, "file_system", lambda fd: 0x6969)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"network file system \(NFS\)"):
            filesystem_probe.check(paths)


def test_one_that_grants_a_lock_twice_is_refused(paths: StoreLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastoci.locks.try_lock", lambda fd, *, byte=None: True)
    with pytest.raises(StoreError, match="does not keep locks"):
        filesystem_probe.check(paths)


def test_one_without_locks_is_refused(paths: StoreLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    real = locks.acquire

    def acquire(directory: Directory, name: str, *, wait: bool) -> int | None:
        if name == ".probe":
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        return real(directory, name, wait=wait)

    monkeypatch.setattr(locks, "acquire", acquire)
    with pytest.raises(StoreError, match="No locks available"):
        filesystem_probe.check(paths)


def test_blobs_on_another_mount_than_ingests_are_refused(tmp_path: Path, small_disk: Path) -> None:
    """A rename cannot cross it."""
    blobs = tmp_path / "store" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (small_disk / "sha256").mkdir()
    (tmp_path / "store" / "oci-layout").write_bytes(OCI_LAYOUT)
    os.system(f"mount --bind {small_disk}/sha256 {blobs}")
    try:
        refused = pytest.raises(StoreError, match="cannot hold a store")
        with closing(open_store(tmp_path / "store")) as paths, refused:
            filesystem_probe.check(paths)
    finally:
        os.system(f"umount {blobs}")


def test_a_full_disk_is_no_verdict(paths: StoreLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(StoreFullError):
            filesystem_probe.check(paths)
    filesystem_probe.check(paths)
    assert os.listdir(_between(paths)[0]) == []


async def test_a_refused_store_takes_no_blob_and_no_lease(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem_probe, "file_system", lambda fd: 0x01021997)
    blob = shelf.describe(b"content")
    with pytest.raises(StoreError, match="9p"):
        await shelf.begin(blob)
    with pytest.raises(StoreError, match="9p"):
        async with shelf.store.lease([blob]):
            pass


async def test_reading_asks_nothing(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, open_shelf: Callable[[Path], Shelf]
) -> None:
    blob = await shelf.put(b"content")
    monkeypatch.setattr(filesystem_probe, "file_system", lambda fd: 0x6969)
    Path(shelf.path, "leases", ".probed").unlink()
    assert await open_shelf(shelf.path).store.read(blob) == b"content"
