"""Files below a held directory, read and replaced: durable at once, and refused with a typed error.

A name below a held descriptor is opened with ``O_NOFOLLOW`` and checked by ``fstat`` before it is trusted. Names are
single components. The one place where an ``OSError`` of the disk becomes a ``StoreError``: what takes a ``Directory``
says in full which file it is of. Knows no names of the store. Spec: openat(2); docs/store-format.md 2.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import select
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from fastoci.directory import Directory
from fastoci.errors import StoreError, StoreFullError

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO in place of a file must not hang the open; it changes nothing for a regular file.
READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
CHANGE: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
LOST_AND_FOUND: Final = "lost+found"  # of the file system itself, in the root of a new one
PIPE_S: Final = 5.0  # that a pipe may take to bring a configuration file
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NAME_MAX: Final = 255  # bytes of a name, on nearly every file system
_DIGITS: Final = 32  # of a hash
_SMALL: Final = 64 << 10  # bytes: one read gets nearly every manifest whole
_CHUNK: Final = 32 << 20  # bytes of one copy, which nothing can stop
_NO_COPY: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


def failure(cause: OSError, action: str, path: str, *, wanted: int = 0) -> StoreError:
    """The typed error for what the disk said, of the file that the system call named in full, or else of ``path``.

    Args:
        wanted: bytes that there was no space for.
    """
    name = cause.filename
    path = name if isinstance(name, str) and name.startswith("/") else path
    reason = os.strerror(cause.errno) if cause.errno else str(cause)
    error = StoreError(f"cannot {action} {path}: {reason}", path=path)
    if cause.errno in _FULL:
        more = f", {wanted} bytes wanted" if wanted else ""
        error = StoreFullError(f"{error.message}{more}{_free(path)}", path=path)
    error.errno = cause.errno
    return error


def _free(path: str) -> str:
    """What is free, for a message; a quota may be less."""
    try:
        space = os.statvfs(os.path.dirname(path))
    except OSError:
        return ""
    return f", {space.f_bavail * space.f_frsize} bytes and {space.f_favail} inodes free"


@contextmanager
def translated(action: str, path: str, *, wanted: int = 0) -> Iterator[None]:
    """Turn an ``OSError`` of the body into ``failure``'s answer.

    Raises:
        StoreError: instead of it; ``StoreFullError`` when space, inodes or a quota are used up.
    """
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
    fd = _open_to_read(directory, name, path)
    if fd is None:
        return None
    try:
        with translated("read", path):
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise StoreError(f"{path} is not a regular file", path=path)
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
    fd = _open_to_read(directory, name, path)
    if fd is None:
        return None
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


def _open_to_read(directory: Directory, name: str, path: str) -> int | None:
    try:
        return directory.open(name, READ)
    except FileNotFoundError:
        return None
    except OSError as cause:
        raise failure(cause, "read", path) from cause


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


def copy_all(source: int, fd: int, size: int, check: Callable[[], None]) -> None:
    """Copy an open file of ``size`` bytes into an empty one.

    Args:
        check: called now and then; what it raises ends the copy.
    Raises:
        OSError: the disk refused, or the file has fewer bytes.
    """
    offset, copied = 0, 1
    while copied and offset < size:
        check()
        copied = _copy_some(source, fd, offset, min(size - offset, _CHUNK))
        offset += copied
    if offset != size:
        raise OSError(errno.EIO, f"a file of {size} bytes ends after {offset}")


def _copy_some(source: int, fd: int, offset: int, count: int) -> int:
    try:
        return os.copy_file_range(source, fd, count, offset, offset)
    except OSError as error:
        if error.errno not in _NO_COPY:
            raise
    os.lseek(fd, offset, os.SEEK_SET)  # sendfile writes at the cursor
    return os.sendfile(fd, source, offset, count)


def link_open_at(fd: int, directory: int, name: str) -> None:
    """Give an open file one more name, whatever its own leads to by now: linkat(2) describes this use of /proc.

    Raises:
        OSError: the disk refused; ``FileExistsError``: something has the name.
    """
    os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=directory, follow_symlinks=True)


def fitted(name: str, added: int) -> str:
    """A name to which so many bytes are added: when both do not fit a file system, its end becomes digits of its hash.

    Another name is never fitted to the same.
    """
    data = os.fsencode(name)
    room = _NAME_MAX - added
    if len(data) <= room:
        return name
    digits = b"-" + hashlib.sha256(data).hexdigest()[:_DIGITS].encode()
    return os.fsdecode(data[: room - len(digits)] + digits)


def make_directory(parent: Directory, name: str, mode: int) -> bool:
    """Make one directory with exactly this mode, durable in its parent; False when something has that name."""
    try:
        return make_directory_at(parent.fd, name, mode)
    except OSError as cause:
        cause.filename = parent.at(name)
        raise


def replace(directory: Directory, name: str, data: bytes, *, temporary: str, mode: int = 0o644) -> None:
    """``replace_at`` by the holder of the lock that guards ``temporary``: so at most one file is ever left behind."""
    try:
        replace_at(directory.fd, name, data, temporary=temporary, mode=mode)
    except OSError as cause:
        cause.filename = directory.at(name)
        raise


def held_size(info: os.stat_result) -> int:
    """Bytes of a file, holes left out: one that grows may have memory far behind its end (``csrc/erofs/arena.c``)."""
    return min(info.st_size, info.st_blocks * 512)


def read_start(path: Path, size: int) -> bytes:
    """Up to ``size`` bytes from the start of a file that is only read; of a pipe, what somebody writes to it.

    Never waits in ``open`` or ``read``: neither can be interrupted on a thread, and a pipe may have no writer for ever.

    Raises:
        OSError: it is not there, or cannot be read; ``TimeoutError`` of a pipe that has not ended after ``PIPE_S``.
    """
    until = time.monotonic() + PIPE_S
    data = b""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        ready = select.poll()
        ready.register(fd, select.POLLIN)
        while len(data) < size:
            if not ready.poll(max(0.0, until - time.monotonic()) * 1000):
                raise TimeoutError(errno.ETIMEDOUT, f"this pipe has not ended after {PIPE_S:.0f} s", str(path))
            piece = os.read(fd, size - len(data))
            if not piece:
                break
            data += piece
        return data
    finally:
        os.close(fd)


def open_directory_at(parent: int, name: str) -> int:
    """Open a directory for reading, no symbolic link.

    Raises:
        OSError: ``NotADirectoryError`` for whatever else has that name.
    """
    return os.open(name, DIRECTORY, dir_fd=parent)


def open_file_at(parent: int, name: str) -> int:
    """Open a regular file for reading, no symbolic link.

    Raises:
        OSError: it is absent, or is none.
    """
    fd = os.open(name, READ, dir_fd=parent)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "is not a regular file", name)


def nameless_at(parent: int) -> int:
    """Open a file for reading and writing that has no name, in a directory that is this user's alone.

    Raises:
        OSError: the disk refused.
    """
    try:
        return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
    name = f"nameless-{secrets.token_hex(8)}"
    fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=parent)
    os.unlink(name, dir_fd=parent)
    return fd


def is_at(fd: int, parent: int, name: str) -> bool:
    """Whether a name leads to an open file.

    Raises:
        OSError: the disk refused to tell.
    """
    try:
        named = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(fd))


def make_directory_at(parent: int, name: str, mode: int, *, exact: bool = True) -> bool:
    """Make a directory, durable in its parent; False when something has that name.

    Args:
        exact: this mode whatever the umask; not for what others have put there meanwhile.
    Raises:
        OSError: the disk refused.
    """
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        return False
    if exact:
        fd = open_directory_at(parent, name)
        try:
            if os.fstat(fd).st_uid == os.geteuid() and not os.listdir(fd):
                os.fchmod(fd, mode)
        finally:
            os.close(fd)
    sync_directory(parent)
    return True


def sync_directory(directory: int) -> None:
    """Make the names in a directory durable; its descriptor may be one of ``O_PATH``.

    Raises:
        OSError: the disk refused.
    """
    fd = os.open(".", DIRECTORY, dir_fd=directory)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_at(
    parent: int, name: str, data: bytes, *, temporary: str, mode: int = 0o644, owner: tuple[int, int] | None = None
) -> None:
    """Give a file new content, durable and at once; whoever opens it has the old one or the new one.

    Args:
        temporary: a name that is this caller's alone, by a lock or because it is random; a file that has it is removed.
        owner: user and group of the file, as far as this process may give it away; None for its own.
    Raises:
        OSError: the disk refused; the old file is as it was.
    """
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=parent)
    fd = os.open(temporary, CREATE, 0o600, dir_fd=parent)
    try:
        write_all(fd, data)
        if owner is not None:
            with suppress(PermissionError):
                os.fchown(fd, *owner)
        os.fchmod(fd, mode)
        os.fsync(fd)
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=parent)
        raise
    finally:
        os.close(fd)
    sync_directory(parent)
