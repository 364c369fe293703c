"""The blobs of a store: which are there, how they are read, and how new ones are begun.

Knows nothing of references, leases or the network. Spec: docs/store-format.md 2, 4 and 12.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from fastoci import files
from fastoci.errors import BlobNotFoundError, StoreBusyError, StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import HEX_DIGITS, Digest
from fastoci.limits import Limits
from fastoci.store import filesystem_probe
from fastoci.store.additional import Additional
from fastoci.store.ingest import ingest
from fastoci.store.ingest.checkpoint import State
from fastoci.store.ingest.durability import Durability
from fastoci.store.ingest.ingest import StoreIngest
from fastoci.store.ingest.small import SmallBlobs, SmallIngest, byte_of
from fastoci.store.ingest.unsynced import Unsynced
from fastoci.store.ingest.waiting import Sought, Waiting
from fastoci.store.layout import StoreLayout
from fastoci.threads import Threads


class Blobs:
    """The blobs of one store and of its additional ones, for one event loop.

    ``holds`` and ``open`` may be called from any thread. ``unsynced`` are those that are not trusted, or may not be
    after a power cut; ``threads`` wait for the disk, ``waiting`` for other processes.
    """

    def __init__(self, paths: StoreLayout, boot_id: str, additional: Sequence[Additional], limits: Limits) -> None:
        self.paths = paths
        self.unsynced = Unsynced(paths, boot_id)
        self.threads = Threads()
        self._boot_id = boot_id
        self._additional = additional
        self._durability = Durability(limits.durability, paths, self.unsynced)
        self.waiting = Waiting(paths, self.threads, holder_s=limits.holder_s)
        anew = partial(self._begin, cached=True)
        self.small = SmallBlobs(paths, self.threads, self._durability, anew)
        self._probing = threading.Lock()
        self._probed = False

    def probe(self) -> None:
        """Refuse a file system that no store can be on, before the first write.

        Raises:
            StoreError: it is one.
        """
        with self._probing:
            if not self._probed:
                filesystem_probe.check(self.paths)
                self._probed = True

    async def missing(self, blobs: Collection[Descriptor]) -> list[Descriptor]:
        """Which of these are absent: ``BlobStore.missing``."""
        return await self.threads.run(lambda: self.find_missing(blobs))

    def find_missing(self, blobs: Iterable[Descriptor]) -> list[Descriptor]:
        """``missing`` for a thread of the store's."""
        directories: dict[str, int] = {}
        for algorithm in HEX_DIGITS:
            with files.translated("stat", self.paths.root), suppress(FileNotFoundError):
                directories[algorithm] = self.paths.blobs(algorithm).fd
        return self._absent(blobs, directories)

    def holds(self, blob: Descriptor) -> bool:
        """Whether the blob is there, or in an additional store, by ``lstat`` of its name.

        Raises:
            StoreError: the disk refused to tell.
        """
        info = self._stat(blob)
        if info is not None and stat.S_ISREG(info.st_mode) and info.st_size == blob.size:
            return not self.unsynced.distrusts(blob.digest)
        return not self.unsynced.treats_as_absent(blob.digest) and any(other.holds(blob) for other in self._additional)

    def borrow(self, other: Additional) -> None:
        """Look into one more directory, the first of all, until it is given back."""
        self._additional = (other, *self._additional)

    def give_back(self, other: Additional) -> None:
        """Look there no more."""
        self._additional = tuple(each for each in self._additional if each is not other)

    def open(self, blob: Descriptor) -> int:
        """A read-only descriptor of the blob's file: ``BlobStore.open``."""
        path = self.paths.blob(blob.digest)
        try:
            fd = self.paths.open_blob(blob.digest)
        except OSError as cause:
            if (elsewhere := self._open_elsewhere(blob)) is not None:
                return elsewhere
            gone = isinstance(cause, FileNotFoundError)
            if gone and self.paths.holds(blob.digest):
                return self.open(blob)  # it came meanwhile
            if gone or not self.holds(blob):
                text = f"the store has no {blob.digest} ({path})"
                raise BlobNotFoundError(text, path=path, subject=str(blob.digest)) from cause
            raise files.failure(cause, "open", path) from cause
        info = os.fstat(fd)
        if stat.S_ISREG(info.st_mode) and info.st_size == blob.size and not self.unsynced.distrusts(blob.digest):
            return fd
        files.close(fd)
        if (elsewhere := self._open_elsewhere(blob)) is not None:
            return elsewhere
        why = "was found damaged" if self.unsynced.treats_as_absent(blob.digest) else f"is not its {blob.size} bytes"
        text = f"the store has no {blob.digest}: {path} {why}, or was not synced"
        raise BlobNotFoundError(text, path=path, subject=str(blob.digest))

    def find(self, digest: Digest) -> tuple[Descriptor, str]:
        """A blob whose size nobody knows: its descriptor, without a media type, and the path of its file.

        Raises:
            BlobNotFoundError: it is neither here nor in an additional store.
            StoreError: the disk refused to tell.
        """
        for paths in (self.paths, *(other.paths for other in self._additional)):
            with files.translated("stat", paths.blob(digest)), suppress(FileNotFoundError):
                blob = Descriptor("", digest, paths.blobs(digest.algorithm).stat(digest.hex).st_size)
                files.close(self.open(blob))
                return blob, paths.blob(digest)
        raise BlobNotFoundError(f"the store has no {digest}", path=self.paths.blob(digest), subject=str(digest))

    async def read(self, blob: Descriptor) -> bytes:
        """All bytes of a small blob: ``BlobStore.read``."""
        return await self.threads.run(lambda: self._read(blob))

    async def mark_corrupt(self, digest: Digest) -> None:
        """Count a blob as absent, for all who open the store from now on, until a commit replaces it.

        Where the store cannot be written, this process alone does.
        """
        self.unsynced.treat_as_absent(digest)
        with suppress(StoreError):  # this process knows, and the next one finds it out again
            await self.threads.run(lambda: self._mark_corrupt(digest))

    def mark_pending(self, blobs: Iterable[Descriptor]) -> None:
        """On a thread, say which blobs a job is going to bring: at a level that syncs late, one sync serves them all.

        Raises:
            StoreError: the disk refused.
        """
        with files.translated("mark blobs below", f"{self.paths.root}/unsynced"):
            self._durability.mark_pending([blob.digest for blob in blobs])

    def flush(self) -> None:
        """On a thread, make durable what the jobs so far have brought, at level ``batch``.

        Raises:
            StoreError: the disk lost a blob, which is absent from now on.
        """
        self._durability.flush()

    def adopt(self, blob: Descriptor) -> None:
        """On a thread, take over what another process committed: ``StoreWriter.adopt``."""
        self._durability.adopt(blob.digest, blob.size)
        if not self.holds(blob):
            path = self.paths.blob(blob.digest)
            raise BlobNotFoundError(f"the store has no {blob.digest} ({path})", path=path, subject=str(blob.digest))

    async def begin(self, blob: Descriptor, *, cached: bool = False) -> StoreIngest | None:
        """Take hold of a digest: ``StoreWriter.begin``."""
        started, cancelled = await self.threads.run_to_end(lambda: self._begin(blob, cached))
        if cancelled:
            if started is not None:
                await started.abort()
            raise asyncio.CancelledError
        return started

    def begin_small(self, blob: Descriptor) -> SmallIngest | None:
        """``begin`` for a small blob, at once: ``StoreWriter.begin_small``."""
        # another store may be on a disk that answers late
        return None if self._additional or not self._probed else self.small.begin(blob)

    def spool(self) -> int:
        """On a thread, open an unnamed file beside the ingests: it goes with whoever has it open.

        Raises:
            StoreError: the disk refused.
        """
        self.probe()
        with files.translated("make a file in", f"{self.paths.root}/ingest"):
            return files.nameless_at(self.paths.ingests.fd)

    def leave(self, blob: Descriptor, fd: int, hash_state: bytes) -> None:
        """On a thread, make an ingest of a spool that has all of a blob, to be begun at its end.

        Nothing is made where that cannot be done, or where somebody else has the digest.

        Args:
            hash_state: at the end.
        """
        held = ingest.hold(self.paths, blob.digest.hex)
        if held is None:
            return
        try:
            with suppress(OSError):
                ingest.fill(held, fd, State(self._boot_id, 0, blob.size, hash_state))
        finally:
            held.close()

    async def wait(self, blob: Descriptor, progressed: Callable[[int], None]) -> bool:
        """Return when nobody else holds the digest any more: ``StoreWriter.wait``."""
        there = partial(self.holds, blob)
        byte = byte_of(blob.digest)
        sought = Sought(blob.digest.hex, f"fetches {blob.digest}", there, blob.size, byte)
        return await self.waiting.wait(sought, progressed)

    def _absent(self, blobs: Iterable[Descriptor], directories: Mapping[str, int]) -> list[Descriptor]:
        """``holds`` of many, written out: what it adds to a bare ``stat`` counts (benchmarks/macro/store_scale.py)."""
        stat_name, kind, regular = os.stat, 0o170000, stat.S_IFREG  # of a mode: the kind
        suspicious = not self.unsynced.trusts_all()
        seen: set[str] = set()
        missing = []
        for blob in blobs:
            digest = blob.digest
            name = digest.hex
            if name in seen:
                continue
            seen.add(name)
            try:
                info = stat_name(name, dir_fd=directories.get(digest.algorithm, -1), follow_symlinks=False)
                there = info.st_size == blob.size and info.st_mode & kind == regular
            except OSError:  # absent, elsewhere, or the disk refuses: ``holds`` says
                there = False
            if (suspicious or not there) and not self.holds(blob):
                missing.append(blob)
        return missing

    def _open_elsewhere(self, blob: Descriptor) -> int | None:
        if self.unsynced.treats_as_absent(blob.digest):
            return None
        return next((fd for other in self._additional if (fd := other.open(blob)) is not None), None)

    def _stat(self, blob: Descriptor) -> os.stat_result | None:
        try:
            return self.paths.blobs(blob.digest.algorithm).stat(blob.digest.hex)
        except FileNotFoundError:
            return None
        except OSError as cause:
            raise files.failure(cause, "stat", self.paths.blob(blob.digest)) from cause

    def _mark_corrupt(self, digest: Digest) -> None:
        with files.translated("mark a blob below", f"{self.paths.root}/unsynced"):
            self.unsynced.mark_corrupt(digest)

    def _begin(self, blob: Descriptor, cached: bool) -> StoreIngest | None:
        self.probe()
        if self.holds(blob):
            return None
        info = self._stat(blob)
        if info is not None and stat.S_ISDIR(info.st_mode):
            path = self.paths.blob(blob.digest)
            raise StoreError(f"{path} is a directory where a blob belongs: remove it", path=path)
        path = self.paths.ingest(blob.digest)
        held = ingest.hold(self.paths, blob.digest.hex)
        if held is None:
            raise StoreBusyError(f"another process is fetching {blob.digest}", path=path)
        try:
            if not self.holds(blob):  # the last holder may have committed it
                with files.translated("begin", path, wanted=blob.size):
                    self.paths.make(f"blobs/{blob.digest.algorithm}", 0o755)
                return StoreIngest(
                    blob,
                    self.paths,
                    boot_id=self._boot_id,
                    held=held,
                    threads=self.threads,
                    durability=self._durability,
                    cached=cached,
                )
            with files.translated("delete", path):
                held.remove()
        except BaseException:
            held.close()
            raise
        held.close()
        return None

    def _read(self, blob: Descriptor) -> bytes:
        fd = self.open(blob)
        try:
            with files.translated("read", self.paths.blob(blob.digest)):
                data = files.read_all(fd, blob.size)
        finally:
            files.close(fd)
        if len(data) != blob.size:
            text = f"{blob.digest} ends after {len(data)} of {blob.size} bytes"
            raise BlobNotFoundError(text, path=self.paths.blob(blob.digest), subject=str(blob.digest))
        return data
