"""What a layer says of two trees: no more than what differs, in one order, and so that it can be applied.

Covers: pack/changes.py, pack/facts.py.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci.errors import PackError
from fastoci.pack.changes import Changes
from support.packing import TIME_NS, against, members, put, tar_of, tree_of

ROOT_USER = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT_USER, reason="needs root: devices, trusted attributes")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    root = tmp_path / "base"
    put(root / "etc/passwd", "root")
    put(root / "etc/group", "root")
    put(root / "usr/bin/tool", "tool", mode=0o755)
    (root / "usr/bin/link").symlink_to("tool")
    os.link(root / "etc/group", root / "etc/group-")
    os.utime(root / "etc", ns=(TIME_NS, TIME_NS))
    return root


@pytest.fixture
def new(base: Path) -> Path:
    """An exact copy of ``base``."""
    root = base.parent / "new"
    shutil.copytree(base, root, symlinks=True)
    os.unlink(root / "etc/group-")
    os.link(root / "etc/group", root / "etc/group-")
    return root


def test_equal_trees_have_no_difference(base: Path, new: Path) -> None:
    assert against(new, base) == {}


def test_a_new_file_brings_the_directories_on_its_way(base: Path, new: Path) -> None:
    put(new / "usr/share/doc/readme", "hello")
    assert list(against(new, base)) == ["usr", "usr/share", "usr/share/doc", "usr/share/doc/readme"]


def test_deletions_come_first_in_their_directory(base: Path, new: Path) -> None:
    put(new / "etc/a", "first by name")
    os.unlink(new / "etc/passwd")
    shutil.rmtree(new / "usr/bin")
    found = against(new, base)
    assert list(found) == ["etc", "etc/.wh.passwd", "etc/a", "usr", "usr/.wh.bin"]
    assert found["etc/.wh.passwd"].size == 0


CHANGES: dict[str, Callable[[Path], object]] = {
    "mode": lambda path: path.chmod(0o600),
    "size": lambda path: put(path, "longer than before", mode=0o755),
    "time": lambda path: os.utime(path, ns=(TIME_NS, TIME_NS + 1)),
    "content": lambda path: put(path, "TOOL", mode=0o755),
    "attribute": lambda path: os.setxattr(path, "user.label", b"1"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_differs_makes_an_entry(base: Path, new: Path, change: Callable[[Path], object]) -> None:
    change(new / "usr/bin/tool")
    assert list(against(new, base)) == ["usr", "usr/bin", "usr/bin/tool"]


def test_content_is_not_read_where_times_have_nanoseconds_and_are_equal(base: Path, new: Path) -> None:
    put(base / "etc/passwd", "ROOT", mtime_ns=TIME_NS + 5)
    put(new / "etc/passwd", "root", mtime_ns=TIME_NS + 5)
    assert against(new, base) == {}


def test_the_time_of_a_directory_alone_is_no_change(base: Path, new: Path) -> None:
    os.utime(new / "etc", ns=(0, 0))
    assert against(new, base) == {}


def test_a_directory_whose_mode_differs_has_an_entry_of_its_own(base: Path, new: Path) -> None:
    (new / "usr/bin").chmod(0o700)
    found = against(new, base)
    assert [(name, member.mode) for name, member in found.items()] == [("usr", 0o755), ("usr/bin", 0o700)]


def test_another_kind_of_file_replaces_without_a_whiteout(base: Path, new: Path) -> None:
    shutil.rmtree(new / "usr/bin")
    put(new / "usr/bin", "now a file")
    os.unlink(new / "etc/passwd")
    put(new / "etc/passwd/inside", "now a directory")
    found = against(new, base)
    assert list(found) == ["etc", "etc/passwd", "etc/passwd/inside", "usr", "usr/bin"]
    assert found["etc/passwd"].isdir()
    assert found["usr/bin"].isfile()


def test_the_names_of_one_inode_are_hard_links_to_the_first(tmp_path: Path) -> None:
    put(tmp_path / "b")
    (tmp_path / "a").mkdir()
    for name in ("a/z", "c"):
        os.link(tmp_path / "b", tmp_path / name)
    found = members(Changes(tree_of(tmp_path)))
    links = [(each.name, each.linkname) for each in found.values() if not each.isdir()]
    assert links == [("a/z", ""), ("b", "a/z"), ("c", "a/z")]


def test_a_name_more_of_an_inode_brings_all_its_names(base: Path, new: Path) -> None:
    os.link(new / "etc/group", new / "etc/zgroup")
    links = [(name, each.linkname) for name, each in against(new, base).items()]
    group = "etc/group"
    assert links == [("etc", ""), (group, ""), ("etc/group-", group), ("etc/zgroup", group)]


def test_names_that_are_linked_otherwise_are_changes(base: Path, new: Path) -> None:
    for root in (base, new):
        for name in "xy":
            put(root / name, "same")
    for source, name in (("x", "x2"), ("y", "y2")):
        os.link(base / source, base / name)
    for source, name in (("x", "y2"), ("y", "x2")):
        os.link(new / source, new / name)
    assert set(against(new, base)) == {"x2", "y2"}


def test_the_root_has_an_entry_when_it_is_not_what_layers_imply(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir(mode=0o700)
    found = members(Changes(tree_of(tmp_path / "root")))
    assert [(name, each.mode) for name, each in found.items()] == [(".", 0o700)]


@needs_root
def test_an_ordinary_root_has_none(tmp_path: Path) -> None:
    put(tmp_path / "root/a")
    (tmp_path / "root").chmod(0o755)
    assert list(members(Changes(tree_of(tmp_path / "root")))) == ["a"]


def test_sockets_are_left_out_and_hide_what_was_there(base: Path, new: Path) -> None:
    os.unlink(new / "etc/passwd")
    told: list[str] = []
    directory = os.open(new / "etc", os.O_PATH)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{directory}/passwd")
        found = members(Changes(tree_of(new, told=told.append), tree_of(base).root))
    os.close(directory)
    assert list(found) == ["etc", "etc/.wh.passwd"]
    assert told == [f"{new}/etc/passwd is a socket: it is left out"]


def test_attributes_that_no_tar_carries_are_told_and_those_of_a_machine_are_not(tmp_path: Path) -> None:
    path = put(tmp_path / "a")
    for name, value in {
        "kept": b"\0\xff",
        "a=b": b"1",
        "empty": b"",
        "overlay.origin": b"x",
        "fastoci.x": b"x",
    }.items():
        os.setxattr(path, f"user.{name}", value)
    told: list[str] = []
    found = members(Changes(tree_of(tmp_path, told=told.append)))["a"]
    assert [key for key in found.pax_headers if "xattr" in key] == ["SCHILY.xattr.user.kept"]
    assert [text.rpartition(", ")[2] for text in told] == [f"user.{x}: it is left out" for x in ("a=b", "empty")]


@pytest.mark.parametrize("name", [".wh.x", ".wh..wh..opq"], ids=["whiteout", "opaque"])
def test_a_name_that_would_delete_is_refused(tmp_path: Path, name: str) -> None:
    put(tmp_path / "sub" / name)
    with pytest.raises(PackError, match="it would delete another file") as raised:
        tar_of(Changes(tree_of(tmp_path)))
    assert raised.value.path == str(tmp_path / "sub" / name)


@needs_root
def test_a_whiteout_of_an_overlay_is_refused_where_none_is_expected(tmp_path: Path) -> None:
    os.mknod(tmp_path / "gone", 0o020000, os.makedev(0, 0))
    with pytest.raises(PackError, match="--upper"):
        tar_of(Changes(tree_of(tmp_path)))


def test_times_are_clamped_before_they_are_compared(base: Path, new: Path) -> None:
    for path in (new / "etc/passwd", new / "usr/bin/tool"):
        os.utime(path, ns=(TIME_NS + 10**9, TIME_NS + 10**9))
    os.utime(new / "usr/bin/link", ns=(TIME_NS, TIME_NS), follow_symlinks=False)
    os.utime(base / "usr/bin/link", ns=(TIME_NS, TIME_NS), follow_symlinks=False)
    assert members(Changes(tree_of(new, latest_ns=TIME_NS), tree_of(base).root)) == {}
    times = {each.mtime for each in members(Changes(tree_of(new, latest_ns=TIME_NS))).values()}
    assert max(times) == TIME_NS // 10**9


def test_the_order_in_which_a_tree_was_made_does_not_show(tmp_path: Path) -> None:
    names = [f"d{n}/f{n}" for n in range(20)]
    for root, order in (("one", names), ("two", names[::-1])):
        for name in order:
            put(tmp_path / root / name, name)
            os.utime((tmp_path / root / name).parent, ns=(TIME_NS, TIME_NS))
        os.utime(tmp_path / root, ns=(TIME_NS, TIME_NS))
    assert tar_of(Changes(tree_of(tmp_path / "one"))) == tar_of(Changes(tree_of(tmp_path / "two")))


@needs_root
class TestUpper:
    """An overlay's upper directory, whose marks become those of a layer."""

    @pytest.fixture
    def upper(self, tmp_path: Path) -> Path:
        put(tmp_path / "upper/etc/new", "new")
        (tmp_path / "upper").chmod(0o755)
        return tmp_path / "upper"

    def test_devices_0_0_become_whiteouts(self, upper: Path) -> None:
        for name in ("etc/zgone", "gone"):
            os.mknod(upper / name, 0o020000, os.makedev(0, 0))
        assert list(members(Changes(tree_of(upper), upper=True))) == [".wh.gone", "etc", "etc/.wh.zgone", "etc/new"]

    @pytest.mark.parametrize("space", ["trusted", "user"])
    def test_opaque_directories_say_so_before_all_else(self, upper: Path, space: str) -> None:
        os.setxattr(upper / "etc", f"{space}.overlay.opaque", b"y")
        found = members(Changes(tree_of(upper), upper=True))
        assert list(found) == ["etc", "etc/.wh..wh..opq", "etc/new"]
        assert not any("overlay" in key for each in found.values() for key in each.pax_headers)

    def test_files_are_whiteouts_where_their_directory_says_so(self, upper: Path) -> None:
        for name in ("etc/gone", "usr/empty"):
            os.setxattr(put(upper / name), "trusted.overlay.whiteout", b"")
        os.setxattr(upper / "etc", "trusted.overlay.opaque", b"x")
        found = members(Changes(tree_of(upper), upper=True))
        assert list(found) == ["etc", "etc/.wh.gone", "etc/new", "usr", "usr/empty"]

    @pytest.mark.parametrize(("name", "path"), [("redirect", "etc"), ("metacopy", "etc/new")])
    def test_what_only_the_mounted_overlay_knows_is_refused(self, upper: Path, name: str, path: str) -> None:
        os.setxattr(upper / path, f"trusted.overlay.{name}", b"/x")
        with pytest.raises(PackError, match="copy the merged tree"):
            tar_of(Changes(tree_of(upper), upper=True))
