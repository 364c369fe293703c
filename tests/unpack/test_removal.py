"""Removal of directories: linear on real disks, whole without a step beside the tree, and never across a mount."""

from __future__ import annotations

import errno
import io
import os
import resource
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from disks import disk, mount
from places import scratch

from fastoci import _core

FILES, DIRECTORIES = 20_000, 15_000


def tar(*names: str) -> bytes:
    """A layer of empty files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return made.getvalue()


def apply(root: Path, layer: bytes) -> tuple[int, int]:
    """Apply a layer onto what is there; the code and its value."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        owners = os.geteuid() == 0
        extractor = _core.Extractor(fd, owners=owners, base=True, max_entries=1000, max_bytes=1 << 20)
        code = extractor.feed(layer) or extractor.finish()
        extractor.close()
        return code, extractor.value
    finally:
        os.close(fd)


def remove(parent: Path, name: str) -> int:
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return _core.remove_tree(fd, name.encode())
    finally:
        os.close(fd)


def fill(top: Path) -> None:
    """A wide directory: files, and subdirectories that are not empty, in an order that mixes them."""
    top.mkdir()
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(FILES):
        os.close(os.open(f"file{number}", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    for number in range(DIRECTORIES):
        os.mkdir(f"directory{number}", dir_fd=fd)
        os.mkdir(f"directory{number}/x", dir_fd=fd)
    os.close(fd)


@contextmanager
def bound(root: Path, below: str) -> Iterator[Path]:
    """A directory with a file ``kept``, mounted a second time at ``root/below``."""
    source, target = root.parent / "elsewhere", root / below
    source.mkdir()
    (source / "kept").write_text("kept")
    target.mkdir(parents=True)
    mount("--bind", str(source), str(target))
    try:
        yield source
    finally:
        subprocess.run(["umount", "--lazy", target], check=True)


def cpu(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.attack
def test_a_whiteout_of_a_wide_directory_costs_linear_time(kind: str) -> None:
    """About as much as rm, which reads each directory once; 5 and 2 times as much when it was quadratic."""
    options = ["-N", "100000"] if kind == "ext4" else []
    with scratch("removal") as place, disk(place, kind, 1 << 30, *options) as root:
        fill(root / "wide")
        before = cpu(resource.RUSAGE_CHILDREN)
        subprocess.run(["rm", "-rf", root / "wide"], check=True)
        usual = cpu(resource.RUSAGE_CHILDREN) - before
        fill(root / "wide")
        before = cpu(resource.RUSAGE_SELF)
        assert apply(root, tar(".wh.wide"))[0] == 0
        ours = cpu(resource.RUSAGE_SELF) - before
        assert not (root / "wide").exists()
    assert ours < 1.6 * usual


@pytest.mark.attack
def test_a_mount_below_what_is_removed_stays_and_the_rest_goes() -> None:
    with scratch("removal") as place:
        root = place / "root"
        (root / "tree/a").mkdir(parents=True)
        (root / "tree/z").write_text("z")
        with bound(root, "tree/m/n") as source:
            assert remove(root, "tree") == -errno.EBUSY
            assert remove(root / "tree/m", "n") == -errno.EBUSY
            assert os.listdir(root / "tree") == ["m"]
            assert os.listdir(source) == ["kept"]
        assert remove(root, "tree") == 0
        assert os.listdir(root) == []


def test_a_removal_ends_at_its_deadline_and_when_it_is_stopped() -> None:
    with scratch("removal") as place:
        (place / "tree/a/b").mkdir(parents=True)
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        stop = _core.Stop()
        assert not stop.is_set()
        stop.set()
        assert stop.is_set()
        assert _core.remove_tree(fd, b"tree", stop=stop) == -errno.ECANCELED
        assert _core.remove_tree(fd, b"tree", within=0) == -errno.ETIMEDOUT
        assert (place / "tree/a/b").is_dir()
        assert _core.remove_tree(fd, b"tree", within=60, stop=_core.Stop()) == 0
        assert _core.remove_tree(fd, b"tree") == 0
        assert os.listdir(place) == []
        os.close(fd)
        assert _core.remove_tree(-1, b"tree") == -errno.EBADF
