"""Trees of files as lists of values: what a directory holds, what layers should give, and how two lists differ.

``overlay`` is a model in plain dictionaries, written for clarity, to compare the extractor with. No file system is
touched.
Spec: image-spec v1.1 layer.md, "Applying Changesets".
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

from fastoci.testing.layers import Entry

_KINDS: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
    stat.S_IFSOCK: "socket",
}
_SET_ID: Final = stat.S_ISUID | stat.S_ISGID
# What the file system, the kernel or a storage driver adds by itself.
_FOREIGN_XATTRS: Final = ("trusted.overlay.", "user.overlay.", "security.selinux", "user.rootlesscontainers")


@dataclass(frozen=True, slots=True)
class Node:
    """One name in a tree. ``hard_link`` is the first path of its group, empty when it is the only one."""

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int | None  # None: any
    size: int = 0
    sha256: str = ""
    link: str = ""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    device: tuple[int, int] = (0, 0)
    hard_link: str = ""


def listing(root: Path) -> list[Node]:
    """Everything below ``root``, which itself is not in it, in the order of path bytes; links are not followed."""
    groups: dict[tuple[int, int], list[int]] = {}
    nodes: list[Node] = []
    for descriptor, name, path in _walk(root):
        facts = os.lstat(name, dir_fd=descriptor)
        if not stat.S_ISDIR(facts.st_mode) and facts.st_nlink > 1:
            groups.setdefault((facts.st_dev, facts.st_ino), []).append(len(nodes))
        nodes.append(_node(descriptor, name, path, facts))
    for members in groups.values():
        _group(nodes, members)
    return sorted(nodes, key=lambda node: os.fsencode(node.path))


def _walk(root: Path) -> Iterator[tuple[int, str, str]]:
    # By descriptors, since paths may be longer than PATH_MAX, and without recursion, since they may be deep.
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    stack: list[tuple[int, str, list[str]]] = [(top, "", os.listdir(top))]
    try:
        while stack:
            descriptor, path, names = stack[-1]
            if not names:
                os.close(stack.pop()[0])
                continue
            name = names.pop()
            below = f"{path}/{name}" if path else name
            yield descriptor, name, below
            if stat.S_ISDIR(os.lstat(name, dir_fd=descriptor).st_mode):
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                stack.append((inner, below, os.listdir(inner)))
    finally:
        for descriptor, _, _ in stack:
            os.close(descriptor)


def _node(directory: int, name: str, path: str, facts: os.stat_result) -> Node:
    kind = _KINDS[stat.S_IFMT(facts.st_mode)]
    mode = stat.S_IMODE(facts.st_mode)
    node = Node(path, kind, mode, facts.st_uid, facts.st_gid, facts.st_mtime_ns)
    if kind == "symlink":
        return replace(node, link=os.readlink(name, dir_fd=directory))
    if kind in ("character", "block"):
        return replace(node, device=(os.major(facts.st_rdev), os.minor(facts.st_rdev)))
    if kind not in ("file", "directory"):
        return node
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        names = [x for x in sorted(os.listxattr(descriptor)) if not x.startswith(_FOREIGN_XATTRS)]
        node = replace(node, xattrs=tuple((x, os.getxattr(descriptor, x)) for x in names))
        if kind == "directory":
            return node
        with open(descriptor, "rb", closefd=False) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return replace(node, size=facts.st_size, sha256=digest)
    finally:
        os.close(descriptor)


def _group(nodes: list[Node], members: Sequence[int]) -> None:
    if len(members) > 1:
        first = min((nodes[i].path for i in members), key=os.fsencode)
        for i in members:
            nodes[i] = replace(nodes[i], hard_link=first)


def overlay(layers: Iterable[Iterable[Entry]]) -> list[Node]:
    """What these layers give, lowest first, in the order of path bytes."""
    tree: dict[str, Node] = {}
    inodes: dict[str, int] = {}
    count = 0
    for layer in layers:
        entries = [replace(entry, path=entry.path.removeprefix("./").strip("/")) for entry in layer]
        for entry in entries:  # whiteouts first: they are about lower layers, wherever they are in this one
            _delete(tree, entry.path)
        for entry in entries:
            if entry.path in ("", ".") or entry.path.rpartition("/")[2].startswith(".wh."):
                continue
            _make_parents(tree, entry.path)
            if entry.kind != "directory":
                _remove(tree, entry.path, itself=True)
            count += 1
            if entry.kind == "hardlink":
                tree[entry.path] = replace(tree[entry.link.strip("/")], path=entry.path)
                inodes[entry.path] = inodes[entry.link.strip("/")]
            else:
                tree[entry.path] = _made(entry)
                inodes[entry.path] = count
    paths = sorted(tree, key=os.fsencode)
    nodes = [tree[path] for path in paths]
    groups: dict[int, list[int]] = {}
    for position, node in enumerate(nodes):
        if node.kind != "directory":
            groups.setdefault(inodes[node.path], []).append(position)
    for members in groups.values():
        _group(nodes, members)
    return nodes


def _delete(tree: dict[str, Node], path: str) -> None:
    parent, _, name = path.rpartition("/")
    if name == ".wh..wh..opq":
        _remove(tree, parent, itself=False)
    elif name.startswith(".wh."):
        _remove(tree, f"{parent}/{name.removeprefix('.wh.')}".lstrip("/"), itself=True)


def _remove(tree: dict[str, Node], path: str, *, itself: bool) -> None:
    node = tree.pop(path, None) if itself else tree.get(path)
    if node is not None and node.kind == "directory":
        for below in [other for other in tree if other.startswith(f"{path}/")]:
            del tree[below]


def _make_parents(tree: dict[str, Node], path: str) -> None:
    parts = path.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        parent = "/".join(parts[:depth])
        if parent not in tree:
            tree[parent] = Node(parent, "directory", 0o755, 0, 0, None)


def _made(entry: Entry) -> Node:
    node = Node(entry.path, entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime_ns)
    node = replace(node, link=entry.link, xattrs=entry.xattrs, device=entry.device)
    if entry.kind != "file":
        return node
    size, digest = 0, hashlib.sha256()
    for piece in entry.chunks():
        size += len(piece)
        digest.update(piece)
    return replace(node, size=size, sha256=digest.hexdigest())


def differences(expected: Iterable[Node], actual: Iterable[Node], *, owners: bool = True) -> list[str]:
    """One line for each name that is missing, extra or otherwise; empty when the trees are equal."""
    wanted = {node.path: node for node in expected}
    found = {node.path: node for node in actual}
    lines = [f"{path!r}: missing" for path in wanted.keys() - found.keys()]
    lines += [f"{path!r}: not expected" for path in found.keys() - wanted.keys()]
    for path in wanted.keys() & found.keys():
        for field in fields(Node):
            want, got = getattr(wanted[path], field.name), getattr(found[path], field.name)
            if want == got or (field.name == "mtime_ns" and want is None):
                continue
            if not owners and field.name in ("uid", "gid"):
                continue
            if not owners and field.name == "mode" and (want ^ got) & ~_SET_ID == 0:
                continue  # without its owner, a file has no set-id bits
            shown = (f"{want:o}", f"{got:o}") if field.name == "mode" else (repr(want), repr(got))
            lines.append(f"{path!r}: {field.name} is {shown[1]}, expected {shown[0]}")
    return sorted(lines)
