"""A rootfs has its name only when it is whole, and what a killed process left is removed."""

from __future__ import annotations

import fcntl
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastoci.errors import StoreError
from fastoci.unpack.rootfs import Rootfs, remove_tree


def test_a_published_tree_has_its_name_and_nothing_else_is_left(tmp_path: Path) -> None:
    rootfs = Rootfs.begin(tmp_path / "root")
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=rootfs.fd))
    (private,) = tmp_path.iterdir()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    rootfs.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
    assert stat.S_IMODE((tmp_path / "root").stat().st_mode) == 0o755
    assert os.listdir(tmp_path / "root") == ["file"]


def test_a_discarded_tree_leaves_nothing(tmp_path: Path) -> None:
    rootfs = Rootfs.begin(tmp_path / "parent" / "root")
    os.mkdir("sub", dir_fd=rootfs.fd)
    rootfs.discard()
    rootfs.discard()
    assert list((tmp_path / "parent").iterdir()) == []


def test_a_name_that_is_taken_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    rootfs = Rootfs.begin(tmp_path / "root")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "mine").write_text("")
    with pytest.raises(StoreError, match="not an empty directory"):
        rootfs.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
    assert os.listdir(tmp_path / "root") == ["mine"]


@pytest.mark.parametrize("kind", ["file", "symlink", "full"])
def test_a_target_that_is_not_an_empty_directory_is_refused(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "root"
    if kind == "file":
        target.write_text("")
    elif kind == "symlink":
        (tmp_path / "elsewhere").mkdir()
        target.symlink_to("elsewhere")
    else:
        target.mkdir()
        (target / "mine").write_text("")
    with pytest.raises(StoreError, match="not an empty directory"):
        Rootfs.begin(target)


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_makes_is_not(tmp_path: Path) -> None:
    dead = tmp_path / ".root.0123.fastoci"
    (dead / "rootfs" / "deep").mkdir(parents=True)
    alive = tmp_path / ".root.4567.fastoci"
    alive.mkdir()
    other = tmp_path / ".root2.89ab.fastoci"
    other.mkdir()
    lock = os.open(alive, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        Rootfs.begin(tmp_path / "root").publish()
    finally:
        os.close(lock)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".root.4567.fastoci", ".root2.89ab.fastoci", "root"]


def test_unpacks_that_begin_at_once_do_not_take_each_other_for_dead(tmp_path: Path) -> None:
    def begin(_: int) -> list[str]:
        rootfs = Rootfs.begin(tmp_path / "root")
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=rootfs.fd))
        found = os.listdir(rootfs.fd)
        rootfs.discard()
        return found

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(begin, range(400))) == [["file"]] * 400
    assert list(tmp_path.iterdir()) == []


def test_a_tree_deeper_than_any_path_is_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("")
    top = tmp_path / "top"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    os.symlink(outside, "link", dir_fd=fd)
    for _ in range(3000):
        os.mkdir("d" * 100, 0o500 if os.geteuid() == 0 else 0o700, dir_fd=fd)
        deeper = os.open("d" * 100, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.symlink(outside, "link", dir_fd=fd)
    os.close(fd)
    remove_tree(top)
    assert not top.exists()
    assert (outside / "keep").exists()
