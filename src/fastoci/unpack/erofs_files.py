"""The files of an image, by its merged metadata: what a path names, what is below it, and the data of one file.

Nothing is unpacked. Files of this module own what they read from, and need nothing else once they are made. Each
belongs to one thread at a time.
"""

from __future__ import annotations

import io
import os
import stat
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self

import msgspec

from fastoci import files
from fastoci.errors import FormatError, ImagePathError
from fastoci.stream.tar_headers import Kind
from fastoci.unpack.erofs_reader import ErofsReader, Inode, Piece
from fastoci.unpack.erofs_tree import resolve, walk

KINDS: Final[dict[int, Kind]] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
}

Opened = Mapping[int, io.FileIO]  # by the number of the device; 0 is the metadata itself


class ImageFile(msgspec.Struct, frozen=True):
    """A file of an image, of any kind: "file", "directory", "symlink", "fifo", "character", "block".

    ``path`` begins with a slash, and has surrogate escapes where it is not UTF-8; likewise ``link``, the target of a
    symbolic link. ``links`` counts its names, ``device`` is a device node's major and minor number.
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    links: int
    link: str = ""
    device: tuple[int, int] = (0, 0)


class ImageFiles:
    """The names and metadata of an image's files. A context manager; ``close`` it at the end.

    Paths are followed as in a process whose root directory is the image's: a link leads nowhere else.
    Every method raises ``FormatError`` for metadata that are damaged, and ``StoreError`` when the disk refused.
    """

    def __init__(self, metadata: io.FileIO, name: str) -> None:
        self._metadata = metadata
        self._reader = ErofsReader(metadata.fileno(), name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the metadata. Idempotent."""
        self._metadata.close()

    def stat(self, path: str, *, follow: bool = True) -> ImageFile:
        """What a path names.

        Args:
            follow: a link at its end is followed, too.
        Raises:
            ImagePathError: nothing is there.
        """
        own, inode = resolve(self._reader, os.fsencode(path), follow=follow)
        return self._file(own, inode)

    def is_directory(self, path: str) -> bool:
        """Whether a path leads to a directory."""
        try:
            return stat.S_ISDIR(resolve(self._reader, os.fsencode(path))[1].mode)
        except ImagePathError:
            return False

    def list(self, path: str = "/") -> Iterator[ImageFile]:
        """What is in a directory, in the order of bytes; of anything else, and of a link to nowhere, that itself.

        Raises:
            ImagePathError: nothing is there.
        """
        try:
            own, inode = resolve(self._reader, os.fsencode(path))
        except ImagePathError:
            own, inode = resolve(self._reader, os.fsencode(path), follow=False)
        if not stat.S_ISDIR(inode.mode):
            yield self._file(own, inode)
            return
        for name, child in self._reader.children(inode):
            yield self._file(own + b"/" + name if own else name, child)

    def walk(self, path: str = "/") -> Iterator[ImageFile]:
        """A file, and everything below it, each directory before what is in it.

        Raises:
            ImagePathError: nothing is there.
        """
        own, inode = resolve(self._reader, os.fsencode(path))
        yield self._file(own, inode)
        if stat.S_ISDIR(inode.mode):
            for below, child in walk(self._reader, inode, own):
                yield self._file(below, child)

    def _file(self, path: bytes, inode: Inode) -> ImageFile:
        return file_of(self._reader, path, inode)


def file_of(reader: ErofsReader, path: bytes, inode: Inode) -> ImageFile:
    """What is at a path from the root, which begins without a slash.

    Raises:
        FormatError, StoreError: as the reader's.
    """
    kind = KINDS[inode.type]
    return ImageFile(
        "/" + os.fsdecode(path),
        kind,
        stat.S_IMODE(inode.mode),
        inode.uid,
        inode.gid,
        inode.size if kind in ("file", "symlink") else 0,
        inode.mtime_ns,
        inode.links,
        os.fsdecode(reader.link(inode)) if kind == "symlink" else "",
        inode.device if kind in ("character", "block") else (0, 0),
    )


class FileData(io.RawIOBase):
    """The data of one file. Closes what it reads from.

    Every read raises ``FormatError`` where what it reads from ends too soon, ``StoreError`` when the disk refused.
    """

    def __init__(self, pieces: Sequence[Piece], size: int, opened: Opened, name: str) -> None:
        self._pieces = pieces
        self._starts = [piece.offset for piece in pieces]
        self._size = size
        self._opened = opened
        self._name = name
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go elsewhere, also beyond the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, out: Any, /) -> int:
        """Fill a part of ``out``; 0 at the end."""
        with memoryview(out).cast("B") as view:
            if self._at >= self._size or not view:
                return 0
            piece = self._pieces[bisect_right(self._starts, self._at) - 1]
            done = self._at - piece.offset
            count = min(len(view), piece.size - done)
            read_piece(piece, done, view[:count], self._opened, self._name)
            self._at += count
            return count

    def close(self) -> None:
        """Let go of what it reads from. Idempotent."""
        close_all(self._opened)
        super().close()


def read_piece(piece: Piece, done: int, out: memoryview, opened: Opened, name: str) -> None:
    """Fill ``out`` with a piece's bytes from ``done`` on.

    Raises:
        FormatError: what it is in ends before. StoreError: the disk refused.
    """
    if piece.device is None:
        out[:] = bytes(len(out))
        return
    fd, position = opened[piece.device].fileno(), piece.position + done
    while out:
        with files.translated("read", name):
            count = os.preadv(fd, [out], position)
        if not count:
            raise FormatError(f"{name} is damaged: device {piece.device} ends at byte {position}")
        position += count
        out = out[count:]


def close_all(opened: Opened) -> None:
    """Close files that were only read. Idempotent."""
    for file in opened.values():
        with suppress(OSError):
            file.close()


def data_of(reader: ErofsReader, path: str) -> tuple[Inode, list[Piece]]:
    """The regular file that a path names, and where its data are.

    Raises:
        ImagePathError: nothing is there, or something without data.
        FormatError: the metadata are damaged.
    """
    _, inode = resolve(reader, os.fsencode(path))
    if not stat.S_ISREG(inode.mode):
        kind = KINDS[inode.type]
        raise ImagePathError(f"{path}: is a {kind}{'' if kind in ('directory', 'fifo') else ' device'}", path=path)
    return inode, list(reader.pieces(inode))


def extent(pieces: Iterator[Piece], found: dict[int, tuple[int, int]]) -> None:
    """Extend what is known of each device: the first byte that is needed of it, and the end of the last."""
    for piece in pieces:
        if piece.device:
            first, end = found.get(piece.device, (piece.position, 0))
            found[piece.device] = min(first, piece.position), max(end, piece.position + piece.size)
