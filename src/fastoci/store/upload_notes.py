"""Notes about uploads to registries that are under way, for the process that goes on with them.

A note is a small file, of its owner alone: what is in it is a secret between a registry and who began the upload. Who
takes one removes it, so nobody goes on with another's upload. They are few, and get old; none is ever needed.
Spec: docs/store-format.md 14.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from fastoci import files
from fastoci.directory import Directory
from fastoci.store.layout import StoreLayout
from fastoci.threads import Threads

_MODE: Final = 0o700
_NOTES: Final = 256
_SIZE: Final = 64 << 10  # bytes of one
_AGE_S: Final = 7 * 86400.0  # registries keep no upload for longer


class UploadNoteFiles:
    """``UploadNotes`` in a store.

    Args:
        now: seconds since 1970.
    """

    def __init__(self, paths: StoreLayout, threads: Threads, *, now: Callable[[], float] = time.time) -> None:
        self._paths = paths
        self._threads = threads
        self._now = now

    async def take(self, key: str) -> bytes | None:
        """Take a note away: ``UploadNotes.take``."""
        return await self._threads.run(lambda: self._take(_name(key)))

    async def keep(self, key: str, data: bytes) -> None:
        """Keep a note: ``UploadNotes.keep``."""
        await self._threads.run(lambda: self._keep(_name(key), data))

    async def drop(self, key: str) -> None:
        """Have no note: ``UploadNotes.drop``."""
        await self._threads.run(lambda: self._drop(_name(key)))

    def _take(self, name: str) -> bytes | None:
        with files.translated("read", f"{self._paths.root}/uploads"):
            try:
                directory = self._paths.directory("uploads")
                taken = f"{name}.{secrets.token_hex(8)}"
                directory.rename(name, directory, taken)
            except FileNotFoundError:
                return None
        try:
            age_s = self._now() - directory.stat(taken).st_mtime
            return files.read(directory, taken, _SIZE) if -_AGE_S < age_s < _AGE_S else None
        finally:
            with suppress(OSError):
                directory.unlink(taken)

    def _keep(self, name: str, data: bytes) -> None:
        with files.translated("write", f"{self._paths.root}/uploads"):
            directory = self._paths.make("uploads", _MODE)
            if not directory.has(name):
                self._clear(directory)
            temporary = f"{name}.{secrets.token_hex(8)}"
            fd = directory.open(temporary, files.CREATE)
            try:
                files.write_all(fd, data)
                directory.rename(temporary, directory, name)
            except BaseException:
                with suppress(OSError):
                    directory.unlink(temporary)
                raise
            finally:
                os.close(fd)

    def _drop(self, name: str) -> None:
        with files.translated("delete", f"{self._paths.root}/uploads"), suppress(FileNotFoundError):
            self._paths.directory("uploads").unlink(name)

    def _clear(self, directory: Directory) -> None:
        """Make room for one more: what is too old goes, and then the oldest."""
        found = []
        for name in directory.names():
            with suppress(OSError):
                info = directory.stat(name)
                if stat.S_ISREG(info.st_mode):
                    found.append((info.st_mtime, name))
        found.sort()
        old = sum(time_s < self._now() - _AGE_S for time_s, _ in found)
        for _, name in found[: max(old, len(found) - _NOTES + 1)]:
            with suppress(OSError):
                directory.unlink(name)


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
