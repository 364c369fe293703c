"""What an EROFS file holds by this project's reader, as ``fastoci.testing.trees`` lists a directory."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace

from fastoci.testing.trees import Node
from fastoci.unpack.erofs_files import KINDS
from fastoci.unpack.erofs_reader import ErofsReader, Inode
from fastoci.unpack.erofs_tree import walk


def erofs_listing(fd: int, devices: Sequence[int] = ()) -> list[Node]:
    """Everything below the root of an EROFS file, in the order of path bytes, its attributes without exception."""
    reader = ErofsReader(fd, "image")
    groups: dict[int, list[int]] = {}
    nodes: list[Node] = []
    for path, inode in walk(reader, reader.root):
        if not stat.S_ISDIR(inode.mode):
            groups.setdefault(inode.nid, []).append(len(nodes))
        nodes.append(_node(reader, path, inode, (fd, *devices)))
    for nid, members in groups.items():
        assert reader.inode(nid).links == len(members), nodes[members[0]].path
        if len(members) > 1:
            first = min((nodes[each].path for each in members), key=os.fsencode)
            for each in members:
                nodes[each] = replace(nodes[each], hard_link=first)
    return sorted(nodes, key=lambda node: os.fsencode(node.path))


def content(reader: ErofsReader, inode: Inode, files: Sequence[int]) -> Iterator[bytes]:
    """The data of a file, a piece at a time; ``files`` are the file itself and its devices."""
    for piece in reader.pieces(inode):
        done = 0
        while done < piece.size:
            size = min(piece.size - done, 1 << 20)
            if piece.device is None:
                yield bytes(size)
            else:
                data = os.pread(files[piece.device], size, piece.position + done)
                assert len(data) == size
                yield data
            done += size


def _node(reader: ErofsReader, path: bytes, inode: Inode, files: Sequence[int]) -> Node:
    mode = stat.S_IMODE(inode.mode)
    node = Node(os.fsdecode(path), KINDS[inode.type], mode, inode.uid, inode.gid, inode.mtime_ns)
    node = replace(node, xattrs=tuple(sorted((os.fsdecode(k), v) for k, v in reader.xattrs(inode).items())))
    if node.kind == "symlink":
        return replace(node, link=os.fsdecode(reader.link(inode)))
    if node.kind in ("character", "block"):
        return replace(node, device=inode.device)
    if node.kind == "file":
        digest = hashlib.sha256()
        for data in content(reader, inode, files):
            digest.update(data)
        return replace(node, size=inode.size, sha256=digest.hexdigest())
    return node
