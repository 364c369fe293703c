"""A directory that cannot be replaced gets its tree inside: mount points, new file systems, parents that are closed.

Covers: unpack/move.py, unpack/staging.py, unpack/target.py.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastoci.errors import RootfsOccupiedError, StoreBusyError, StoreError
from fastoci.image.digest import Digest
from fastoci.unpack import marker
from fastoci.unpack.marker import Contents
from fastoci.unpack.move import move
from fastoci.unpack.rootfs import Rootfs
from fastoci.unpack.staging import Staging
from support import disks
from support.scratch import opened

ONE, OTHER = Contents(Digest.of(b"one"), owners=True), Contents(Digest.of(b"other"), owners=True)


def fill(rootfs: Rootfs, *, text: str = "new", names: tuple[str, ...] = ("etc", "usr")) -> None:
    """Directories with a file each, in a root with a mode and a time of its own."""
    root = Path(f"/proc/self/fd/{rootfs.fd}")
    for name in names:
        (root / name).mkdir()
        (root / name / "file").write_text(text)
        (root / name).chmod(0o555)
    os.fchmod(rootfs.fd, 0o751)
    os.utime(rootfs.fd, (1, 7))


def unpack(target: Path, contents: Contents = ONE, *, text: str = "new", sync: bool = False) -> None:
    rootfs = Rootfs.begin(target, contents)
    fill(rootfs, text=text)
    rootfs.publish(sync=sync)


@pytest.fixture(params=["tmpfs", "bind", "ext4", "lost+found"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An empty directory of one of these kinds, as far as this user can make it."""
    if request.param == "ext4":
        with disks.disk(tmp_path, "ext4", 8 << 20) as disk:
            (tmp_path / "image").unlink()
            yield disk
        return
    directory = tmp_path / "disk"
    directory.mkdir()
    if request.param == "lost+found":
        (directory / "lost+found").mkdir(mode=0o700)
        yield directory
        return
    source = tmp_path / "source"
    source.mkdir()
    options = ("-t", "tmpfs", "none") if request.param == "tmpfs" else ("--bind", str(source))
    with disks.mounted(directory, *options):
        source.rmdir() if request.param == "tmpfs" else None
        yield directory


@pytest.mark.parametrize("sync", [False, True], ids=["", "synced"])
def test_the_tree_is_made_inside_and_found_again(target: Path, sync: bool) -> None:
    before, inode = target.parent.stat().st_mtime_ns, target.stat().st_ino
    kept = set(os.listdir(target))
    unpack(target, sync=sync)
    assert set(os.listdir(target)) == {"etc", "usr"} | kept
    info = target.stat()
    assert (info.st_ino, stat.S_IMODE(info.st_mode), info.st_mtime) == (inode, 0o751, 7)
    assert stat.S_IMODE((target / "usr").stat().st_mode) == 0o555
    assert target.parent.stat().st_mtime_ns == before  # nothing was ever made in it
    assert Rootfs.find(target, ONE)
    with pytest.raises(RootfsOccupiedError, match=str(ONE.manifest)):
        Rootfs.begin(target, OTHER)


