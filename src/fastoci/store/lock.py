"""Locks between processes and tasks: OFD locks, which the kernel drops when their holder dies.

Knows no names of the store, translates no errors. Spec: docs/store-format.md 2.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

# struct flock of 64-bit Linux: a write lock on the whole file, and no pid, as OFD locks demand.
_WHOLE_FILE: Final = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def acquire(path: str, *, wait: bool) -> int | None:
    """Lock a file, made when absent; closing the descriptor returned lets go of it.

    The holder may unlink the file before it lets go: so the lock counts only when ``path`` still leads to the file
    that was locked.

    Args:
        wait: block this thread until the lock is free; otherwise answer None when it is not.
    Raises:
        FileNotFoundError: the directory is not there.
        OSError: the disk refused.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if not _lock(fd, wait=wait):
                os.close(fd)
                return None
            if _is_at(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _lock(fd: int, *, wait: bool) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, _WHOLE_FILE)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: POSIX allows both for "held by another"
        return False
    return True


def _is_at(fd: int, path: str) -> bool:
    try:
        named = os.lstat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(fd))
