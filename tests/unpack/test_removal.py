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

from fastoci import _extract
from support.disks import disk, mount
from support.scratch import scratch

FILES, DIRECTORIES = 20_000, 15_000


def tar(*names: str) -> bytes:
    """A layer of empty files; directories end with "/", a link has " -> " and a hard link " = " before its target."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name in names:
            name, arrow, target = name.partition(" -> ") if " -> " in name else name.partition(" = ")
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.type = {" -> ": tarfile.SYMTYPE, " = ": tarfile.LNKTYPE}.get(arrow, tarfile.REGTYPE)
            entry.type = tarfile.DIRTYPE if name.endswith("/") else entry.type
            entry.linkname, entry.mode = target, 0o755
            archive.addfile(entry)
    return made.getvalue()


def apply(root: Path, layer: bytes) -> tuple[int, int]:
    """Apply a layer onto what is there; the code and its value."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        owners = os.geteuid() == 0
        limits = {"max_entries": 1000, "max_bytes": 1 << 20, "max_directories": 1000}
        extractor = _extract.Extractor(fd, owners=owners, privileged=owners, base=True, **limits)
        code = extractor.feed(layer) or extractor.finish()
        extractor.close()
        return code, extractor.value
    finally:
        os.close(fd)


def remove(parent: Path, name: str) -> int:
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return _extract.remove_tree(fd, name.encode())
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
    source.chmod(0o711)
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


@pytest.mark.parametrize(
    "layer",
    [
        ["b/.wh.m"],
        [".wh.b"],
        [".wh..wh..opq"],
        ["b/.wh..wh..opq"],
        ["b/m/.wh.kept"],
        ["b/m/.wh..wh..opq"],
        ["b/m/new"],
        ["b/m/new", "b/.wh..wh..opq"],
        ["b/m"],
        ["b/m/"],
        ["b"],
        ["way -> b/m", "way/new"],
        ["link = b/m/kept"],
        ["b/f"],
        ["link = b/f"],
        ["b/.wh.f"],
    ],
    ids=str,
)
@pytest.mark.attack
def test_a_layer_that_meets_a_mount_is_refused_and_the_mount_stays(layer: list[str]) -> None:
    with scratch("removal") as place:
        root = place / "root"
        with bound(root, "b/m") as source:
            (root / "b/f").touch()
            mount("--bind", str(source / "kept"), str(root / "b/f"))
            try:
                code, _ = apply(root, tar(*layer))
                assert _extract.TAR_CODES[code][0] == "unsafe", _extract.TAR_CODES[code]
                assert "mount point" in _extract.TAR_CODES[code][1]
                assert (root / "b/f").read_text() == (root / "b/m/kept").read_text() == "kept"
                assert os.listdir(source) == ["kept"]
                assert source.stat().st_mode & 0o777 == 0o711
            finally:
                subprocess.run(["umount", "--lazy", root / "b/f"], check=True)


@pytest.mark.attack
def test_a_mount_that_no_entry_meets_is_left_alone() -> None:
    with scratch("removal") as place:
        root = place / "root"
        with bound(root, "b/m") as source:
            (root / "b/lower").touch()
            assert apply(root, tar("b/", "b/new", "b/.wh.lower"))[0] == 0
            assert sorted(os.listdir(root / "b")) == ["m", "new"]
            assert os.listdir(root / "b/m") == os.listdir(source) == ["kept"]


def test_a_removal_ends_at_its_deadline_and_when_it_is_stopped() -> None:
    with scratch("removal") as place:
        (place / "tree/a/b").mkdir(parents=True)
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        stop = _extract.Stop()
        assert not stop.is_set()
        stop.set()
        assert stop.is_set()
        assert _extract.remove_tree(fd, b"tree", stop=stop) == -errno.ECANCELED
        assert _extract.remove_tree(fd, b"tree", within=0) == -errno.ETIMEDOUT
        assert (place / "tree/a/b").is_dir()
        assert _extract.remove_tree(fd, b"tree", within=60, stop=_extract.Stop()) == 0
        assert _extract.remove_tree(fd, b"tree") == 0
        assert os.listdir(place) == []
        os.close(fd)
        assert _extract.remove_tree(-1, b"tree") == -errno.EBADF


def test_a_tree_is_removed_however_deep_and_whatever_its_modes(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for number in range(1000):
        name = "top" if not number else "d" * 200
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=inner))
        os.close(fd)
        fd = inner
    os.mkdir("shut", 0, dir_fd=fd)
    os.mkdir("empty", 0o311, dir_fd=fd)
    os.symlink("/", "link", dir_fd=fd)
    os.close(fd)
    (tmp_path / "beside").touch()
    assert remove(tmp_path, "top") == 0
    assert os.listdir(tmp_path) == ["beside"]
    assert remove(tmp_path, "beside") == 0
    assert remove(tmp_path, "absent") == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.attack
def test_a_link_in_a_trees_place_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary" / "file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "in").symlink_to(tmp_path / "canary")
    (tmp_path / "link").symlink_to("canary")
    assert remove(tmp_path, "tree") == 0
    assert remove(tmp_path, "link") == 0
    assert os.listdir(tmp_path) == ["canary"]
    assert (tmp_path / "canary" / "file").exists()
