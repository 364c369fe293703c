"""How far a verification of the whole store has come, so that the next one goes on there.

One small file, replaced now and then under a lock; losing it costs hashing again. Where the store cannot be written
there is none, and every round begins at the start. Synchronous, for threads. Spec: docs/store-format.md 13.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from fastoci.errors import StoreBusyError, StoreError
from fastoci.store import disk, lock
from fastoci.store.paths import Paths

_SIZE: Final = 16 << 20  # bytes of the file
_READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@dataclass(frozen=True, slots=True)
class Cursor:
    """All digests up to ``after`` are hashed, in the order of ``reach.names``; ``bad`` are those of them to look at."""

    after: str = ""
    bad: tuple[str, ...] = ()


class Round:
    """The cursor of one verification; ``close`` lets the next one begin.

    Raises:
        StoreBusyError: another verification is at work.
        StoreError: the disk refused.
    """

    def __init__(self, paths: Paths) -> None:
        self._directory = f"{paths.root}/verify"
        self._lock = self._hold()

    def _hold(self) -> int | None:
        try:
            disk.make_directory(self._directory, 0o700)
            held = lock.acquire(f"{self._directory}/lock", wait=False)
        except OSError as cause:
            if cause.errno in _READ_ONLY:
                return None
            raise disk.failure(cause, "verify", self._directory) from cause
        if held is None:
            raise StoreBusyError(f"{self._directory} is locked: another verification is at work", path=self._directory)
        return held

    def load(self) -> Cursor:
        """Where an earlier round stopped; a cursor that cannot be read is the beginning."""
        with suppress(StoreError, ValueError, TypeError, KeyError, RecursionError):
            data = disk.read(f"{self._directory}/cursor", _SIZE)
            if data is not None:
                fields = json.loads(data)
                return Cursor(str(fields["after"]), tuple(map(str, fields["bad"])))
        return Cursor()

    def save(self, after: str, bad: Iterable[str]) -> None:
        """Go on behind ``after`` the next time.

        Raises:
            StoreError: the disk refused.
        """
        if self._lock is not None:
            data = json.dumps({"after": after, "bad": list(bad)}).encode() + b"\n"
            with disk.translated("write", f"{self._directory}/cursor"):
                disk.replace(self._directory, "cursor", data, temporary="cursor.new", mode=0o600)

    def end(self) -> None:
        """The round is over: the next one begins at the start."""
        if self._lock is not None:
            with disk.translated("delete", f"{self._directory}/cursor"), suppress(FileNotFoundError):
                os.unlink(f"{self._directory}/cursor")

    def close(self) -> None:
        """Let go. Idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
