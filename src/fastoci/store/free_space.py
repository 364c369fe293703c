"""What is free where: bytes and inodes of a file system, as whoever asks may use them.

Blocks reserved for root do not count, also for root. What the quota of a user or group leaves is the most; quotas of
projects are not asked for, since ``statvfs`` shows them. Synchronous, for threads. Spec: quotactl(2), linux/quota.h.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from typing import Final

import msgspec

from fastoci import files
from fastoci.directory import Directory
from fastoci.image.digest import Digest
from fastoci.store.layout import StoreLayout

UNLIMITED: Final = sys.maxsize

_SYSCALL: Final = 443  # quotactl_fd, on every architecture since Linux 5.14
_GET: Final = 0x800007 << 8  # Q_GETQUOTA; the kind of quota is in the lowest byte
_USER, _GROUP = 0, 1
_QUOTA: Final = struct.Struct("=8Q2I")  # struct if_dqblk and its padding
_BLOCK: Final = 1024  # bytes, the unit of a limit
_BLOCK_LIMITS, _SPACE, _INODE_LIMITS, _INODES = 1, 2, 4, 8  # which fields count

Ask = Callable[[int, int, int], bytes | None]


class Space(msgspec.Struct, frozen=True):
    """A file system, by its device number. What it does not count is ``UNLIMITED``."""

    device: int
    size: int  # bytes
    inodes: int


def space(place: str | Directory) -> Space:
    """What is free in a directory, or where a path is or will be: then of its nearest parent.

    Raises:
        StoreError: the disk refused to tell.
    """
    while isinstance(place, str) and not os.path.lexists(place):
        place = os.path.dirname(place) or "."
    path, at = (place, place) if isinstance(place, str) else (place.path, place.fd)
    with files.translated("ask for free space at", path):
        found = os.statvfs(at)
        device = os.stat(at).st_dev
    inodes = found.f_favail if found.f_files else UNLIMITED  # btrfs makes them as they are needed
    size_left, inodes_left = quota_left(place)
    # ramfs and many network file systems have no end that they know of.
    size = found.f_bavail * found.f_frsize if found.f_blocks else UNLIMITED
    return Space(
        device,
        size if size_left is None else min(size, size_left),
        inodes if inodes_left is None else min(inodes, inodes_left),
    )


def capacity(place: Directory) -> int:
    """Bytes of the file system of a directory, used or not; 0 where it counts none.

    Raises:
        StoreError: the disk refused to tell.
    """
    with files.translated("ask for the size of the disk at", place.path):
        found = os.statvfs(place.fd)
    return found.f_blocks * found.f_frsize


def allocated(paths: StoreLayout, digest: Digest) -> int:
    """Bytes of disk that the data of an ingest has; 0 when it is not there."""
    try:
        with paths.ingests.enter(digest.hex) as directory:
            return directory.stat("data").st_blocks * 512
    except OSError:
        return 0


def quota_left(place: str | Directory, *, ask: Ask | None = None) -> tuple[int | None, int | None]:
    """The bytes and inodes that quotas leave to this process in a place; None is no limit, or an unknown one.

    Root, whom no quota stops, has none.

    Args:
        ask: the kernel's answer to (descriptor, command, id), None for none.
    """
    if os.geteuid() == 0:
        return None, None
    ask = ask or _kernel
    try:
        path, parent = (place, None) if isinstance(place, str) else (".", place.fd)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    except OSError:
        return None, None
    try:
        answers = [ask(fd, _GET | kind, who) for kind, who in ((_USER, os.geteuid()), (_GROUP, os.getegid()))]
    finally:
        files.close(fd)
    each = [_left(answer) for answer in answers if answer is not None]
    return _least([size for size, _ in each]), _least([inodes for _, inodes in each])


def _left(answer: bytes) -> tuple[int | None, int | None]:
    hard, soft, used, inode_hard, inode_soft, inodes, _, _, valid, _ = _QUOTA.unpack(answer)
    size = _BLOCK * (hard or soft) if valid & _BLOCK_LIMITS and valid & _SPACE else 0
    most = inode_hard or inode_soft if valid & _INODE_LIMITS and valid & _INODES else 0
    return max(0, size - used) if size else None, max(0, most - inodes) if most else None


def _least(limits: list[int | None]) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _kernel(fd: int, command: int, who: int) -> bytes | None:
    import ctypes

    answer = ctypes.create_string_buffer(_QUOTA.size)
    done = ctypes.CDLL(None).syscall(
        ctypes.c_long(_SYSCALL), ctypes.c_uint(fd), ctypes.c_uint(command), ctypes.c_int(who), answer
    )
    return answer.raw if done == 0 else None
