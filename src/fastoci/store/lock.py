"""Locks between processes and tasks: OFD locks, which the kernel drops when their holder dies.

Whoever may open a lock's file, even for reading, can lock it too, for as long as they like. So the files are for their
owner alone: one with a wider mode is tightened, and since somebody may have it open from before, every wait ends.
Knows no names of the store, translates no errors. Spec: docs/store-format.md 2.
"""

from __future__ import annotations

import os
import random
import stat
import time
from contextlib import suppress
from typing import Final

from fastoci import files
from fastoci.errors import StoreError
from fastoci.store.directory import Directory
from fastoci.store.threads import check

WAIT_S: Final = 60.0  # what is done under a lock that is waited for takes milliseconds, on a slow disk seconds
_PAUSE_S: Final = (0.0005, 0.02)  # between two tries: the first and the longest


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
        fd = directory.open(name, os.O_RDWR | os.O_CREAT)
        try:
            _tighten(fd, directory.at(name))
            if not files.try_lock(fd, byte=byte):
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


def is_held(directory: Directory, name: str, *, byte: int | None = None) -> bool:
    """Whether somebody else holds the lock; takes nothing and makes nothing.

    Raises:
        OSError: the disk refused, other than by the file's absence.
    """
    with suppress(FileNotFoundError):
        # O_NONBLOCK: a FIFO in the file's place must not hang the open.
        fd = directory.open(name, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return files.is_locked(fd, byte=byte)
        finally:
            os.close(fd)
    return False


def _tighten(fd: int, path: str) -> None:
    """Let nobody else open the file from now on."""
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        raise StoreError(f"{path} is no regular file", path=path)
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
        if files.try_lock(fd, byte=byte):
            return
        pause_s = min(2 * pause_s, longest_s)
    raise StoreError(f"{path} was locked by somebody else for {WAIT_S:.0f} s", path=path)
