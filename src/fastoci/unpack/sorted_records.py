"""Records in the order of their keys, however many: sorted in memory in parts, which wait in files without names."""

from __future__ import annotations

import heapq
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final

from fastoci import files

_PART: Final = 8 << 20  # bytes of one part
_OVERHEAD: Final = 128  # bytes of memory that a record takes beside its own
_HEAD: Final = struct.Struct("=II")


class TooManyError(Exception):
    """The records have more bytes than they may."""


class SortedRecords:
    """Takes records in any order; iterating gives them by key. Raises ``OSError``. End it with ``close``.

    Args:
        directory: where the files are made; stays the caller's.
        limit: bytes of all records and keys.
    """

    def __init__(self, directory: int, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._size = 0  # of all
        self._held = 0  # of the part in memory
        self._part: list[tuple[bytes, bytes]] = []
        self._files: list[BinaryIO] = []

    def __bool__(self) -> bool:
        return self._size > 0

    def close(self) -> None:
        """Let go of all. Idempotent."""
        for file in self._files:
            file.close()
        self._files = []
        self._part = []

    def add(self, key: bytes, record: bytes) -> None:
        """Take one more.

        Raises:
            TooManyError: it is one too many.
        """
        size = len(key) + len(record)
        self._size += size
        if self._size > self._limit:
            raise TooManyError
        self._part.append((key, record))
        self._held += size + _OVERHEAD
        if self._held > _PART:
            self._spill()

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        self._part.sort()
        return heapq.merge(self._part, *map(_records, self._files))

    def _spill(self) -> None:
        file = os.fdopen(files.nameless_at(self._directory), "w+b")
        self._files.append(file)
        for key, record in sorted(self._part):
            file.write(_HEAD.pack(len(key), len(record)) + key + record)
        file.flush()
        self._part = []
        self._held = 0


def _records(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    file.seek(0)
    while head := file.read(_HEAD.size):
        key, record = _HEAD.unpack(head)
        yield file.read(key), file.read(record)
