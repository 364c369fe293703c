"""What is free where: bytes and inodes of a file system, as whoever asks may use them.

Blocks reserved for root do not count, also for root. What a quota leaves is the most. Synchronous, for threads.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Final

from fastoci.store import disk, quota

UNLIMITED: Final = sys.maxsize


@dataclass(frozen=True, slots=True)
class Space:
    """A file system, by its device number. ``inodes`` are ``UNLIMITED`` where the file system counts none."""

    device: int
    size: int  # bytes
    inodes: int


def space(path: str) -> Space:
    """What is free where ``path`` is, or will be: then of its nearest parent.

    Raises:
        StoreError: the disk refused to tell.
    """
    while not os.path.lexists(path):
        path = os.path.dirname(path) or "."
    with disk.translated("look for room at", path):
        room = os.statvfs(path)
        device = os.stat(path).st_dev
    inodes = room.f_favail if room.f_files else UNLIMITED  # btrfs makes them as they are needed
    size_left, inodes_left = quota.left(path)
    size = room.f_bavail * room.f_frsize
    return Space(
        device,
        size if size_left is None else min(size, size_left),
        inodes if inodes_left is None else min(inodes, inodes_left),
    )


def allocated(path: str) -> int:
    """Bytes of disk that a file has; 0 when it is not there."""
    try:
        return os.lstat(path).st_blocks * 512
    except OSError:
        return 0
