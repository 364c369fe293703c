"""A tar of what is in an image, made while it is read: each entry of the merged metadata, with its data.

The same image gives the same bytes: names in the order of bytes, each directory before what is in it, a file with
several names under the first of them, the others as hard links. Holes are zeros. Spec: image-spec v1.1 layer.md.
"""

from __future__ import annotations

import io
import stat
import threading
from collections.abc import Iterator
from typing import Any

from fastoci.stream.tar_headers import END, Kind, TarEntry, carries, header, padding
from fastoci.unpack.erofs_files import KINDS, Opened, close_all, extent, read_piece
from fastoci.unpack.erofs_reader import ErofsReader, Inode, Piece
from fastoci.unpack.erofs_tree import resolve, walk


def entries(reader: ErofsReader, path: bytes) -> Iterator[tuple[bytes, Inode]]:
    """A file and all that is below it, by their own paths from the root.

    Raises:
        ImagePathError: nothing is there. FormatError: the metadata are damaged.
    """
    own, inode = resolve(reader, path)
    yield own, inode
    if stat.S_ISDIR(inode.mode):
        yield from walk(reader, inode, own)


def needed(reader: ErofsReader, path: bytes, stop: threading.Event) -> dict[int, tuple[int, int]]:
    """What of each device the tar needs: from the first byte to the end of the last. Raises: as ``entries``.

    Args:
        stop: ends it early, when nobody waits for the answer any more.
    """
    found: dict[int, tuple[int, int]] = {}
    for _, inode in entries(reader, path):
        if stop.is_set():
            break
        if stat.S_ISREG(inode.mode):
            extent(reader.pieces(inode), found)
    return found


class TarStream(io.RawIOBase):
    """The tar of a path of an image, and of all below it; to be read once. Closes what it reads from.

    The names in it are the files' own paths, from the root. Every read raises ``FormatError`` for what is damaged,
    ``StoreError`` when the disk refused.

    Args:
        reader: reads the file that is ``opened[0]``.
    """

    def __init__(self, reader: ErofsReader, path: bytes, opened: Opened, name: str) -> None:
        self._parts = _parts(reader, path)
        self._opened = opened
        self._name = name
        self._part: bytes | Piece = b""
        self._done = 0  # bytes of the part that were read

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, out: Any, /) -> int:
        """Fill a part of ``out``; 0 at the end."""
        with memoryview(out).cast("B") as view:
            while view and self._done == _size(self._part):
                part = next(self._parts, None)
                if part is None:
                    return 0
                self._part, self._done = part, 0
            count = min(len(view), _size(self._part) - self._done)
            if isinstance(self._part, bytes):
                view[:count] = self._part[self._done : self._done + count]
            else:
                read_piece(self._part, self._done, view[:count], self._opened, self._name)
            self._done += count
            return count

    def close(self) -> None:
        """Let go of what it reads from. Idempotent."""
        close_all(self._opened)
        super().close()


def _size(part: bytes | Piece) -> int:
    return len(part) if isinstance(part, bytes) else part.size


def _parts(reader: ErofsReader, path: bytes) -> Iterator[bytes | Piece]:
    """The tar as what follows from metadata, and where the rest is."""
    firsts: dict[int, tuple[bytes, int]] = {}  # of files with several names: the first one, and how many are to come
    for own, inode in entries(reader, path):
        kind = KINDS[inode.type]
        if inode.links > 1 and kind != "directory":
            first, left = firsts.pop(inode.nid, (b"", inode.links))
            if left > 1:
                firsts[inode.nid] = first or own, left - 1
            if first:
                yield header(_entry(reader, own, inode, "hardlink", first))
                continue
        link = reader.link(inode) if kind == "symlink" else b""
        yield header(_entry(reader, own, inode, kind, link))
        if kind == "file":
            yield from reader.pieces(inode)
            yield bytes(padding(inode.size))
    yield END


def _entry(reader: ErofsReader, path: bytes, inode: Inode, kind: Kind, link: bytes) -> TarEntry:
    """The entry of one name. A hard link says nothing of the file that the first name has not said."""
    xattrs = {} if kind == "hardlink" else reader.xattrs(inode)
    return TarEntry(
        path,
        kind,
        stat.S_IMODE(inode.mode),
        inode.uid,
        inode.gid,
        inode.mtime_ns,
        inode.size if kind == "file" else 0,
        link,
        inode.device if kind in ("character", "block") else (0, 0),
        tuple(sorted(item for item in xattrs.items() if carries(*item))),
    )