def test_a_tree_that_was_not_synced_is_made_anew_inside(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = set(os.listdir(target))
    unpack(target, text="old")
    (target / "more").mkdir()
    monkeypatch.setattr(marker, "boot_id", lambda: "another")
    rootfs = Rootfs.begin(target, ONE)
    assert rootfs.replaces
    fill(rootfs, names=("etc", "var"))
    assert (target / "etc" / "file").read_text() == "old"
    rootfs.publish()
    assert set(os.listdir(target)) == {"etc", "var"} | kept
    assert (target / "etc" / "file").read_text() == "new"
    assert Rootfs.find(target, ONE)


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_what_a_killed_move_left_is_removed_and_other_names_are_not(target: Path, moved: int) -> None:
    rootfs = Rootfs.begin(target, ONE)
    fill(rootfs)
    rootfs._staging.begin_move(["etc", "usr"])
    for name in ["etc", "usr"][:moved]:
        with opened(target) as fd:
            move(name, rootfs.fd, fd)
    for fd in (rootfs.fd, rootfs._staging.lock, rootfs._staging.fd):  # as the kernel does it for a dead process
        os.close(fd)
    rootfs._target.close()
    if rootfs.notes is not None:
        rootfs.notes.close()
    (target / "mine").mkdir()
    with pytest.raises(RootfsOccupiedError):
        Rootfs.find(target, ONE)
    (target / "mine").rmdir()
    assert not Rootfs.find(target, ONE)
    assert set(os.listdir(target)) <= {"lost+found"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_what_is_left_of_a_move_is_removed_by_the_run_that_can(target: Path) -> None:
    """A file system that somebody mounted on a directory of the tree is in the way."""
    rootfs = Rootfs.begin(target, ONE)
    fill(rootfs)
    rootfs._staging.begin_move(["etc", "usr"])
    for name in ("etc", "usr"):
        move(name, rootfs.fd, rootfs._target.fd)
    with disks.mounted(target / "usr", "-t", "tmpfs", "none"):
        rootfs._target.undo_move(rootfs._staging)
        rootfs.discard()
        with pytest.raises(RootfsOccupiedError):
            Rootfs.find(target, ONE)
    assert not Rootfs.find(target, ONE)
    assert set(os.listdir(target)) <= {"lost+found"}


def test_a_move_that_fails_leaves_nothing_of_it(target: Path) -> None:
    rootfs = Rootfs.begin(target, ONE)
    fill(rootfs, names=("etc", "lost+found"))
    (target / "lost+found").mkdir(exist_ok=True)
    (target / "lost+found" / "found").touch()
    with pytest.raises(StoreError):
        rootfs.publish()
    assert os.listdir(target) == ["lost+found"]
    assert os.listdir(target / "lost+found") == ["found"]


def test_a_tree_takes_the_place_of_an_empty_lost_and_found(target: Path) -> None:
    rootfs = Rootfs.begin(target, ONE)
    fill(rootfs, names=("etc", "lost+found"))
    rootfs.publish()
    assert (target / "lost+found" / "file").read_text() == "new"
    assert Rootfs.find(target, ONE)


def test_while_one_process_unpacks_into_it_another_is_refused(target: Path) -> None:
    rootfs = Rootfs.begin(target, ONE)
    for attempt in (Rootfs.find, Rootfs.begin):
        with pytest.raises(StoreBusyError, match="another process unpacks into it"):
            attempt(target, ONE)
    fill(rootfs)
    rootfs.publish()
    assert Rootfs.find(target, ONE)
    assert not list(target.glob(".*"))


def test_what_came_to_the_directory_meanwhile_is_not_mixed_with_the_tree(target: Path) -> None:
    rootfs = Rootfs.begin(target, ONE)
    fill(rootfs)
    (target / "mine").touch()
    with pytest.raises(RootfsOccupiedError, match="not an empty directory"):
        rootfs.publish()
    assert set(os.listdir(target)) - {"lost+found"} == {"mine"}


def test_a_mount_point_in_a_parent_that_is_read_only_gets_its_tree(tmp_path: Path) -> None:
    (tmp_path / "parent" / "disk").mkdir(parents=True)
    target = tmp_path / "parent" / "disk"
    with (
        disks.mounted(tmp_path / "parent", "--bind", str(tmp_path / "parent")),
        disks.mounted(target, "-t", "tmpfs", "none"),
    ):
        disks.mount("-o", "remount,bind,ro", str(tmp_path / "parent"))
        unpack(target)
        assert Rootfs.find(target, ONE)


def test_a_private_directory_is_in_the_directory_itself(target: Path) -> None:
    rootfs = Rootfs.begin(target, ONE)
    (private,) = target.glob(".*")
    assert private.name.endswith(".fastoci")
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert rootfs.area == target
    with opened(target) as fd:
        assert Staging.abandoned(fd, private.name) is None
    rootfs.discard()
    assert set(os.listdir(target)) <= {"lost+found"}
