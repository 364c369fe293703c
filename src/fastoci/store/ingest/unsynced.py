"""What is not synced: the markers of blobs that were named before their data was synced.

Of other boots only what is there when the store is opened matters: nobody adds to those markers, so they are read once.
Spec: docs/store-format.md 5.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from fastoci import files
from fastoci.directory import Directory
from fastoci.image.digest import HEX_DIGITS, Digest
from fastoci.store.layout import StoreLayout

_NAME: Final = "unsynced"
_CORRUPT: Final = "corrupt"  # no boot's: of blobs that were hashed and found bad
_MARKER: Final = re.compile("|".join(f"{algorithm}-[0-9a-f]{{{digits}}}" for algorithm, digits in HEX_DIGITS.items()))


class Unsynced:
    """The blobs that a power cut may have damaged, or would: those with a marker. Used from any thread.

    Args:
        boot: this boot's id.
    Raises:
        StoreError: the markers cannot be listed.
    """

    def __init__(self, paths: StoreLayout, boot: str) -> None:
        self._paths = paths
        self._boot = boot
        self._guard = threading.Lock()
        self._durable: set[str] = set()  # own markers that this process has synced
        self._markers: dict[str, list[str]] = {}  # name of a marker -> the boots that have it, this one left out
        self._treated_as_absent: set[str] = set()
        with files.translated("list", f"{paths.root}/{_NAME}"), suppress(FileNotFoundError):
            for other in paths.directory(_NAME).names():
                if other != boot:
                    self._learn(other)

    def trusts_all(self) -> bool:
        """Whether ``distrusts`` says no of every blob."""
        return not self._markers and not self._treated_as_absent

    def distrusts(self, digest: Digest) -> bool:
        """Whether the blob counts as absent until it is hashed again or replaced."""
        if self.trusts_all():
            return False
        if self.treats_as_absent(digest):
            return True
        try:
            return any(self._is_marked(boot, _name(digest)) for boot in self._markers.get(_name(digest), ()))
        except OSError:  # nobody knows
            return True

    def treat_as_absent(self, digest: Digest) -> None:
        """Count the blob as absent, wherever it is, until it is replaced: it was hashed and found bad."""
        self._treated_as_absent.add(_name(digest))

    def mark_corrupt(self, digest: Digest) -> None:
        """``treat_as_absent`` for all who open the store from now on: a marker as of another boot says so.

        Raises:
            OSError: the disk refused.
        """
        self.treat_as_absent(digest)
        with self._guard:
            self._add(_CORRUPT, [_name(digest)], known=False)
            self._markers.setdefault(_name(digest), []).append(_CORRUPT)

    def treats_as_absent(self, digest: Digest) -> bool:
        """Whether the blob was found bad."""
        return bool(self._treated_as_absent) and _name(digest) in self._treated_as_absent

    def mark(self, digests: Iterable[Digest]) -> None:
        """Say, durably, that these blobs are about to get their names unsynced: one sync for all of them.

        Raises:
            OSError: the disk refused.
        """
        with self._guard:
            names = [_name(digest) for digest in digests]
            new = self._unmarked(names)
            if not new:
                return
            self._add(self._boot, new, known=bool(self._durable))
            self._durable.update(new)

    def _unmarked(self, names: Sequence[str]) -> list[str]:
        """Those that have no durable marker of this boot."""
        if self._durable.isdisjoint(names):
            return list(names)
        with suppress(FileNotFoundError), self._markers_of(self._boot) as own:
            return [name for name in names if name not in self._durable or not own.has(name)]
        return list(names)

    def trust_mark(self, digest: Digest) -> None:
        """Another process of this boot has marked the blob, durably, and still has a lease on it."""
        self._durable.add(_name(digest))

    def _add(self, boot: str, names: Iterable[str], *, known: bool) -> None:
        """Make markers. A directory that is not ``known`` may be of a process that was killed before it synced it."""
        if not files.make_directory(self._paths.top, _NAME, 0o755) and not known:
            self._paths.top.sync()
        unsynced = self._paths.directory(_NAME)
        if not files.make_directory(unsynced, boot, 0o755) and not known:
            unsynced.sync()
        with self._markers_of(boot) as directory:
            for name in names:
                fd = directory.open(name, os.O_WRONLY | os.O_CREAT)
                try:
                    os.fchmod(fd, 0o644)  # open's is cut by the umask
                finally:
                    os.close(fd)
            directory.sync()

    def clear(self, digests: Iterable[Digest]) -> None:
        """Forget all markers of blobs that have just been verified and synced."""
        digests = list(digests)
        self.clear_others(digests)
        with suppress(FileNotFoundError), self._markers_of(self._boot) as own:
            for digest in digests:
                with suppress(FileNotFoundError):
                    own.unlink(_name(digest))

    def clear_others(self, digests: Iterable[Digest]) -> None:
        """Forget the markers of other boots: the blobs were replaced, and are marked as of this one."""
        for name in map(_name, digests):
            self._treated_as_absent.discard(name)
            for boot in self._markers.pop(name, ()):
                remove_marker(self._paths, boot, name)

    def others(self) -> list[tuple[str, str]]:
        """The markers of other boots, as (boot, name of the blob: ``ALGORITHM-HEX``)."""
        return [(boot, name) for name, boots in self._markers.items() for boot in boots]

    def _learn(self, boot: str) -> None:
        """Read the markers of another boot; what is not a directory is not ours."""
        with suppress(FileNotFoundError, NotADirectoryError), self._markers_of(boot) as directory:
            for name in filter(_MARKER.fullmatch, directory.names()):
                self._markers.setdefault(name, []).append(boot)
                if boot == _CORRUPT:
                    self._treated_as_absent.add(name)

    def _markers_of(self, boot: str) -> Directory:
        return self._paths.directory(_NAME).enter(boot)

    def _is_marked(self, boot: str, name: str) -> bool:
        with suppress(FileNotFoundError), self._markers_of(boot) as directory:
            directory.stat(name)
            return True
        return False


def remove_marker(paths: StoreLayout, boot: str, name: str) -> bool:
    """Delete a marker of another boot, and its directory when that is empty; whether it was there."""
    with suppress(FileNotFoundError):
        unsynced = paths.directory(_NAME)
        with unsynced.enter(boot) as directory:
            directory.unlink(name)
        with suppress(OSError):  # not empty: the boot has other markers
            unsynced.rmdir(boot)
        return True
    return False


def _name(digest: Digest) -> str:
    return f"{digest.algorithm}-{digest.hex}"
