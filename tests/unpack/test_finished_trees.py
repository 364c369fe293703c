"""A finished tree says which image it is: it is found again, made anew, or refused, and nothing else passes for one.

Covers: boot.py, unpack/marker.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

import fastoci
from fastoci import _extract
from fastoci.errors import RootfsOccupiedError, StoreError
from fastoci.image.digest import Digest
from fastoci.testing.layers import Entry, directory, tar
from fastoci.unpack import marker
from fastoci.unpack.marker import Contents
from fastoci.unpack.rootfs import Rootfs
from support import disks
from support.attacker import Attacker, scene
from support.scratch import opened

ONE, OTHER = Contents(Digest.of(b"one"), owners=True), Contents(Digest.of(b"other"), owners=True)
NEXT_BOOT = "11111111-2222-4333-8444-555555555555"
ROOT_USER = os.geteuid() == 0


def unpack(target: Path, contents: Contents | None = ONE, *, text: str = "new", sync: bool = False) -> None:
    """A tree of one directory with one file."""
    rootfs = Rootfs.begin(target, contents)
    inner = Path(f"/proc/self/fd/{rootfs.fd}/etc")
    inner.mkdir()
    (inner / "file").write_text(text)
    rootfs.publish(sync=sync)


def attribute(path: Path) -> tuple[str, bytes]:
    """The marker as it is on disk."""
    (name,) = [name for name in os.listxattr(path) if "fastoci" in name]
    return name, os.getxattr(path, name)


def set_marker(path: Path, name: str, **changed: object) -> None:
    """Give a directory a marker that is right but for what is changed."""
    unpack(path.parent / "model")
    fields = json.loads(attribute(path.parent / "model")[1])
    shutil.rmtree(path.parent / "model")
    with opened(path) as fd:
        born = _extract.birth_time_ns(fd)
        os.setxattr(fd, name, json.dumps(fields | {"inode": os.fstat(fd).st_ino, "born_ns": born} | changed).encode())


def test_a_finished_tree_is_found_and_an_absent_or_empty_one_is_not(tmp_path: Path) -> None:
    target = tmp_path / "parent" / "root"
    assert not Rootfs.find(target, ONE)
    assert list(tmp_path.iterdir()) == []
    unpack(target)
    assert Rootfs.find(target, ONE)
    assert os.listdir(target.parent) == ["root"]
    assert os.listdir(target) == ["etc"]
    shutil.rmtree(target / "etc")
    assert not Rootfs.find(target, ONE)
    unpack(target)
    assert Rootfs.find(target, ONE)


def test_a_tree_goes_on_being_one_where_it_is_moved_to(tmp_path: Path) -> None:
    unpack(tmp_path / "root")
    (tmp_path / "root").rename(tmp_path / "moved")
    assert Rootfs.find(tmp_path / "moved", ONE)


@pytest.mark.parametrize("other", [OTHER, Contents(ONE.manifest, owners=False)], ids=["image", "owners"])
def test_a_tree_of_something_else_is_refused_by_its_name(tmp_path: Path, other: Contents) -> None:
    unpack(tmp_path / "root")
    for attempt in (Rootfs.find, Rootfs.begin):
        with pytest.raises(RootfsOccupiedError, match="remove it or choose another") as caught:
            attempt(tmp_path / "root", other)
        assert caught.value.held == str(ONE.manifest)
        assert str(ONE) in str(caught.value)
        assert str(other) in str(caught.value)
        assert caught.value.exit_code == 8
    assert (tmp_path / "root" / "etc" / "file").read_text() == "new"


def test_a_tree_that_was_not_synced_is_made_anew_in_another_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpack(tmp_path / "root", text="old")
    monkeypatch.setattr(marker, "boot_id", lambda: NEXT_BOOT)
    assert not Rootfs.find(tmp_path / "root", ONE)
    with pytest.raises(RootfsOccupiedError, match=str(ONE.manifest)):
        Rootfs.begin(tmp_path / "root", OTHER)
    rootfs = Rootfs.begin(tmp_path / "root", ONE)
    assert rootfs.replaces
    rootfs.discard()
    assert (tmp_path / "root" / "etc" / "file").read_text() == "old"
    unpack(tmp_path / "root")
    assert (tmp_path / "root" / "etc" / "file").read_text() == "new"
    assert Rootfs.find(tmp_path / "root", ONE)
    assert os.listdir(tmp_path) == ["root"]


def test_a_tree_that_was_synced_is_believed_in_another_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpack(tmp_path / "root", sync=True)
    monkeypatch.setattr(marker, "boot_id", lambda: NEXT_BOOT)
    assert Rootfs.find(tmp_path / "root", ONE)


def test_what_another_process_finished_meanwhile_is_kept(tmp_path: Path) -> None:
    slow = Rootfs.begin(tmp_path / "root", ONE)
    unpack(tmp_path / "root")
    inode = (tmp_path / "root").stat().st_ino
    slow.publish()
    assert (tmp_path / "root").stat().st_ino == inode
    assert os.listdir(tmp_path) == ["root"]


def test_a_copy_is_not_a_finished_tree(tmp_path: Path) -> None:
    unpack(tmp_path / "root")
    shutil.copytree(tmp_path / "root", tmp_path / "copy")
    os.setxattr(tmp_path / "copy", *attribute(tmp_path / "root"))
    with pytest.raises(RootfsOccupiedError, match="not an empty directory"):
        Rootfs.find(tmp_path / "copy", ONE)


def test_a_tree_that_layers_are_applied_to_is_not_finished(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(b"".join(tar([directory("more")])))
    unpack(tmp_path / "root")
    asyncio.run(fastoci.apply(tmp_path / "root", [tmp_path / "layer"]))
    with pytest.raises(RootfsOccupiedError, match="not an empty directory"):
        Rootfs.find(tmp_path / "root", ONE)


@pytest.mark.attack
@pytest.mark.parametrize("kind", ["user", "trusted"])
def test_a_layer_cannot_say_that_a_tree_is_finished(tmp_path: Path, kind: str) -> None:
    names = (f"{kind}.fastoci.rootfs", "user.mine")
    entries = [
        Entry(path, "directory", mode=0o755, xattrs=tuple((name, b"{}") for name in names)) for path in ("./", "sub")
    ]
    (tmp_path / "layer").write_bytes(b"".join(tar(entries)))
    asyncio.run(fastoci.apply(tmp_path / "root", [tmp_path / "layer"]))
    for path in (tmp_path / "root", tmp_path / "root" / "sub"):
        assert [name for name in os.listxattr(path) if name in names] == ["user.mine"]


@pytest.mark.attack
@pytest.mark.skipif(not ROOT_USER, reason="needs root to give files away")
@pytest.mark.parametrize("change", ["owner", "others write", "inode", "broken", "deep"])
def test_what_another_user_could_have_set_counts_for_nothing(tmp_path: Path, change: str) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    os.chown(root / "etc", 65534, 65534)
    set_marker(root, "user.fastoci.rootfs")
    with opened(root) as fd:
        assert marker.read(fd) is not None
        if change == "owner":
            os.chown(root, 65534, 65534)
        elif change == "others write":
            root.chmod(0o777)
        elif change == "inode":
            set_marker(root, "user.fastoci.rootfs", inode=1)
        else:
            os.setxattr(root, "user.fastoci.rootfs", b"[" * 3000 if change == "deep" else b'{"manifest": 7}')
        assert marker.read(fd) is None


@pytest.mark.skipif(not ROOT_USER, reason="needs root to give files away")
def test_on_a_volume_of_roots_that_all_may_write_to_a_tree_of_ones_own_is_found(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    root.chmod(0o777)
    set_marker(root, "user.fastoci.rootfs")
    with opened(root) as fd:
        assert marker.read(fd) is not None


def test_a_file_system_without_attributes_gets_the_tree_and_the_second_run_is_refused(tmp_path: Path) -> None:
    with disks.mounted(tmp_path, "-t", "ramfs", "none"):
        unpack(tmp_path / "root")
        assert (tmp_path / "root" / "etc" / "file").read_text() == "new"
        with pytest.raises(RootfsOccupiedError, match="not an empty directory"):
            Rootfs.find(tmp_path / "root", ONE)


@pytest.mark.skipif(ROOT_USER, reason="root may write whatever the mode")
@pytest.mark.parametrize("mode", [0o555, 0o755])
def test_a_killed_publish_has_left_a_mode_that_the_next_run_sets(tmp_path: Path, mode: int) -> None:
    rootfs = Rootfs.begin(tmp_path / "root", ONE)
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=rootfs.fd))
    os.fchmod(rootfs.fd, mode)
    rootfs.publish()
    (tmp_path / "root").chmod(mode | 0o200)
    assert Rootfs.find(tmp_path / "root", ONE)
    assert (tmp_path / "root").stat().st_mode & 0o777 == mode


@pytest.mark.attack
@pytest.mark.parametrize("is_taken", [False, True])
def test_what_takes_the_place_of_an_old_tree_meanwhile_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_taken: bool
) -> None:
    monkeypatch.setattr(marker, "boot_id", lambda: str(uuid.uuid4()))
    root = tmp_path / "root"
    unpack(root)
    rootfs = Rootfs.begin(root, ONE)
    rootfs._target.look()
    root.rename(tmp_path / "old")
    (root / "mine").mkdir(parents=True)
    if is_taken:  # after it was taken away, and before it is put back
        rename = os.rename

        def rename_and_take(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
            rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            monkeypatch.setattr(os, "rename", rename)
            (root / "theirs").mkdir(parents=True)

        monkeypatch.setattr(os, "rename", rename_and_take)
    with pytest.raises(FileExistsError):
        rootfs._set_aside()
    rootfs.discard()
    kept = [path for path in tmp_path.glob("root*") if (path / "mine").is_dir()]
    assert len(kept) == 1
    assert (kept[0] == root) is not is_taken


@pytest.mark.attack
@pytest.mark.parametrize("kind", ["sticky", "theirs"])
def test_another_user_who_acts_while_a_tree_is_replaced_leads_nothing_elsewhere(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(marker, "boot_id", lambda: str(uuid.uuid4()))
    replaced = 0

    def attempt(target: Path) -> None:
        nonlocal replaced
        with suppress(StoreError):
            Rootfs.find(target, ONE)
            rootfs = Rootfs.begin(target, ONE)
            replaced += rootfs.replaces
            rootfs.publish()

    with scene(kind) as at:

        def prepare() -> None:
            with suppress(StoreError):
                unpack(at.target)

        assert Attacker(at).between(attempt, prepare=prepare) > 100
    assert replaced > 50
