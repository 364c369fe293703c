"""Directories that a user named, opened once; all below them by descriptors and single names.

A path is read by the kernel anew in each call, and whoever can write to a directory on it can lead the next call
elsewhere: to another user's files, with this process's rights. So:

1. ``open_directory`` and ``open_parent`` are the only ways from a path to a directory that is written to. What they
   return is held, and nothing below it is ever named by a path again.
2. They walk by ``O_NOFOLLOW``, one name at a time. A symbolic link is followed when only root or this user could have
   put it there; others are refused. ``..`` is the directory that the walk came through, wherever its child is by now.
3. A name below a held descriptor is opened with ``O_NOFOLLOW`` and looked at by ``fstat`` before it is trusted.
4. Locks are OFD write locks on files that only their owner may open. An ``flock`` needs no more than a descriptor, and
   a read lock no more than permission to read: other users could hold either for ever.

Names are single components, paths are absolute: threads of this process may have another working directory.
Failures of the disk are ``OSError``, for the caller to translate. Spec: openat(2), path_resolution(7), fcntl(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from fastoci.errors import StoreBusyError, StoreError

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO in a file's place must not hang the open; it changes nothing for a regular file.
READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # O_DIRECTORY: automounts are mounted
_LINK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS: Final = 40  # on one way, as in the kernel
PIPE_S: Final = 5.0  # that a pipe may take to bring a configuration file
_FLOCK: Final = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, pid


def absolute(path: str | os.PathLike[str]) -> Path:
    """The path from the root, by the working directory of now and of this thread; ``..`` and links stay in it.

    To be called where a path comes in, before it goes to another thread.

    Raises:
        StoreError: it has a zero byte, or what no file name can have; or it is relative, and the working directory
            has been removed.
    """
    try:
        if b"\0" in os.fsencode(path):
            raise StoreError(f"{path!r} is no path: it has a zero byte", path=repr(path))
    except UnicodeEncodeError as error:
        raise StoreError(f"{path!r} is no path: {error.reason}", path=repr(path)) from error
    try:
        return Path(path).absolute()
    except FileNotFoundError as error:
        raise StoreError(f"{path}: the working directory has been removed", path=str(path)) from error


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


def open_directory(path: Path, *, make: int | None = None, exact: bool = False) -> int:
    """Open a directory for reading, and as the place of all that is done in it.

    Args:
        path: absolute.
        make: the mode of what is missing on the way, each made durable; None makes nothing.
        exact: that mode whatever the umask.
    Raises:
        OSError: it is not there, or is no directory; the disk refused.
        StoreError: a symbolic link on the way is another user's.
    """
    with closing(_Walk(path, make, exact)) as walk:
        walk.go()
        return os.open(".", DIRECTORY, dir_fd=walk.fd)


def open_parent(path: Path, *, make: int | None = None, exact: bool = False, follow: bool = False) -> tuple[int, str]:
    """Open the directory that a path's last name is in, whether there is such a name or not; both.

    A directory that may not be listed is opened by ``O_PATH``.

    Args:
        path, make, exact: as in ``open_directory``; the last name is not made.
        follow: when the last name is a symbolic link, go on to what it leads to.
    Raises:
        OSError: a directory is not there, or the path ends in no name; the disk refused.
        StoreError: a symbolic link on the way is another user's.
    """
    with closing(_Walk(path, make, exact)) as walk:
        name = walk.go_to_last(follow)
        try:
            return os.open(".", DIRECTORY, dir_fd=walk.fd), name
        except PermissionError:  # may be passed through, and not listed
            return os.open(".", _STEP, dir_fd=walk.fd), name


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
    raise OSError(errno.EINVAL, "is no regular file", name)


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
        temporary: a name that is this caller's alone, by a lock or by chance; what has it is removed.
        owner: user and group of the file, as far as this process may give it away; None for its own.
    Raises:
        OSError: the disk refused; the old file is as it was.
    """
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=parent)
    fd = os.open(temporary, CREATE, 0o600, dir_fd=parent)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
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


