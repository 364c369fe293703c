"""Locks between processes and tasks: OFD locks, which the kernel drops when their holder dies.

Knows no names of the store, translates no errors. Spec: docs/store-format.md 2.
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from typing import Final

_FLOCK: Final = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, pid


def acquire(path: str, *, wait: bool, byte: int | None = None) -> int | None:
    """Lock a file, made when absent; closing the descriptor returned lets go of it.

    The holder may unlink the file before it lets go: so the lock counts only when ``path`` still leads to the file
    that was locked.

    Args:
        wait: block this thread until the lock is free; otherwise answer None when it is not.
        byte: lock this one byte, which need not exist, instead of the whole file.
    Raises:
        FileNotFoundError: the directory is not there.
        OSError: the disk refused.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if not _lock(fd, wait=wait, byte=byte):
                os.close(fd)
                return None
            if _is_at(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def is_held(path: str, *, byte: int | None = None) -> bool:
    """Whether somebody else holds the lock; takes nothing and makes nothing.

    Raises:
        OSError: the disk refused, other than by the file's absence.
    """
    with suppress(FileNotFoundError):
        # O_NONBLOCK: a FIFO in the file's place must not hang the open.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _wanted(byte))
        finally:
            os.close(fd)
        return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
    return False


def _wanted(byte: int | None) -> bytes:
    """A write lock on the whole file or one byte, and no pid, as OFD locks demand."""
    start, length = (0, 0) if byte is None else (byte, 1)
    return struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)


def _lock(fd: int, *, wait: bool, byte: int | None) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, _wanted(byte))
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: POSIX allows both for "held by another"
        return False
    return True


def _is_at(fd: int, path: str) -> bool:
    try:
        named = os.lstat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(fd))
