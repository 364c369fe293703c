"""What another boot left unsynced: the boot's id, and the markers of blobs that were named before they were synced.

Only markers of other boots matter, and nobody adds to those: so they are read once. Spec: docs/store-format.md 5.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress

from fastoci.image.digest import Digest


def boot_id() -> str:
    """This boot's id; where the kernel tells none, a new one, so that nobody trusts what is not synced."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return str(uuid.UUID(file.read().decode().strip()))
    except (OSError, ValueError):
        return str(uuid.uuid4())


class Unsynced:
    """The blobs that a power cut may have damaged: those with a marker of another boot. Used from any thread."""

    def __init__(self, directory: str, boot: str) -> None:
        self._markers: dict[str, list[str]] = {}  # name of a marker -> its paths, one a boot
        self._condemned: set[str] = set()
        for other in _names(directory):
            if other != boot:
                for name in _names(f"{directory}/{other}"):
                    self._markers.setdefault(name, []).append(f"{directory}/{other}/{name}")

    def distrusts(self, digest: Digest) -> bool:
        """Whether the blob counts as absent until it is hashed again or replaced."""
        if not self._markers and not self._condemned:
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

    def clear(self, digest: Digest) -> None:
        """Forget the markers of a blob that has just been verified and synced."""
        self._condemned.discard(_name(digest))
        for path in self._markers.pop(_name(digest), ()):
            with suppress(FileNotFoundError):
                os.unlink(path)
            with suppress(OSError):  # not empty: the boot has other markers
                os.rmdir(os.path.dirname(path))


def _name(digest: Digest) -> str:
    return f"{digest.algorithm}-{digest.hex}"


def _names(directory: str) -> list[str]:
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.listdir(directory)
    return []
