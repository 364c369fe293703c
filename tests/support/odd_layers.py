"""Stacks of layers that differs disagree about, or that one of them refuses: each with the tree that it must give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from fastoci.testing.layers import Entry, directory, hardlink, symlink, whiteout
from fastoci.testing.trees import Node, overlay


@dataclass(frozen=True)
class Odd:
    """Layers, the lowest first. ``expected`` are layers that plainly give the same tree; by default these.

    ``walking``: whether containerd's own differ makes that tree, sequentially.
    """

    layers: Sequence[Sequence[Entry]]
    expected: Sequence[Sequence[Entry]] | None = None
    walking: bool = False

    @property
    def tree(self) -> list[Node]:
        """The tree; a directory that a layer only passes through may have any time."""
        passed = {entry.path.rstrip("/").rpartition("/")[0] for entries in self.layers for entry in entries}
        nodes = overlay(self.layers if self.expected is None else self.expected)
        return [replace(node, mtime_ns=None) if node.path in passed else node for node in nodes]


_FILE: Final = Entry("f", data=b"below", uid=5, gid=6, mode=0o640)
ODD: Final[Mapping[str, Odd]] = {
    "whiteout, then new content": Odd(
        [[directory("d"), Entry("d/old")], [whiteout("d"), directory("d"), Entry("d/new")]],
    ),
    "new content, then a whiteout": Odd([[directory("d"), Entry("d/old")], [directory("d"), whiteout("d")]]),
    "a file, then its whiteout": Odd([[_FILE], [replace(_FILE, data=b"above"), whiteout("f")]]),
    "implied parents": Odd(
        [
            [replace(directory("root", mode=0o700), uid=7), directory("tmp", mode=0o1777)],
            [Entry("root/.profile"), Entry("tmp/socket/log")],
        ],
    ),
    "a whiteout in what is not named": Odd(
        [[directory("a"), Entry("a/b"), Entry("a/c")], [whiteout("a/b")]], walking=True
    ),
    "hard link to a lower file": Odd([[_FILE], [hardlink("g", "f")]]),
    "path through a lower link": Odd(
        [[directory("real"), symlink("alias", "real")], [Entry("alias/f")]],
        [[directory("real"), symlink("alias", "real"), Entry("real/f")]],
    ),
    "a device 0:0": Odd(
        [[directory("d"), Entry("d/f"), Entry("d/g")], [directory("d"), Entry("d/f", "character", device=(0, 0))]],
        [[directory("d"), Entry("d/g")]],
        walking=True,
    ),
    "an entry of the root": Odd(
        [[replace(directory("./", mode=0o700), uid=7), _FILE], [replace(directory("./", mode=0o711), uid=8)]],
        [[_FILE]],
        walking=True,
    ),
    "odd attributes": Odd(
        [[replace(_FILE, xattrs=(("user.a", b"1"), ("user.overlay.opaque", b"y"), ("security.selinux", b"x")))]],
        [[replace(_FILE, xattrs=(("user.a", b"1"),))]],
        walking=True,
    ),
}
