"""What is not synced: the boot's id, and the markers of blobs that were named before their data was synced.

Of other boots only what is there when the store is opened matters: nobody adds to those markers, so they are read once.
Spec: docs/store-format.md 5.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from fastoci.image.digest import Digest
from fastoci.store import disk

_MARKER: Final = re.compile(r"sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128}")


def boot_id() -> str:
    """This boot's id; where the kernel tells none, a new one, so that nobody trusts what is not synced."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return str(uuid.UUID(file.read().decode().strip()))
    except (OSError, ValueError):
        return str(uuid.uuid4())


class Unsynced:
    """The blobs that a power cut may have damaged, or would: those with a marker. Used from any thread.

    Args:
        directory: the store's ``unsynced``.
        boot: this boot's id.
    Raises:
        StoreError: the markers cannot be listed.
    """

    def __init__(self, directory: str, boot: str) -> None:
        self._directory = directory
        self._own = f"{directory}/{boot}"
        self._guard = threading.Lock()
        self._durable: set[str] = set()  # own markers that this process has synced
        self._markers: dict[str, list[str]] = {}  # name of a marker -> its paths, one a boot, this one left out
        self._condemned: set[str] = set()
        for other in _names(directory):
            if other != boot and _is_directory(f"{directory}/{other}"):
                for name in filter(_MARKER.fullmatch, _names(f"{directory}/{other}")):
                    self._markers.setdefault(name, []).append(f"{directory}/{other}/{name}")

    def trusts_all(self) -> bool:
        """Whether ``distrusts`` says no of every blob."""
        return not self._markers and not self._condemned

    def distrusts(self, digest: Digest) -> bool:
        """Whether the blob counts as absent until it is hashed again or replaced."""
        if self.trusts_all():
            return False
        if self.condemns(digest):
            return True
        paths = self._markers.get(_name(digest))
        return paths is not None and any(os.path.lexists(path) for path in paths)

    def condemn(self, digest: Digest) -> None:
        """Count the blob as absent, wherever it is, until it is replaced: it was hashed and found bad."""
        self._condemned.add(_name(digest))

    def condemns(self, digest: Digest) -> bool:
        """Whether the blob was found bad in this process."""
        return bool(self._condemned) and _name(digest) in self._condemned

    def mark(self, digests: Iterable[Digest]) -> None:
        """Say, durably, that these blobs are about to get their names unsynced: one sync for all of them.

        Raises:
            OSError: the disk refused.
        """
        with self._guard:
            names = [_name(digest) for digest in digests]
            new = [name for name in names if name not in self._durable or not os.path.lexists(f"{self._own}/{name}")]
            if not new:
                return
            for directory in (self._directory, self._own):
                # One that is there may be of a process that was killed before it synced the name.
                if not disk.make_directory(directory, 0o755) and not self._durable:
                    disk.sync_directory(os.path.dirname(directory))
            for name in new:
                path = f"{self._own}/{name}"
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
                try:
                    os.fchmod(fd, 0o644)  # open's is cut by the umask
                finally:
                    os.close(fd)
            disk.sync_directory(self._own)
            self._durable.update(new)

    def clear(self, digest: Digest) -> None:
        """Forget all markers of a blob that has just been verified and synced."""
        self.clear_others(digest)
        with suppress(FileNotFoundError):
            os.unlink(f"{self._own}/{_name(digest)}")

    def clear_others(self, digest: Digest) -> None:
        """Forget the markers of other boots: the blob was replaced, and is marked as of this one."""
        self._condemned.discard(_name(digest))
        for path in self._markers.pop(_name(digest), ()):
            with suppress(FileNotFoundError):
                os.unlink(path)
            with suppress(OSError):  # not empty: the boot has other markers
                os.rmdir(os.path.dirname(path))

    def others(self) -> list[tuple[str, str]]:
        """The markers of other boots, as (name of the blob: ``ALGORITHM-HEX``, path)."""
        return [(name, path) for name, paths in self._markers.items() for path in paths]


def _name(digest: Digest) -> str:
    return f"{digest.algorithm}-{digest.hex}"


def _is_directory(path: str) -> bool:
    """Not through a symbolic link: markers are deleted, and what it leads to is not the store's."""
    with suppress(FileNotFoundError):
        return stat.S_ISDIR(os.lstat(path).st_mode)
    return False


def _names(directory: str) -> list[str]:
    with disk.translated("list", directory), suppress(FileNotFoundError, NotADirectoryError):
        return os.listdir(directory)
    return []
