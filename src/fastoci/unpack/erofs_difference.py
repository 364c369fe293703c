"""What differs between the files of two images, by the merged metadata of both: a walk through two trees at once.

What metadata cannot tell is left open: the content of files that have one size and are in different places. Times do
not count: a build gives new ones to all that it makes. Nor does the number of a file's names.
Belongs to one thread at a time. Spec: docs/inspect.md.
"""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from fastoci.errors import FormatError
from fastoci.unpack.erofs_reader import ErofsReader, Inode

Facet = Literal["kind", "mode", "owner", "size", "content", "link", "device", "xattr"]
Place = tuple[int, int, str, int]  # of data: their offset in the file, size, the layer ("" for a hole), and where there

Trees = tuple["_Tree", "_Tree"]

_DEVICES: Final = frozenset({stat.S_IFCHR, stat.S_IFBLK})


class Difference(msgspec.Struct, frozen=True):
    """A path that two trees do not have alike; ``left`` or ``right`` is None when that tree does not have it.

    ``facets`` are what differs when both have it. ``is_open``: the content may differ, too.
    """

    path: bytes
    left: Inode | None
    right: Inode | None
    facets: tuple[Facet, ...] = ()
    is_open: bool = False


class _Tree:
    """One of the trees. A directory in two places, as damaged metadata may have it, is walked once."""

    def __init__(self, reader: ErofsReader) -> None:
        self.reader = reader
        self._seen: set[int] = set()

    def children(self, directory: Inode | None) -> Iterator[tuple[bytes, Inode]]:
        """What is in a directory; nothing in what is none. Raises FormatError: it was walked before."""
        if directory is None or not stat.S_ISDIR(directory.mode):
            return iter(())
        if directory.nid in self._seen:
            raise FormatError(f"the metadata are damaged: directory {directory.nid} is in two places")
        self._seen.add(directory.nid)
        return self.reader.children(directory)


class _Level:
    """What is at one path of both trees, as far as these are directories: their names in one order."""

    def __init__(self, trees: Trees, path: bytes, left: Inode | None, right: Inode | None) -> None:
        self._path = path
        self._left, self._right = trees[0].children(left), trees[1].children(right)
        self._heads = [next(self._left, None), next(self._right, None)]

    def next_name(self) -> bytes | None:
        """The next name of either; None at the end of both."""
        return min((head[0] for head in self._heads if head is not None), default=None)

    def take(self, name: bytes) -> tuple[bytes, Inode | None, Inode | None]:
        """The path of the next name, and what is there."""
        found: list[Inode | None] = []
        for number, children in enumerate((self._left, self._right)):
            head = self._heads[number]
            if head is not None and head[0] == name:
                found.append(head[1])
                self._heads[number] = next(children, None)
            else:
                found.append(None)
        return (self._path + b"/" + name if self._path else name), found[0], found[1]


def differences(left: ErofsReader, right: ErofsReader, stop: threading.Event) -> Iterator[Difference]:
    """All that differs, each directory before what is in it, names in the order of bytes.

    Args:
        stop: ends it early, when nobody waits for the answer any more.
    Raises:
        FormatError, UnsupportedError, StoreError: metadata are damaged, or cannot be read.
    """
    trees = _Tree(left), _Tree(right)
    if (found := _difference(trees, b"", left.root, right.root)) is not None:
        yield found
    stack = [_Level(trees, b"", left.root, right.root)]
    while stack and not stop.is_set():
        if (name := stack[-1].next_name()) is None:
            stack.pop()
            continue
        path, mine, other = stack[-1].take(name)
        if (found := _difference(trees, path, mine, other)) is not None:
            yield found
        if (level := _Level(trees, path, mine, other)).next_name() is not None:
            stack.append(level)


def places(reader: ErofsReader, inode: Inode) -> list[Place]:
    """Where the data of a file are, in order, as few places as there can be.

    Raises:
        FormatError: metadata are damaged; or data are in them, where no image of layers has any.
    """
    found: list[Place] = []
    for piece in reader.pieces(inode):
        if piece.device == 0:
            raise FormatError(f"the metadata are damaged: data of inode {inode.nid} are in no layer")
        layer = "" if piece.device is None else reader.devices[piece.device - 1].tag
        offset, size, before, position = found[-1] if found else (0, 0, None, 0)
        if layer == before and (not layer or position + size == piece.position):
            found[-1] = (offset, size + piece.size, layer, position)
        else:
            found.append((piece.offset, piece.size, layer, piece.position))
    return found


def _difference(trees: Trees, path: bytes, left: Inode | None, right: Inode | None) -> Difference | None:
    """What differs at one path; None when nothing does."""
    if left is None or right is None:
        return Difference(path, left, right)
    facets = tuple(_facets(trees, left, right))
    is_open = left.type == right.type == stat.S_IFREG and left.size == right.size > 0
    if is_open:
        is_open = places(trees[0].reader, left) != places(trees[1].reader, right)
    return Difference(path, left, right, facets, is_open) if facets or is_open else None


def _facets(trees: Trees, left: Inode, right: Inode) -> Iterator[Facet]:
    """What of the metadata differs."""
    is_link = stat.S_ISLNK(left.mode) and stat.S_ISLNK(right.mode)
    if left.type != right.type:
        yield "kind"
    if stat.S_IMODE(left.mode) != stat.S_IMODE(right.mode) and not is_link:
        yield "mode"
    if (left.uid, left.gid) != (right.uid, right.gid):
        yield "owner"
    if left.type == right.type == stat.S_IFREG and left.size != right.size:
        yield "size"
    if is_link and trees[0].reader.link(left) != trees[1].reader.link(right):
        yield "link"
    if left.type == right.type and left.type in _DEVICES and left.device != right.device:
        yield "device"
    if (left.xattrs or right.xattrs) and trees[0].reader.xattrs(left) != trees[1].reader.xattrs(right):
        yield "xattr"
