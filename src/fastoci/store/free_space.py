"""What is free where: bytes and inodes of a file system, as whoever asks may use them.

Blocks reserved for root do not count, also for root. What a quota leaves is the most. Synchronous, for threads.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Final

from fastoci import files
from fastoci.directory import Directory
from fastoci.image.digest import Digest
from fastoci.store import quota
from fastoci.store.layout import Paths

UNLIMITED: Final = sys.maxsize


@dataclass(frozen=True, slots=True)
class Space:
    """A file system, by its device number. ``inodes`` are ``UNLIMITED`` where the file system counts none."""

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
    with files.translated("look for room at", path):
        room = os.statvfs(at)
        device = os.stat(at).st_dev
    inodes = room.f_favail if room.f_files else UNLIMITED  # btrfs makes them as they are needed
    size_left, inodes_left = quota.left(place)
    size = room.f_bavail * room.f_frsize
    return Space(
        device,
        size if size_left is None else min(size, size_left),
        inodes if inodes_left is None else min(inodes, inodes_left),
    )


def allocated(paths: Paths, digest: Digest) -> int:
    """Bytes of disk that the data of an ingest has; 0 when it is not there."""
    try:
        with paths.ingests.enter(digest.hex) as directory:
            return directory.stat("data").st_blocks * 512
    except OSError:
        return 0
