"""Listings of trees, the model of applying layers, and the comparison of both."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fastoci.testing.layers import TIME_NS, Entry, directory, hardlink, opaque, symlink, whiteout
from fastoci.testing.trees import Node, differences, listing, overlay


def paths(nodes: list[Node]) -> list[str]:
    return [node.path for node in nodes]


def test_a_listing_has_every_kind_of_entry(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d" / "f").write_bytes(b"abc")
    os.utime(tmp_path / "d" / "f", ns=(5, 1_000_000_007))
    os.link(tmp_path / "d" / "f", tmp_path / "a")
    os.symlink("nowhere", tmp_path / "l")
    os.mkfifo(tmp_path / "p", 0o640)
    nodes = {node.path: node for node in listing(tmp_path)}
    assert list(nodes) == ["a", "d", "d/f", "l", "p"]
    file = nodes["d/f"]
    assert (file.kind, file.size, file.mtime_ns, file.hard_link) == ("file", 3, 1_000_000_007, "a")
    assert file.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert nodes["d"].mode == 0o700
    assert (nodes["l"].kind, nodes["l"].link) == ("symlink", "nowhere")
    assert nodes["p"].kind == "fifo"


def test_a_listing_goes_deeper_than_a_path_can_be_long(tmp_path: Path) -> None:
    start = os.open(tmp_path, os.O_RDONLY)
    for _ in range(450):
        os.mkdir("d" * 10, dir_fd=start)
        inner = os.open("d" * 10, os.O_RDONLY, dir_fd=start)
        os.close(start)
        start = inner
    os.close(start)
    nodes = listing(tmp_path)
    assert len(nodes) == 450
    assert len(nodes[-1].path) > 4096


def test_whiteouts_delete_lower_layers_only() -> None:
    lower = [directory("d"), Entry("d/old"), directory("d/sub"), Entry("d/sub/x"), Entry("gone")]
    upper = [Entry("d/new"), whiteout("d/new"), whiteout("gone"), whiteout("d/sub")]
    assert paths(overlay([lower, upper])) == ["d", "d/new", "d/old"]


def test_an_opaque_directory_hides_lower_siblings_wherever_it_stands() -> None:
    lower = [directory("d"), Entry("d/old"), Entry("d/deep/x"), Entry("kept")]
    upper = [Entry("d/new"), opaque("d")]
    assert paths(overlay([lower, upper])) == ["d", "d/new", "kept"]


def test_another_type_replaces_and_a_directory_over_a_directory_merges() -> None:
    lower = [directory("d", mode=0o700), Entry("d/f"), directory("e"), Entry("e/f"), Entry("g", data=b"1")]
    upper = [directory("d", mode=0o755), symlink("e", "d"), directory("g"), Entry("g/h")]
    nodes = {node.path: node for node in overlay([lower, upper])}
    assert list(nodes) == ["d", "d/f", "e", "g", "g/h"]
    assert nodes["d"].mode == 0o755
    assert nodes["e"].kind == "symlink"


def test_hard_links_form_groups_until_a_name_is_replaced() -> None:
    lower = [Entry("b", data=b"1"), hardlink("a", "b"), hardlink("c", "./a".removeprefix("./"))]
    assert {node.path: node.hard_link for node in overlay([lower])} == {"a": "a", "b": "a", "c": "a"}
    upper = [Entry("a", data=b"2")]
    assert {node.path: node.hard_link for node in overlay([lower, upper])} == {"a": "", "b": "b", "c": "b"}


def test_implied_parents_may_have_any_time() -> None:
    (parent, _) = overlay([[Entry("opt/file")]])
    assert (parent.path, parent.kind, parent.mode, parent.mtime_ns) == ("opt", "directory", 0o755, None)
    assert differences([parent], [replace(parent, mtime_ns=5)]) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"mode": 0o600}, "'f': mode is 600, expected 644"),
        ({"mtime_ns": TIME_NS + 1}, f"'f': mtime_ns is {TIME_NS + 1}, expected {TIME_NS}"),
        ({"xattrs": (("user.a", b"1"),)}, "'f': xattrs is (('user.a', b'1'),), expected ()"),
        ({"path": "g"}, "'f': missing"),
    ],
)
def test_differences_name_the_entry_and_both_values(change: dict[str, object], line: str) -> None:
    (node,) = overlay([[Entry("f")]])
    assert line in differences([node], [replace(node, **change)])  # type: ignore[arg-type]
    assert differences([node], [node]) == []


def test_owners_can_be_left_out() -> None:
    (node,) = overlay([[Entry("f", uid=5)]])
    assert differences([node], [replace(node, uid=7)], owners=False) == []
    assert differences([node], [replace(node, uid=7)]) == ["'f': uid is 7, expected 5"]
