"""Ingests seen from outside: which there are, how far each is, and the deletion of one that nobody holds.

Takes no lock to answer, so the answer may be over by then. Synchronous, for threads. Spec: docs/store-format.md 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from fastoci import files, locks
from fastoci.directory import Directory
from fastoci.errors import StoreBusyError
from fastoci.image.digest import Digest
from fastoci.interfaces import IngestStatus
from fastoci.store.ingest.ingest import remove
from fastoci.store.layout import StoreLayout

_NAME: Final = re.compile(r"[0-9a-f]{64}(?:[0-9a-f]{64})?")
_ALGORITHMS: Final = {64: "sha256", 128: "sha512"}
_GONE: Final = (FileNotFoundError, NotADirectoryError)  # deleted meanwhile; no directory, least of all a link: not ours


def ingest_directories(paths: StoreLayout) -> Iterator[tuple[Digest, Directory]]:
    """The directories of all ingests, in no order; each is open until the next is asked for.

    Raises:
        StoreError: the disk refused.
    """
    with files.translated("list", f"{paths.root}/ingest"), suppress(FileNotFoundError):
        for name in filter(_NAME.fullmatch, paths.ingests.names()):
            with suppress(*_GONE), paths.ingests.enter(name) as directory:
                yield Digest(_ALGORITHMS[len(name)], name), directory


def statuses(paths: StoreLayout) -> list[IngestStatus]:
    """All ingests that are under way, or were left half-way.

    Raises:
        StoreError: the disk refused.
    """
    found = (_status(digest, directory) for digest, directory in ingest_directories(paths))
    return [status for status in found if status is not None]


def status(paths: StoreLayout, digest: Digest) -> IngestStatus | None:
    """One of them; None when there is none.

    Raises:
        StoreError: the disk refused.
    """
    entering = files.translated("stat", paths.ingest(digest))
    with entering, suppress(*_GONE), paths.ingests.enter(digest.hex) as directory:
        return _status(digest, directory)
    return None


def discard(paths: StoreLayout, digest: Digest) -> bool:
    """Delete what an earlier attempt left of a blob; whether there was anything.

    Raises:
        StoreBusyError: somebody is at work on it.
        StoreError: the disk refused.
    """
    path = paths.ingest(digest)
    deleting = files.translated("delete", path)
    with deleting, suppress(*_GONE), paths.ingests.enter(digest.hex) as directory:
        held = locks.acquire(directory, "lock", wait=False)
        if held is None:
            raise StoreBusyError(f"{digest} is being fetched", path=path)
        try:
            remove(directory, paths.ingests)
            return True
        finally:
            files.close(held)
    return False


def _status(digest: Digest, directory: Directory) -> IngestStatus | None:
    held = locks.is_held(directory, "lock")
    size = 0
    try:
        size = directory.stat("data").st_size
    except FileNotFoundError:
        if not held:  # a hint at most: nothing to go on with
            return None
    return IngestStatus(digest, size, held)
