"""The tree of an image that a directory is compared with: by merged metadata, and the content of files where it counts.

Belongs to one thread at a time. Spec: docs/packing.md.
"""

from __future__ import annotations

import stat

from fastoci.pack.facts import Facts, is_packed
from fastoci.stream.tar_headers import carries
from fastoci.unpack.erofs_files import KINDS, Opened, close_all, read_piece
from fastoci.unpack.erofs_reader import ErofsReader, Inode

_ELSEWHERE = -1  # in place of a device: an inode of an image is none of a directory


class ImageTree:
    """The files of an image.

    Args:
        opened: the metadata and all devices; pass to the tree, which lets go of them when its root is closed.
    """

    def __init__(self, reader: ErofsReader, opened: Opened, name: str) -> None:
        self.reader = reader
        self.name = name
        self._opened = opened
        self.root = ImageDirectory(self, reader.root)

    def facts(self, inode: Inode) -> Facts:
        """What an inode says. Raises FormatError, UnsupportedError, StoreError; so do all that read."""
        kind = KINDS[inode.type]
        xattrs = sorted(self.reader.xattrs(inode).items())
        return Facts(
            kind,
            stat.S_IMODE(inode.mode),
            inode.uid,
            inode.gid,
            inode.mtime_ns,
            size=inode.size if kind == "file" else 0,
            link=self.reader.link(inode) if kind == "symlink" else b"",
            device=inode.device if kind in ("character", "block") else (0, 0),
            xattrs=tuple((name, value) for name, value in xattrs if is_packed(name) and carries(name, value)),
            identity=(_ELSEWHERE, inode.nid),
            links=inode.links,
        )

    def content(self, inode: Inode, offset: int, size: int) -> bytes:
        """Bytes of a file."""
        out = bytearray(max(0, min(size, inode.size - offset)))
        for piece in self.reader.pieces(inode):
            start, end = max(piece.offset, offset), min(piece.offset + piece.size, offset + len(out))
            if start < end:
                with memoryview(out)[start - offset : end - offset] as view:
                    read_piece(piece, start - piece.offset, view, self._opened, self.name)
        return bytes(out)

    def close(self) -> None:
        """Let go of all files. Idempotent."""
        close_all(self._opened)


class ImageNode:
    """What a name of an image leads to: a ``pack.changes.BaseNode``."""

    def __init__(self, tree: ImageTree, inode: Inode) -> None:
        self.facts = tree.facts(inode)
        self._tree = tree
        self._inode = inode

    def read(self, offset: int, size: int) -> bytes:
        """Content of a file."""
        return self._tree.content(self._inode, offset, size)

    def enter(self) -> ImageDirectory:
        """It as a directory."""
        return ImageDirectory(self._tree, self._inode)

    def close(self) -> None:
        """Nothing of its own is open."""


class ImageDirectory:
    """A directory of an image: a ``pack.changes.BaseDirectory``."""

    def __init__(self, tree: ImageTree, inode: Inode) -> None:
        self.facts = tree.facts(inode)
        self._tree = tree
        self._inodes = dict(tree.reader.children(inode))
        self._is_root = inode.nid == tree.reader.root.nid

    def names(self) -> list[bytes]:
        """What is in it, in the order of bytes."""
        return list(self._inodes)

    def open(self, name: bytes) -> ImageNode:
        """What is at a name."""
        return ImageNode(self._tree, self._inodes[name])

    def leave(self) -> None:
        """Let go."""
        self.close()

    def close(self) -> None:
        """Let go; of the whole tree when it is the root. Idempotent."""
        if self._is_root:
            self._tree.close()
