"""What a stack of layers gives, by a model in plain Python: links on the way, hard links and whiteouts included.

It is written from the rules, not from the extractor. Spec: image-spec v1.1 layer.md, "Applying Changesets".

Rules:
1. A name is walked from the root, one component at a time; symbolic links on the way are followed inside the root.
2. A directory that is missing on the way is implied: 0755, root's. Anything else on the way refuses the layer.
3. The last entry of a name counts. A directory keeps what is in a directory; anything else replaces what is there.
4. A whiteout removes what lower layers have under a name, an opaque one what they have in a directory, wherever in the
   layer it stands. A directory that holds something of its own layer stays, as if that layer had implied it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from fastoci.testing.layers import Entry
from fastoci.testing.trees import Node

LINKS = 255


class RefusedError(Exception):
    """The layer cannot be applied."""


@dataclass
class Leaf:
    """Anything but a directory; several names may have the same one."""

    node: Node


@dataclass
class Directory:
    """A directory; ``made`` says which layer made each name in it that is no directory."""

    parent: Directory | None
    node: Node
    named: int = -1  # the last layer with an entry for it
    children: dict[str, Leaf | Directory] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)

    def holds(self, layer: int) -> bool:
        """Whether it, or something below, is content of a layer."""
        if self.named == layer or layer in self.made.values():
            return True
        return any(child.holds(layer) for child in self.children.values() if isinstance(child, Directory))


def implied(parent: Directory | None) -> Directory:
    """A directory that no entry names."""
    return Directory(parent, Node("", "directory", 0o755, 0, 0, None))


class Model:
    """A tree out of layers, lowest first."""

    def __init__(self) -> None:
        self.root = implied(None)
        self._layer = -1

    def apply(self, entries: Iterable[Entry]) -> None:
        """Apply one layer.

        Raises:
            RefusedError: the tree is then of no use.
        """
        self.begin()
        for entry in entries:
            self.add(entry)

    def begin(self) -> None:
        """Another layer begins."""
        self._layer += 1

    def add(self, entry: Entry) -> None:
        """Apply the next entry of the layer. Raises: as ``apply``."""
        parts = [part for part in entry.path.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise RefusedError
        if not parts:
            self._name(self.root, entry)
        elif parts[-1].startswith(".wh.") and self._layer == 0:
            pass  # nothing is below
        elif parts[-1] == ".wh..wh..opq":
            if (directory := self._walk(parts[:-1], create=False)) is not None:
                self._empty(directory)
        elif parts[-1].startswith(".wh."):
            if (directory := self._walk(parts[:-1], create=False)) is not None:
                self._hide(directory, parts[-1].removeprefix(".wh."))
        else:
            directory = self._walk(parts[:-1], create=True)
            assert directory is not None
            self._make(directory, parts[-1], entry)

    def listing(self) -> list[Node]:
        """As ``fastoci.testing.trees.listing`` gives it of the real tree."""
        names: dict[int, list[str]] = {}
        found: dict[str, Node] = {}
        todo = [("", self.root)]
        while todo:
            at, directory = todo.pop()
            for name, child in directory.children.items():
                path = f"{at}/{name}".lstrip("/")
                found[path] = replace(child.node, path=path)
                if isinstance(child, Directory):
                    todo.append((path, child))
                else:
                    names.setdefault(id(child), []).append(path)
        for paths in names.values():
            if len(paths) > 1:
                for path in paths:
                    found[path] = replace(found[path], hard_link=min(paths, key=os.fsencode))
        return [found[path] for path in sorted(found, key=os.fsencode)]

    def _walk(self, parts: Sequence[str], *, create: bool) -> Directory | None:
        """The directory at the end of a way; None when it is missing and nothing is made."""
        at, links = self.root, 0
        ahead = list(reversed(parts))
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            if part == "..":
                at = at.parent or at
                continue
            child = at.children.get(part)
            if child is None:
                if not create:
                    return None
                child = at.children[part] = implied(at)
            if isinstance(child, Directory):
                at = child
            elif child.node.kind == "symlink":
                links += 1
                if links > LINKS:
                    raise RefusedError
                at = self.root if child.node.link.startswith("/") else at
                ahead.extend(reversed(child.node.link.split("/")))
            elif create:
                raise RefusedError
            else:
                return None
        return at

    def _make(self, directory: Directory, name: str, entry: Entry) -> None:
        there = directory.children.get(name)
        if entry.kind == "directory":
            if not isinstance(there, Directory):
                directory.made.pop(name, None)
                there = directory.children[name] = implied(directory)
            self._name(there, entry)
            return
        leaf = self._target(entry.link, directory, name) if entry.kind == "hardlink" else Leaf(node_of(entry))
        directory.children[name] = leaf
        directory.made[name] = self._layer

    def _name(self, directory: Directory, entry: Entry) -> None:
        if entry.kind != "directory":
            raise RefusedError
        directory.node = node_of(entry)
        directory.named = self._layer

    def _target(self, link: str, directory: Directory, name: str) -> Leaf:
        """What a hard link to ``link`` gives one more name, which is ``name`` in ``directory``."""
        parts = [part for part in link.split("/") if part not in ("", ".")]
        if not parts or ".." in parts:
            raise RefusedError
        parent = self._walk(parts[:-1], create=False)
        target = None if parent is None else parent.children.get(parts[-1])
        if not isinstance(target, Leaf):
            raise RefusedError
        while parent is not None:  # what is in the way of the new name would take the target with it
            if parent.parent is directory and directory.children.get(name) is parent:
                raise RefusedError
            parent = parent.parent
        return target

    def _hide(self, directory: Directory, name: str) -> None:
        child = directory.children.get(name)
        if isinstance(child, Directory) and child.holds(self._layer):
            if child.named != self._layer:
                child.node = implied(None).node
            self._empty(child)
        elif child is not None and directory.made.get(name) != self._layer:
            del directory.children[name]
            directory.made.pop(name, None)

    def _empty(self, directory: Directory) -> None:
        for name in list(directory.children):
            self._hide(directory, name)


def node_of(entry: Entry) -> Node:
    """An entry's metadata and content, without a path."""
    node = Node("", entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime_ns, xattrs=entry.xattrs)
    if entry.kind == "symlink":
        return replace(node, mode=0o777, link=entry.link)
    if entry.kind == "file":
        data = b"".join(entry.chunks())
        return replace(node, size=len(data), sha256=hashlib.sha256(data).hexdigest())
    return node
