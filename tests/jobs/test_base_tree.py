"""An image's tree by its merged metadata, and a directory beside it: no difference, or just what differs."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci.jobs.base_tree import ImageTree
from fastoci.pack.changes import Changes
from fastoci.unpack.erofs_reader import ErofsReader
from support.packing import TIME_NS, members, put, tree_of

SECOND = 10**9


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    put(root / "etc/passwd", "root")
    put(root / "etc/large", random.Random(1).randbytes(3_000_003))
    put(root / "etc/nanoseconds", "n", mtime_ns=TIME_NS + 5)
    put(root / "usr/bin/tool", "tool", mode=0o4755)
    (root / "usr/bin/link").symlink_to("tool")
    os.utime(root / "usr/bin/link", ns=(TIME_NS, TIME_NS), follow_symlinks=False)
    os.link(root / "etc/passwd", root / "etc/passwd-")
    os.setxattr(root / "etc/large", "user.a", b"\0\1")
    os.mkfifo(root / "pipe")
    os.utime(root / "pipe", ns=(TIME_NS, TIME_NS))
    root.chmod(0o755)
    return root


@pytest.fixture
def image(tree: Path, peer: Callable[[str], str]) -> Path:
    """The tree as an EROFS file, by another writer."""
    path = tree.parent / "image.erofs"
    command = [peer("mkfs.erofs"), "-Enoinline_data", "--quiet", "-x", "100000", str(path), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return path


def against(tree: Path, image: Path) -> list[str]:
    file = io.FileIO(image)
    base = ImageTree(ErofsReader(file.fileno(), "image"), {0: file}, "image")
    found = members(Changes(tree_of(tree), base.root))
    assert file.closed
    return list(found)


def test_an_image_and_its_own_files_do_not_differ(tree: Path, image: Path) -> None:
    assert against(tree, image) == []


def change_last_byte(root: Path) -> None:
    put(root / "etc/large", (root / "etc/large").read_bytes()[:-1] + b"!")
    os.setxattr(root / "etc/large", "user.a", b"\0\1")


def change_kind(root: Path) -> None:
    (root / "pipe").unlink()
    put(root / "pipe/x")


CHANGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "content": (lambda root: put(root / "etc/passwd", "toor"), ["etc", "etc/passwd", "etc/passwd-"]),
    "last byte": (change_last_byte, ["etc", "etc/large"]),
    "mode": (lambda root: (root / "usr/bin/tool").chmod(0o755), ["usr", "usr/bin", "usr/bin/tool"]),
    "attribute": (lambda root: os.removexattr(root / "etc/large", "user.a"), ["etc", "etc/large"]),
    "deletion": (lambda root: shutil.rmtree(root / "usr"), [".wh.usr"]),
    "kind": (change_kind, ["pipe", "pipe/x"]),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_what_differs_from_an_image_is_found(
    tree: Path, image: Path, change: Callable[[Path], object], expected: list[str]
) -> None:
    change(tree)
    os.utime(tree / "etc/large", ns=(TIME_NS, TIME_NS))
    assert against(tree, image) == expected
