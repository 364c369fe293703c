"""Reads and replacements of the store's files, and directories that are made: durable, refused with a typed error.

The one place of this folder where ``OSError`` becomes ``StoreError``. Knows no names of the store.
Spec: docs/store-format.md 2.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from fastoci import files
from fastoci.errors import StoreError, StoreFullError
from fastoci.store.directory import Directory

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# O_NONBLOCK: a FIFO in a file's place must not hang the open; it changes nothing for a regular file.
READ: Final = os.O_RDONLY | os.O_NONBLOCK
CHANGE: Final = os.O_RDWR | os.O_CREAT
_SMALL: Final = 64 << 10  # bytes: one read gets nearly every manifest whole


def failure(cause: OSError, action: str, path: str, *, wanted: int = 0) -> StoreError:
    """The typed error for what the disk said, of the file that the system call named, or else of ``path``.

    ``wanted`` is how many bytes there was no room for.
    """
    path = cause.filename if isinstance(cause.filename, str) else path
    reason = os.strerror(cause.errno) if cause.errno else str(cause)
    if cause.errno in _FULL:
        room = f", {wanted} bytes wanted" if wanted else ""
        return StoreFullError(f"cannot {action} {path}: {reason}{room}{_free(path)}", path=path)
    return StoreError(f"cannot {action} {path}: {reason}", path=path)


def _free(path: str) -> str:
    """What is free, for a message; a quota may be less."""
    try:
        room = os.statvfs(os.path.dirname(path))
    except OSError:
        return ""
    return f", {room.f_bavail * room.f_frsize} bytes and {room.f_favail} inodes free"


@contextmanager
def translated(action: str, path: str, *, wanted: int = 0) -> Iterator[None]:
    """Turn an ``OSError`` of the body into ``failure``'s answer."""
    try:
        yield
    except OSError as cause:
        raise failure(cause, action, path, wanted=wanted) from cause


def read(directory: Directory, name: str, limit: int) -> bytes | None:
    """The content of a small regular file; None when there is no such file.

    Raises:
        StoreError: unreadable, no regular file, or larger than ``limit`` bytes.
    """
    path = directory.at(name)
    try:
        fd = directory.open(name, READ)
    except FileNotFoundError:
        return None
    except OSError as cause:
        raise failure(cause, "read", path) from cause
    try:
        with translated("read", path):
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise StoreError(f"{path} is no regular file", path=path)
            if info.st_size > limit:
                raise StoreError(f"{path} has {info.st_size} bytes, more than {limit}", path=path)
            return read_all(fd, info.st_size)
    finally:
        close(fd)


def read_small(directory: Directory, name: str, limit: int) -> bytes | None:
    """As ``read``, with one system call less: for very many files that are small.

    Raises:
        StoreError: unreadable, a directory, or larger than ``limit`` bytes.
    """
    path = directory.at(name)
    try:
        fd = directory.open(name, READ)
    except FileNotFoundError:
        return None
    except OSError as cause:
        raise failure(cause, "read", path) from cause
    try:
        data = os.read(fd, _SMALL)
        if len(data) == _SMALL:
            while (more := os.read(fd, _SMALL)) and len(data) <= limit:
                data += more
    except OSError as cause:
        raise failure(cause, "read", path) from cause
    finally:
        os.close(fd)
    if len(data) > limit:
        raise StoreError(f"{path} has more than {limit} bytes", path=path)
    return data


def read_all(fd: int, size: int) -> bytes:
    """Up to ``size`` bytes from the start of a file: one ``pread`` may give less than it was asked for."""
    pieces = []
    offset = 0
    while offset < size and (piece := os.pread(fd, size - offset, offset)):
        pieces.append(piece)
        offset += len(piece)
    return b"".join(pieces)


def close(fd: int) -> None:
    """Close a file, whatever the disk says: the descriptor is free in any case, and what counts was synced before."""
    with suppress(OSError):
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write everything at the cursor."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def make_directory(parent: Directory, name: str, mode: int) -> bool:
    """Make one directory with exactly this mode, durable in its parent; False when something has that name."""
    try:
        return files.make_directory_at(parent.fd, name, mode)
    except OSError as cause:
        cause.filename = parent.at(name)
        raise


def replace(directory: Directory, name: str, data: bytes, *, temporary: str, mode: int = 0o644) -> None:
    """Give ``name`` new content, durable and at once; the caller holds the lock that guards ``temporary``.

    Under a lock the temporary name can be fixed, and so at most one file is ever left behind.
    """
    with suppress(FileNotFoundError):
        directory.unlink(temporary)
    fd = directory.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        write_all(fd, data)
        os.fchmod(fd, mode)
        os.fsync(fd)
    except BaseException:
        with suppress(OSError):
            directory.unlink(temporary)
        raise
    finally:
        os.close(fd)
    directory.rename(temporary, directory, name)
    directory.sync()
