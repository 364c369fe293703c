"""Locks between processes: OFD write locks, which the kernel drops when their holder dies.

An ``flock`` needs no more than a descriptor, and a read lock no more than permission to read: other users could hold
either for ever. So the locks are write locks, on files that only their owner may open: one with a wider mode is
tightened, and since somebody may have it open from before, every wait ends.
Knows no names of the store, translates no errors.
Spec: fcntl(2), "Open file description locks"; docs/store-format.md 2.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from fastoci import files
from fastoci.directory import Directory
from fastoci.errors import StoreBusyError, StoreError
from fastoci.threads import check

WAIT_S: Final = 60.0  # what is done under a lock that is waited for takes milliseconds, on a slow disk seconds
_PAUSE_S: Final = (0.0005, 0.02)  # between two tries: the first and the longest
_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FLOCK: Final = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, pid


def acquire(directory: Directory, name: str, *, wait: bool, byte: int | None = None) -> int | None:
    """Lock a file, made when absent; closing the descriptor returned lets go of it.

    The holder may unlink the file before it lets go: so the lock counts only when ``name`` still leads to the file
    that was locked.

    Args:
        wait: keep this thread until the lock is free, for ``WAIT_S`` at most; otherwise answer None when it is not.
        byte: lock this one byte, which need not exist, instead of the whole file.
    Raises:
        FileNotFoundError: the directory is not there.
        OSError: the disk refused.
        StoreError: the file is none that can be trusted as a lock, or somebody else has had the lock for too long.
    """
    until = time.monotonic() + WAIT_S if wait else None
    while True:
        fd = directory.open(name, files.CHANGE)
        try:
            _tighten(fd, directory.at(name))
            if not try_lock(fd, byte=byte):
                if until is None:
                    os.close(fd)
                    return None
                _wait(fd, byte, until, directory.at(name))
            if files.is_at(fd, directory.fd, name):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def open_to_lock(directory: Directory, name: str) -> int:
    """Open a file that is never deleted, made when absent, to lock bytes of it.

    Raises:
        OSError: the disk refused.
        StoreError: the file is none that can be trusted as a lock.
    """
    fd = directory.open(name, files.CHANGE)
    try:
        _tighten(fd, directory.at(name))
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_held(directory: Directory, name: str, *, byte: int | None = None) -> bool:
    """Whether somebody else holds the lock; takes nothing and makes nothing.

    Raises:
        OSError: the disk refused, other than by the file's absence.
    """
    with suppress(FileNotFoundError):
        fd = directory.open(name, files.READ)
        try:
            return is_locked(fd, byte=byte)
        finally:
            os.close(fd)
    return False


def holders(directory: Directory, name: str, *, byte: int | None = None) -> tuple[int, ...]:
    """The processes that hold the lock, as far as this one may see them; in no hurry, for an error.

    Args:
        byte: which of the file's bytes, when it has locks of its own for each.

    Spec: proc_pid_fdinfo(5), "lock".
    """
    found = []
    with suppress(OSError):
        info = directory.stat(name)
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            if _holds(pid, info, byte):
                found.append(int(pid))
    return tuple(sorted(found))


def _holds(pid: str, info: os.stat_result, byte: int | None) -> bool:
    with suppress(OSError):  # gone by now, or another user's
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                open_file = os.stat(f"/proc/{pid}/fd/{number}")
                if (open_file.st_dev, open_file.st_ino) == (info.st_dev, info.st_ino):
                    with open(f"/proc/{pid}/fdinfo/{number}") as lines:
                        if any(_covers(line, byte) for line in lines):
                            return True
    return False


def _covers(line: str, byte: int | None) -> bool:
    """Whether a line of ``fdinfo`` is of a lock, on the whole file or on a byte."""
    if not line.startswith("lock:"):
        return False
    return byte is None or line.split()[-2:] == [str(byte), str(byte)]


def _tighten(fd: int, path: str) -> None:
    """Let nobody else open the file from now on."""
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        raise StoreError(f"{path} is not a regular file", path=path)
    if info.st_uid not in (0, os.geteuid()):
        raise StoreError(f"{path} belongs to user {info.st_uid}, who could hold the lock for ever", path=path)
    if stat.S_IMODE(info.st_mode) != 0o600:
        os.fchmod(fd, 0o600)


def _wait(fd: int, byte: int | None, until: float, path: str) -> None:
    """Lock by trying again and again: the kernel's own wait would have no end."""
    pause_s, longest_s = _PAUSE_S
    while time.monotonic() < until:
        check()
        time.sleep(pause_s * random.uniform(0.5, 1.5))
        if try_lock(fd, byte=byte):
            return
        pause_s = min(2 * pause_s, longest_s)
    raise StoreError(f"{path} was locked by somebody else for {WAIT_S:.0f} s", path=path)


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
                raise OSError(errno.EINVAL, "is not a regular file", name)
            if not try_lock(fd):
                os.close(fd)
                return None
            if files.is_at(fd, parent, name):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


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
