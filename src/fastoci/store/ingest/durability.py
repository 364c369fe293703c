"""When a blob's data is synced: before its name, at the end of the job, or never.

What gets its name earlier has a marker from before until after, so that after a power cut nobody trusts it.
Spec: docs/store-format.md 5.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Final

from fastoci import files
from fastoci.errors import StoreError
from fastoci.image.digest import Digest
from fastoci.limits import Level
from fastoci.store.ingest.unsynced import Unsynced
from fastoci.store.layout import StoreLayout

_SMALL: Final = 1 << 20  # bytes: above, the disk is busy with the data, and one sync more costs nothing


class Durability:
    """One store's way with syncs. Used from any thread that may wait for the disk."""

    def __init__(self, level: Level, paths: StoreLayout, unsynced: Unsynced) -> None:
        if level not in ("commit", "blobs", "batch", "none"):
            raise ValueError(f"no level of durability: {level}")
        self.level = level
        self._at_once = level in ("commit", "blobs")
        self._paths = paths
        self._unsynced = unsynced
        self._guard = threading.Lock()
        self._flushing = threading.Lock()  # whose blobs another job's flush took waits for it
        self._waiting: list[Digest] = []  # named, and not synced yet

    def mark_pending(self, digests: Iterable[Digest]) -> None:
        """Mark what a job is going to bring, by one sync instead of one for each blob.

        Raises:
            OSError: the disk refused.
        """
        if not self._at_once:
            self._unsynced.mark(digests)

    def name(self, digest: Digest, size: int, *, sync: Callable[[], None], rename: Callable[[], None]) -> None:
        """Give a blob its name: ``rename`` does, ``sync`` makes its data durable.

        Raises:
            OSError, StoreError: the disk refused.
        """
        if self._at_once or (self.level == "batch" and size > _SMALL):
            sync()
            rename()
            self._paths.blobs(digest.algorithm).sync()
            self._unsynced.clear((digest,))
            return
        self._unsynced.mark((digest,))
        rename()
        self._unsynced.clear_others((digest,))
        if self.level == "batch":
            with self._guard:
                self._waiting.append(digest)

    def name_together(self, digests: Collection[Digest], place: Callable[[bool], Collection[Digest]]) -> None:
        """``name`` for small blobs, with one sync of their names.

        Args:
            place: makes the files and gives them their names, each durable before its name when told to, and the names
                in the end; says which have one.
        Raises:
            OSError, StoreError: the disk refused.
        """
        if self._at_once:
            self._unsynced.clear(place(True))
            return
        self._unsynced.mark(digests)
        named = place(False)
        self._unsynced.clear_others(named)
        if self.level == "batch":
            with self._guard:
                self._waiting.extend(named)

    def adopt(self, digest: Digest, size: int) -> None:
        """Count a blob that another process gave its name, at the same level, as if ``name`` had done it here."""
        self._unsynced.clear_others((digest,))
        if self.level == "batch" and size <= _SMALL:
            with self._guard:
                self._waiting.append(digest)

    def flush(self) -> None:
        """Sync what was named before it was synced, at level ``batch``; the end of a job.

        Raises:
            StoreError: the disk lost one; it has no name any more.
        """
        with self._flushing:
            self._flush()

    def _flush(self) -> None:
        with self._guard:
            waiting, self._waiting = self._waiting, []
        lost: StoreError | None = None
        done = []
        for digest in waiting:
            try:
                self._sync(digest)
                done.append(digest)
            except OSError as cause:
                # The kernel tells of a lost page once. Without its name the blob is fetched again.
                lost = lost or files.failure(cause, "sync", self._paths.blob(digest))
                with suppress(OSError):
                    self._paths.blobs(digest.algorithm).unlink(digest.hex)
        with files.translated("sync", f"{self._paths.root}/blobs"):
            for algorithm in {digest.algorithm for digest in waiting}:
                self._paths.blobs(algorithm).sync()
            self._unsynced.clear(done)
        if lost is not None:
            raise lost

    def _sync(self, digest: Digest) -> None:
        with suppress(FileNotFoundError):  # deleted meanwhile
            fd = self._paths.open_blob(digest)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)