def lock_at(parent: int, name: str) -> int | None:
    """Lock a file, made when absent and for its owner only; None when somebody else has it locked.

    Closing the descriptor lets go of it. The holder may unlink the file first: a lock counts only when the name still
    leads to the file that was locked.

    Raises:
        OSError: no regular file, or the disk refused.
    """
    while True:
        fd = os.open(name, _LOCK, 0o600, dir_fd=parent)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "is no regular file", name)
            if not try_lock(fd):
                os.close(fd)
                return None
            if is_at(fd, parent, name):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def try_lock(fd: int, *, byte: int | None = None) -> bool:
    """Take an OFD write lock on a file that is open for writing; False when somebody else has one.

    Args:
        byte: lock this one byte, which need not exist, instead of the whole file.
    Raises:
        OSError: the disk refused.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _write_lock(byte))
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: POSIX allows both for "held by another"
        return False
    return True


def is_locked(fd: int, *, byte: int | None = None) -> bool:
    """Whether somebody else has a lock on an open file, or on one byte of it; takes none.

    Raises:
        OSError: the disk refused.
    """
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _write_lock(byte))
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)


def _write_lock(byte: int | None) -> bytes:
    """On the whole file or one byte, with no pid, as OFD locks demand."""
    start, length = (0, 0) if byte is None else (byte, 1)
    return struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)


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


@contextmanager
def locked_at(parent: int, name: str, path: str) -> Iterator[None]:
    """Hold the lock of a file that is there only while it is held.

    Args:
        path: of the file, for the message.
    Raises:
        StoreBusyError: another process holds it. To be tried again, for a time, where waiting can be ended.
        OSError: as ``lock_at``.
    """
    fd = lock_at(parent, name)
    if fd is None:
        raise StoreBusyError(f"{path} is locked by another process (fuser {path} shows which)", path=path)
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(name, dir_fd=parent)
        os.close(fd)


class _Walk:
    """A way from the root to a directory. Holds every directory on it, for ``..``."""

    def __init__(self, path: Path, make: int | None, exact: bool) -> None:
        if not path.is_absolute():
            raise ValueError(f"{path} is relative")
        self._path = path
        self._make = make
        self._exact = exact
        self._ahead = list(reversed(path.parts[1:]))
        self._links = 0
        self._way: list[tuple[int, str]] = [(os.open("/", _STEP), "")]

    @property
    def fd(self) -> int:
        """The directory that was reached."""
        return self._way[-1][0]

    def close(self) -> None:
        while self._way:
            os.close(self._way.pop()[0])

    def go(self) -> None:
        """Go to the end."""
        while self._ahead:
            self._step(self._ahead.pop())

    def go_to_last(self, follow: bool) -> str:
        """Go to where the last name is; the name."""
        while self._ahead:
            name = self._ahead.pop()
            if self._ahead or name == "..":
                self._step(name)
            elif not (follow and self._is_link(name)):
                return name
            else:
                self._follow(name)
        raise OSError(errno.EINVAL, "ends in no name", str(self._path))

    def _step(self, name: str) -> None:
        if name == "..":
            if len(self._way) > 1:
                os.close(self._way.pop()[0])
            else:  # of the root, which is its own; or of where the kernel led
                self._jump(os.open("..", _STEP, dir_fd=self.fd), "..")
            return
        try:
            self._enter(name)
        except FileNotFoundError:
            if self._make is None:
                raise
            make_directory_at(self.fd, name, self._make, exact=self._exact)
            self._enter(name)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP) or not self._is_link(name):
                raise
            self._follow(name)

    def _enter(self, name: str) -> None:
        self._way.append((os.open(name, _STEP, dir_fd=self.fd), name))

    def _jump(self, fd: int, name: str) -> None:
        self.close()
        self._way = [(fd, name)]

    def _is_link(self, name: str) -> bool:
        try:
            return stat.S_ISLNK(os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False

    def _follow(self, name: str) -> None:
        self._links += 1
        if self._links > _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(self._path))
        link = os.open(name, _LINK, dir_fd=self.fd)
        try:
            info = os.fstat(link)
            self._demand_own(info, name)
            if _is_in_proc(info):  # /proc/1/root has a text that means another directory
                self._jump(os.open(name, _STEP & ~os.O_NOFOLLOW, dir_fd=self.fd), name)
                return
            text = os.readlink("", dir_fd=link)
        finally:
            os.close(link)
        if text.startswith("/"):
            self._jump(os.open("/", _STEP), "")
        self._ahead += reversed([part for part in text.split("/") if part not in ("", ".")])

    def _demand_own(self, link: os.stat_result, name: str) -> None:
        """Refuse a symbolic link that another user made, or could have moved here.

        In directories that a group may write to, also one with several names: some systems let users add names to
        links of others. The owner of the root directory counts as root, who in a user namespace has another number.
        """
        directory = os.fstat(self.fd)
        own = {0, os.geteuid(), os.stat("/").st_uid}
        shared = directory.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if link.st_uid not in own:
            who = f"belongs to user {link.st_uid}"
        elif directory.st_uid not in own:
            who = f"is in a directory of user {directory.st_uid}"
        elif directory.st_mode & stat.S_IWOTH and not directory.st_mode & stat.S_ISVTX:
            who = "is in a directory that everyone can write to"
        elif shared and link.st_nlink > 1:
            who = "has several names, and is in a directory that others can write to"
        else:
            return
        path = "/".join([*(name for _, name in self._way), name]) or "/"
        real = os.path.realpath(self._path)
        raise StoreError(f"{path}: this symbolic link {who}, it is not followed: give the real path, {real}", path=path)


def _is_in_proc(info: os.stat_result) -> bool:
    try:
        return os.stat("/proc/self").st_dev == info.st_dev
    except FileNotFoundError:
        return False
