"""What a layer must say so that it makes one tree out of another: entries in a fixed order, with their content.

1. Directories come before what is in them, names in the order of bytes.
2. What is deleted comes first in its directory, as whiteouts; of an overlay's upper directory, an opaque mark before.
3. A directory on the way to a change has an entry too, so that a layer alone has the right modes and times.
4. A name is a change when anything differs that a layer can say (``facts.is_equal``). Content is read where that cannot
   tell: same size, and a time of whole seconds.
5. The names of one inode that are in the layer are one file and hard links to the first of them.

Spec: image-spec v1.1 layer.md, "Creating Changesets"; overlayfs.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Final, Protocol

import msgspec

from fastoci.errors import PackError
from fastoci.pack.facts import IMPLIED_ROOT, WHITEOUT, Facts, below, is_content_open, is_equal, opaque, whiteout
from fastoci.pack.tree import Directory, Node, Tree
from fastoci.stream.tar_headers import TarEntry

_PIECE: Final = 1 << 20  # bytes that are compared at once
_REFUSED: Final = {
    b"redirect": "was renamed in an overlay (a redirect): copy the merged tree, and pack that",
    b"metacopy": "has only its metadata here (overlay's metacopy): copy the merged tree, and pack that",
}


class BaseNode(Protocol):
    """What a name leads to in the tree that is compared with."""

    @property
    def facts(self) -> Facts:
        """What it is."""

    def read(self, offset: int, size: int) -> bytes:
        """Content of a file, as much as is asked for."""

    def enter(self) -> BaseDirectory:
        """It as a directory, which closes it."""

    def close(self) -> None:
        """Let go. Idempotent."""


class BaseDirectory(Protocol):
    """A directory of the tree that is compared with."""

    @property
    def facts(self) -> Facts:
        """What it is."""

    def names(self) -> list[bytes]:
        """What is in it, in the order of bytes."""

    def open(self, name: bytes) -> BaseNode:
        """What is at a name; the caller closes it."""

    def leave(self) -> None:
        """Go back to its parent, and let go."""

    def close(self) -> None:
        """Let go. Idempotent."""


class Change(msgspec.Struct, frozen=True):
    """One entry of a layer. ``node`` is the file that has its content, open until the next change is asked for."""

    entry: TarEntry
    node: Node | None = None


class _Level(msgspec.Struct):
    """A directory that is walked: what is left of it, and its entry until that is told."""

    directory: Directory
    base: BaseDirectory | None
    ahead: list[bytes]  # names, the next one last
    old: frozenset[bytes]  # names in ``base``
    entry: TarEntry | None


class Changes:
    """The changes that make ``tree`` out of ``base``, lazily; out of nothing without one.

    Args:
        base: passes to this one.
        upper: the tree is an overlay's upper directory: its whiteouts and opaque directories become those of a layer.
    """

    def __init__(self, tree: Tree, base: BaseDirectory | None = None, *, upper: bool = False) -> None:
        self.stopped = False  # set from any thread: the walk ends soon
        self._tree = tree
        self._upper = upper
        self._base = base
        self._levels: list[_Level] = []
        self._first: dict[tuple[int, int], bytes] = {}  # where an inode of several names is in the layer
        self._pairs: dict[tuple[int, int], tuple[int, int]] = {}  # an inode of the base, and the one that it is now

    def __iter__(self) -> Iterator[Change]:
        """The changes. Belongs to one thread at a time.

        Raises:
            PackError: the tree is none that a layer can have, or changed meanwhile.
            StoreError: the disk refused, or something may not be read.
            InterruptedError: ``stopped``.
        """
        old = IMPLIED_ROOT if self._base is None else self._base.facts
        root = self._push(self._tree.root, self._base)
        if is_equal(root.directory.facts, old):
            root.entry = None
        else:
            yield from self._parents()
        yield from self._deleted(root)
        while self._levels:
            level = self._levels[-1]
            if level.ahead:
                yield from self._name(level, level.ahead.pop())
            else:
                self._up()

    def close(self) -> None:
        """Let go of all directories. Idempotent."""
        for level in self._levels:
            level.directory.close()
            if level.base is not None:
                level.base.close()
        self._levels = []
        self._tree.root.close()
        if self._base is not None:
            self._base.close()

    def _up(self) -> None:
        level = self._levels.pop()
        try:
            level.directory.leave()
        finally:
            if level.base is not None:
                level.base.leave()

    def _push(self, directory: Directory, base: BaseDirectory | None) -> _Level:
        """Go into a directory. Raises PackError: it has a name that means something else in a layer."""
        level = _Level(directory, base, [], frozenset(), directory.facts.entry(directory.path))
        self._levels.append(level)
        level.ahead = directory.names()[::-1]
        level.old = frozenset() if base is None else frozenset(base.names())
        for name in level.ahead:
            if name.startswith(WHITEOUT):
                path = self._tree.shown(below(directory.path, name))
                raise PackError(f"{path}: a layer cannot have this name, it would delete another file", path=path)
        return level

    def _deleted(self, level: _Level) -> Iterator[Change]:
        """What is not in a directory any more."""
        gone = level.old.difference(level.ahead)
        if self._upper:
            mark = dict(level.directory.facts.overlay).get(b"opaque")
            if mark == b"y":
                yield from self._parents()
                yield Change(opaque(level.directory.path))
            is_hidden = partial(self._is_whiteout, level.directory, files=mark == b"x")
            gone = frozenset(filter(is_hidden, level.ahead))
            level.ahead = [name for name in level.ahead if name not in gone]
        for name in sorted(gone):
            yield from self._delete(level, name)

    def _is_whiteout(self, directory: Directory, name: bytes, *, files: bool) -> bool:
        """Whether a name is overlay's mark of a deletion: a device 0:0, or an empty file that says so."""
        node = directory.open(name)
        node.close()
        facts = node.facts
        if facts.kind == "character":
            return facts.device == (0, 0)
        return files and facts.kind == "file" and not facts.size and b"whiteout" in dict(facts.overlay)

    def _delete(self, level: _Level, name: bytes) -> Iterator[Change]:
        yield from self._parents()
        yield Change(whiteout(level.directory.path, name))

    def _parents(self) -> Iterator[Change]:
        """The entries of the directories that lead here, as far as they are not told yet."""
        for level in self._levels:
            if level.entry is not None:
                entry, level.entry = level.entry, None
                yield Change(entry)

    def _name(self, level: _Level, name: bytes) -> Iterator[Change]:
        """What is at one name of a directory."""
        if self.stopped:
            raise InterruptedError
        path = below(level.directory.path, name)
        known = name in level.old
        if level.directory.is_mounted(name):
            yield from self._mount(level, name, path, known)
            return
        with ExitStack() as opened:
            node = level.directory.open(name)
            opened.callback(node.close)
            old = level.base.open(name) if known and level.base is not None else None
            if old is not None:
                opened.callback(old.close)
            self._check(node.facts, path)
            if node.facts.kind == "directory":
                inner = self._enter(node, old)
                opened.pop_all()
                if old is None or not is_equal(node.facts, old.facts):
                    yield from self._parents()
                yield from self._deleted(inner)
            elif node.facts.kind == "socket":
                self._tree.leave_out(path, "is a socket: it is left out")
                if known:
                    yield from self._delete(level, name)
            elif old is None or not self._is_same(node, old):
                yield from self._changed(node, path)

    def _enter(self, node: Node, old: BaseNode | None) -> _Level:
        """Go into a directory that is open; it and what the base has there are the level's from now on."""
        if old is None or old.facts.kind == "directory":
            return self._push(node.enter(), None if old is None else old.enter())
        old.close()
        return self._push(node.enter(), None)

    def _mount(self, level: _Level, name: bytes, path: bytes, known: bool) -> Iterator[Change]:
        """What is mounted is not of the tree, but the directory that it is mounted on."""
        self._tree.leave_out(path, "is a mount point: what is mounted there is left out")
        node = level.directory.open(name)
        node.close()
        if node.facts.kind == "directory" and not known:
            yield from self._parents()
            yield Change(node.facts.entry(path))

    def _changed(self, node: Node, path: bytes) -> Iterator[Change]:
        facts = node.facts
        yield from self._parents()
        first = self._first.setdefault(facts.identity, path) if facts.links > 1 else path
        if first != path:
            link = msgspec.structs.replace(facts, kind="hardlink", size=0, link=first, xattrs=())
            yield Change(link.entry(path))  # with owner, mode and time: containerd gives those of a link to the file
        else:
            yield Change(facts.entry(path), node if facts.kind == "file" else None)

    def _check(self, facts: Facts, path: bytes) -> None:
        """Refuse what only means something in an overlay."""
        shown = self._tree.shown(path)
        if facts.kind == "character" and facts.device == (0, 0) and not self._upper:
            text = "is a device 0:0, which is a deletion in an overlay: is this an upper directory (--upper)?"
            raise PackError(f"{shown} {text}", path=shown)
        for name, _ in facts.overlay:
            if self._upper and (why := _REFUSED.get(name)):
                raise PackError(f"{shown} {why}", path=shown)

    def _is_same(self, node: Node, old: BaseNode) -> bool:
        new, was = node.facts, old.facts
        if not is_equal(new, was):
            return False
        if new.links > 1 and self._pairs.setdefault(was.identity, new.identity) != new.identity:
            return False  # the names of an inode are not those that it had
        if new.identity == was.identity and new.identity != (0, 0):
            return True
        return not is_content_open(new) or self._has_same_content(node, old)

    def _has_same_content(self, node: Node, old: BaseNode) -> bool:
        for offset in range(0, node.facts.size, _PIECE):
            if self.stopped:
                raise InterruptedError
            size = min(_PIECE, node.facts.size - offset)
            if node.read(offset, size) != old.read(offset, size):
                return False
        return True
