"""The data of a blob under way: a file written from front to back, which leaves the page cache to others.

A large blob gets its blocks at once, so that blobs written at the same time do not interleave on the disk, and is
written with RWF_DONTCACHE. Where kernel or file system do not know it, the file is written plainly and advised away
behind the cursor: the first advice starts the writing, a later one drops what is written. Neither ever waits.
Knows nothing of locks, states and digests. Spec: docs/store-format.md 4.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from contextlib import suppress
from typing import Final

from fastoci import files
from fastoci._core import BUFFER_SIZE, Buffer, reserve
from fastoci.directory import Directory
from fastoci.errors import StoreError

_UNKNOWN: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_STEP: Final = 8 << 20  # bytes between two advices: what a plainly written blob keeps of the page cache


class _Way(enum.Enum):
    """How a file is written; the first write's answer decides between the last two."""

    PLAIN = enum.auto()
    UNCACHED = enum.auto()
    ADVISED = enum.auto()


class DataFile:
    """The ``Sink`` that writes an ingest's data at its offset.

    Args:
        fd: open for writing, ``offset`` bytes long; passes to the sink, unless this constructor fails.
        size: how long the file will be.
        cached: keep it in the page cache, for whoever reads it next. So is what takes one buffer at most: mostly
            documents, which are read at once.
    """

    def __init__(self, fd: int, path: str, *, offset: int, size: int, cached: bool) -> None:
        self.fd = fd
        self.offset = offset
        self._path = path
        self._size = size
        self._advised = offset
        large = size - offset > BUFFER_SIZE
        self._way = _Way.UNCACHED if large and not cached else _Way.PLAIN
        self._reserved = large and _reserve(fd, offset, size)

    def feed(self, buffer: Buffer) -> None:
        """Append; a large blob leaves the page cache alone.

        Raises:
            ValueError: it is closed.
            StoreError: the disk refused.
        """
        if self.fd < 0:
            raise ValueError(f"{self._path} is closed")
        code = buffer.pwrite(self.fd, self.offset, uncached=self._way is _Way.UNCACHED)
        if self._way is _Way.UNCACHED and -code in _UNKNOWN:
            self._way = _Way.ADVISED
            code = buffer.pwrite(self.fd, self.offset)
        if code:
            cause = OSError(-code, os.strerror(-code))
            raise files.failure(cause, "write", self._path, wanted=self._size - self.offset) from cause
        self.offset += len(buffer)
        if self.offset - self._advised >= _STEP:
            self._advised = self.offset
            self._drop()

    def finish(self) -> None:
        """Nothing is left to do: the verifier demands the size, ``commit`` makes it durable."""

    def sync(self) -> None:
        """Wait until all data is on the disk.

        Raises:
            OSError: the disk refused; the data is lost, whatever a second sync says.
        """
        os.fdatasync(self.fd)
        self._drop()

    def abort(self) -> None:
        """Close the file and give back the space that was reserved beyond its end. Idempotent."""
        if self.fd < 0:
            return
        fd, self.fd = self.fd, -1
        if self._reserved and self.offset < self._size:
            with suppress(OSError):  # the next begin gives back what stays reserved
                os.ftruncate(fd, self.offset)
        files.close(fd)

    def _drop(self) -> None:
        if self._way is _Way.ADVISED:
            with suppress(OSError):
                os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)


def open_data(directory: Directory, name: str) -> int:
    """Open the file for reading and writing, made when absent.

    Raises:
        OSError, StoreError: it cannot be, or is not a regular file.
    """
    try:
        fd = directory.open(name, files.CHANGE)
    except PermissionError:
        _make_writable(directory, name)
        fd = directory.open(name, files.CHANGE)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        files.close(fd)
        path = directory.at(name)
        raise StoreError(f"{path} is not a regular file", path=path)
    return fd


def _make_writable(directory: Directory, name: str) -> None:
    """A commit that was killed before its rename leaves the data 0444, which only root can open for writing."""
    fd = directory.open(name, files.READ)
    try:
        os.fchmod(fd, 0o600)
    finally:
        files.close(fd)


def _reserve(fd: int, offset: int, size: int) -> bool:
    """Take the blocks of a file beforehand; whether it has them.

    Not on a file system without a device of its own: on tmpfs it costs half as much as the writing. Not where it would
    take half of what is free: a disk that gets full must show in a write, and until then others need space too.
    """
    if not os.major(os.fstat(fd).st_dev):
        return False
    found = os.fstatvfs(fd)
    if size - offset > found.f_bavail * found.f_frsize // 2:
        return False
    if reserve(fd, offset, size - offset):
        with suppress(OSError):
            os.ftruncate(fd, offset)
        return False
    return True
