"""A tree that is looked into as its containers see it, whatever its maker put there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastoci.errors import StoreError, UnsupportedError
from fastoci.unpack.tree import Tree
from support.scratch import opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of a tree, with a file of the same name beside it."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_bytes(b"the machine's")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "usr" / "etc").mkdir(parents=True)
    (root / "usr" / "etc" / "passwd").write_bytes(b"the image's")
    return root


@pytest.fixture
def tree(root: Path) -> Iterator[Tree]:
    with opened(root) as fd:
        yield Tree(fd, str(root))


@pytest.mark.parametrize(
    "text",
    [
        "/usr/etc/passwd",
        "../usr/etc/passwd",
        "../../../../../usr/etc/passwd",
        "/../usr/./etc//passwd",
        "../usr/lib/../etc/passwd",
    ],
)
def test_links_are_followed_inside(root: Path, tree: Tree, text: str) -> None:
    (root / "usr" / "lib").mkdir()
    (root / "etc" / "passwd").symlink_to(text)
    assert tree.read("/etc/passwd", 100) == b"the image's"
    assert tree.resolve("/etc/passwd") == "/usr/etc/passwd"


def test_a_link_in_the_middle_is_followed_inside(root: Path, tree: Tree) -> None:
    (root / "etc").rmdir()
    (root / "etc").symlink_to("/usr/etc")
    assert tree.read("/etc/passwd", 100) == b"the image's"
    assert tree.read("/etc/../passwd", 100) == b""  # of /usr, as in the kernel
    (root / "usr" / "passwd").write_bytes(b"1")
    assert tree.read("/etc/../passwd", 100) == b"1"


@pytest.mark.parametrize("way", ["../../etc/passwd", "/etc/passwd", "/../etc/passwd"])
def test_no_link_leads_out(root: Path, tree: Tree, way: str) -> None:
    (root / "leads").symlink_to(way)
    assert tree.read("/leads", 100) == b""


def test_a_circle_of_links_is_an_error(root: Path, tree: Tree) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("/a")
    with pytest.raises(StoreError, match="symbolic links"):
        tree.read("/a", 100)


def test_what_is_not_a_file_has_no_content_and_is_not_opened(root: Path, tree: Tree) -> None:
    os.mkfifo(root / "pipe")  # to open it would wait for ever
    (root / "directory").mkdir()
    for name in ("pipe", "directory", "absent", "usr/etc/passwd/below", ""):
        assert tree.read(f"/{name}", 100) == b""


def test_a_file_that_is_too_large_is_refused(root: Path, tree: Tree) -> None:
    (root / "large").write_bytes(b"x" * 101)
    assert tree.read("/large", 101)
    with pytest.raises(UnsupportedError, match="/large has 101 bytes, more than 100"):
        tree.read("/large", 100)


def test_where_a_path_leads_is_told_also_of_what_is_not_there(root: Path, tree: Tree) -> None:
    (root / "work").symlink_to("proc/self/fd/7")
    assert tree.resolve("/work") == "/proc/self/fd/7"
    assert tree.resolve("/usr/new/../x") == "/usr/new/../x"
    assert tree.resolve("/") == "/"


def test_the_mode_and_owner_of_what_is_there_are_told(root: Path, tree: Tree) -> None:
    (root / "data").mkdir(mode=0o700)
    info = tree.stat("/data")
    assert info is not None
    assert (info.st_mode & 0o7777, info.st_uid) == (0o700, os.geteuid())
    assert tree.stat("/nothing") is None


def test_nothing_stays_open(root: Path, tree: Tree) -> None:
    (root / "link").symlink_to("/usr/etc/../etc")
    before = len(os.listdir("/proc/self/fd"))
    tree.read("/link/passwd", 100)
    tree.resolve("/usr/absent/x")
    assert len(os.listdir("/proc/self/fd")) == before
