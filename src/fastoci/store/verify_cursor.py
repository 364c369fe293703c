"""How far a verification of the whole store has come, so that the next one goes on there.

One small file, replaced now and then under a lock; losing it costs hashing again. Where the store cannot be written
or its disk is full, there is none, and each verification begins at the start. Synchronous, for threads.
Spec: docs/store-format.md 13.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import msgspec

from fastoci import files, locks
from fastoci.errors import StoreBusyError, StoreError
from fastoci.store.layout import StoreLayout

_CURSOR: Final = "cursor"
_SIZE: Final = 16 << 20  # bytes of the file
_NOT_WRITABLE: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT})


class Cursor(msgspec.Struct, frozen=True):
    """All digests up to ``after`` are hashed, by name; ``bad`` are those of them to hash again."""

    after: str = ""
    bad: tuple[str, ...] = ()


class CursorFile:
    """The cursor of one verification; ``close`` lets the next one begin.

    Raises:
        StoreBusyError: another verification is at work.
        StoreError: the disk refused.
    """

    def __init__(self, paths: StoreLayout) -> None:
        path = f"{paths.root}/verify"
        self._lock: int | None = None
        try:
            self._directory = paths.make("verify", 0o700)
            self._lock = locks.acquire(self._directory, "lock", wait=False)
        except OSError as cause:
            if cause.errno not in _NOT_WRITABLE:
                raise files.failure(cause, "verify", path) from cause
        else:
            if self._lock is None:
                raise StoreBusyError(f"{path} is locked: another verification is at work", path=path)

    def load(self) -> Cursor:
        """Where an earlier verification stopped; a cursor that cannot be read is the beginning."""
        if self._lock is not None:
            with suppress(StoreError, ValueError, TypeError, KeyError, RecursionError):
                fields = json.loads(files.read(self._directory, _CURSOR, _SIZE) or b"")
                return Cursor(str(fields["after"]), tuple(map(str, fields["bad"])))
        return Cursor()

    def save(self, after: str, bad: Iterable[str]) -> None:
        """Go on behind ``after`` the next time.

        Raises:
            StoreError: the disk refused.
        """
        if self._lock is not None:
            data = json.dumps({"after": after, "bad": list(bad)}).encode() + b"\n"
            with files.translated("write", self._directory.at(_CURSOR)):
                files.replace(self._directory, _CURSOR, data, temporary="cursor.new", mode=0o600)

    def end(self) -> None:
        """The verification is over: the next one begins at the start."""
        if self._lock is not None:
            with files.translated("delete", self._directory.at(_CURSOR)), suppress(FileNotFoundError):
                self._directory.unlink(_CURSOR)

    def close(self) -> None:
        """Let go. Idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
