"""The store: verified blobs by digest, one directory, many processes.

Asks the disk and starts ingests; knows nothing of manifests or the network. Spec: docs/store-format.md 2, 4 and 8.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

from fastoci import files
from fastoci.errors import BlobNotFoundError, StoreBusyError, StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import HEX_DIGITS, Digest
from fastoci.limits import DOCUMENT, Level
from fastoci.store import filesystem_probe
from fastoci.store.additional import open_additional
from fastoci.store.gc import collect
from fastoci.store.gc.collect import GcItem, GcPlan
from fastoci.store.gc.leases import Leases
from fastoci.store.gc.retention import Retention
from fastoci.store.graph import Read, reader
from fastoci.store.index_json import update_index
from fastoci.store.ingest import ingest
from fastoci.store.ingest.durability import Durability
from fastoci.store.ingest.ingest import StoreIngest
from fastoci.store.ingest.unsynced import Unsynced, boot_id
from fastoci.store.ingest.waiting import Waiting
from fastoci.store.layout import Paths
from fastoci.store.opening import open_store
from fastoci.store.refs import Ref, Refs
from fastoci.store.usage import Usage, usage
from fastoci.threads import Check, Threads

T = TypeVar("T")


class Store:
    """``BlobStore`` on a directory. Made by ``Store.at``; ``refs`` are its references.

    Belongs to one event loop; ``open`` and ``holds`` may be called from any thread. ``left_out`` says which additional
    stores cannot be used, and why.
    """

    def __init__(
        self, paths: Paths, durability: Level, additional: Sequence[Path] = (), *, manifest_size: int = DOCUMENT
    ) -> None:
        self.path = Path(paths.root)
        self._manifest_size = manifest_size
        self.refs = Refs(paths)
        self._paths = paths
        self._boot_id = boot_id()
        self._additional, self.left_out = open_additional(paths, additional, self._boot_id)
        self._unsynced = Unsynced(paths, self._boot_id)
        self._durability = Durability(durability, paths, self._unsynced)
        self._threads = Threads()
        self._leases = Leases(paths, self._boot_id, self._threads)
        self._waiting = Waiting(paths, self.holds, self._threads)
        self._probing = threading.Lock()
        self._probed = False

    @classmethod
    def at(
        cls,
        path: Path,
        additional: Sequence[Path] = (),
        *,
        durability: Level = "commit",
        manifest_size: int = DOCUMENT,
    ) -> Store:
        """Open the store in a directory, made when absent or empty; an OCI layout there becomes one.

        Args:
            additional: stores that are looked into before the network, beside those that ``fastoci.json`` names.
            durability: when blobs are synced: before their names, once a job, or never.
            manifest_size: bytes of one document; a larger one is not read by those who follow references.
        Raises:
            StoreError: no store, of a newer format, not safe to trust, or it cannot be made.
        """
        paths = open_store(path)
        try:
            return cls(paths, durability, additional, manifest_size=manifest_size)
        except BaseException:
            paths.close()
            raise

    def close(self) -> None:
        """End the threads and let go of the directories; no ingest is open any more. Idempotent."""
        self._threads.close()
        for place in (self._paths, *self.additional):
            place.close()

    async def missing(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        return await self._threads.run(lambda: self._missing(blobs))

    def holds(self, blob: Descriptor) -> bool:
        """Whether the blob is there, or in an additional store, by ``lstat`` of its name.

        Raises:
            StoreError: the disk refused to tell.
        """
        info = self._look(blob)
        if info is not None and stat.S_ISREG(info.st_mode) and info.st_size == blob.size:
            return not self._unsynced.distrusts(blob.digest)
        return not self._unsynced.treats_as_absent(blob.digest) and any(other.holds(blob) for other in self._additional)

    def treat_as_absent(self, digest: Digest) -> None:
        """Count a blob as absent, for this process, until a commit replaces it: it was hashed and found bad."""
        self._unsynced.treat_as_absent(digest)

    async def mark_corrupt(self, digest: Digest) -> None:
        """``condemn`` for all who open the store from now on, where it can be written."""
        self._unsynced.treat_as_absent(digest)
        with suppress(StoreError):  # this process knows, and the next one finds it out again
            await self._threads.run(lambda: self._mark_corrupt(digest))

    @asynccontextmanager
    async def lease(self, blobs: Iterable[Descriptor]) -> AsyncIterator[None]:
        """Keep what a job needs from gc, until its references are recorded. Comes before the look at what is there.

        Raises:
            StoreError: the disk refused, or it is one that no store can be on.
        """
        digests = [blob.digest for blob in blobs]
        await self._threads.run(self._probe)
        async with self._leases.protect(digests):
            yield

    @asynccontextmanager
    async def lease_if_writable(self, blobs: Iterable[Descriptor]) -> AsyncIterator[None]:
        """``lease`` for a job that only reads; one that may not write here goes without."""
        if self._may_write():
            async with self.lease(blobs):
                yield
        else:
            yield

    async def mark_pending(self, blobs: Iterable[Descriptor]) -> None:
        """Say which blobs a job is going to bring: at a level that syncs late, one sync serves them all."""
        digests = [blob.digest for blob in blobs]
        await self._threads.run(lambda: self._mark_pending(digests))

    async def flush(self) -> None:
        """Make durable what the jobs so far have brought, at level ``batch``.

        Raises:
            StoreError: the disk lost a blob, which is absent from now on.
        """
        await self._threads.run(self._durability.flush)

    async def begin(self, blob: Descriptor, *, cached: bool = False) -> StoreIngest | None:
        started, cancelled = await self._threads.run_to_end(lambda: self._begin(blob, cached))
        if cancelled:
            if started is not None:
                await started.abort()
            raise asyncio.CancelledError
        return started

    async def wait(self, blob: Descriptor, progressed: Callable[[int], None]) -> bool:
        return await self._waiting.wait(blob, progressed)

    async def read(self, blob: Descriptor) -> bytes:
        return await self._threads.run(lambda: self._read(blob))

    def open(self, blob: Descriptor) -> int:
        path = self._paths.blob(blob.digest)
        try:
            fd = self._paths.open_blob(blob.digest)
        except OSError as cause:
            if (elsewhere := self._open_elsewhere(blob)) is not None:
                return elsewhere
            if not self.holds(blob):
                raise BlobNotFoundError(f"the store has no {blob.digest} ({path})", path=path) from cause
            raise files.failure(cause, "open", path) from cause
        info = os.fstat(fd)
        if stat.S_ISREG(info.st_mode) and info.st_size == blob.size and not self._unsynced.distrusts(blob.digest):
            return fd
        files.close(fd)
        if (elsewhere := self._open_elsewhere(blob)) is not None:
            return elsewhere
        why = "was found damaged" if self._unsynced.treats_as_absent(blob.digest) else f"is not its {blob.size} bytes"
        raise BlobNotFoundError(f"the store has no {blob.digest}: {path} {why}, or was not synced", path=path)

    async def record(self, ref: Ref) -> None:
        """``flush`` and ``refs.set`` in the store's threads."""
        await self._threads.run(lambda: self._record(ref))

    async def reference(self, name: str) -> Ref:
        """``refs.get`` in the store's threads; its file is closed when this ends."""
        return await self._threads.run(lambda: self.refs.get(name))

    async def touch(self, name: str) -> None:
        """``refs.touch`` in the store's threads."""
        await self._threads.run(lambda: self.refs.touch(name))

    async def invalidate(self, name: str) -> None:
        """``refs.restamp`` in the store's threads."""
        await self._threads.run(lambda: self.refs.invalidate(name))

    async def forget(self, name: str) -> bool:
        """``refs.remove`` in the store's threads."""
        return await self._threads.run(lambda: self.refs.remove(name))

    async def pin(self, name: str, pinned: bool) -> Ref:
        """``refs.pin`` in the store's threads."""
        return await self._threads.run(lambda: self.refs.pin(name, pinned))

    async def plan_gc(self, retention: Retention) -> GcPlan:
        """``gc.plan`` in one of the store's threads."""
        return await self._threads.run_stoppable(
            lambda check: collect.plan(self._paths, self._unsynced, retention, limit=self._manifest_size, check=check)
        )

    async def gc(self, plan: GcPlan) -> tuple[GcItem, ...]:
        """``gc.execute`` in one of the store's threads; a task that is cancelled leaves the rest for the next."""
        await self._threads.run(self._probe)
        return await self._threads.run_stoppable(
            lambda check: collect.execute(self._paths, self._unsynced, plan, limit=self._manifest_size, check=check)
        )

    async def usage(self) -> Usage:
        """How much room is taken, and for whom.

        Raises:
            StoreError: the disk refused.
        """
        limit = self._manifest_size
        return await self._threads.run_stoppable(
            lambda check: usage(self._paths, self.additional, limit=limit, check=check)
        )

    async def walk(self, work: Callable[[Read, Check], T], *, additional: bool = True) -> T:
        """Run what follows references in one of the store's threads; it ends early when this task is cancelled.

        Args:
            work: gets what reads documents, and what it has to call now and then.
            additional: documents are read from additional stores, too.
        """
        places = (self._paths, *self.additional) if additional else (self._paths,)
        limit = self._manifest_size
        return await self.run_stoppable(lambda check: work(reader(places, limit=limit, check=check), check))

    async def run_stoppable(self, work: Callable[[Check], T]) -> T:
        """Run long work in one of the store's threads; it ends early when this task is cancelled.

        Args:
            work: calls what it gets now and then.
        """
        return await self._threads.run_stoppable(work)

    async def size(self) -> int:
        """Bytes of everything in it: as dear as ``usage``.

        Raises:
            StoreError: the disk refused.
        """
        limit = self._manifest_size
        found = await self._threads.run_stoppable(lambda check: usage(self._paths, limit=limit, check=check))
        return found.total.size

    @property
    def paths(self) -> Paths:
        """Where everything is."""
        return self._paths

    @property
    def additional(self) -> tuple[Paths, ...]:
        """The additional stores that are in use."""
        return tuple(other.paths for other in self._additional)

    async def update_view(self) -> None:
        """Bring ``index.json`` up to date with the references, for other tools; once a job.

        Raises:
            StoreError: the disk refused, or another tool left an ``index.json`` that does not parse.
        """
        await self._threads.run(lambda: update_index(self._paths, self.refs))

    def _missing(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        directories: dict[str, int] = {}
        for algorithm in HEX_DIGITS:
            with files.translated("look at", self._paths.root), suppress(FileNotFoundError):
                directories[algorithm] = self._paths.blobs(algorithm).fd
        return self._absent(blobs, directories)

    def _absent(self, blobs: Sequence[Descriptor], directories: Mapping[str, int]) -> list[Descriptor]:
        """``holds`` of many, written out: what it adds to a bare ``stat`` counts (benchmarks/macro/store_scale.py)."""
        look, kind, regular = os.stat, 0o170000, stat.S_IFREG  # of a mode: the kind
        suspicious = not self._unsynced.trusts_all()
        seen: set[str] = set()
        missing = []
        for blob in blobs:
            digest = blob.digest
            name = digest.hex
            if name in seen:
                continue
            seen.add(name)
            try:
                info = look(name, dir_fd=directories.get(digest.algorithm, -1), follow_symlinks=False)
                there = info.st_size == blob.size and info.st_mode & kind == regular
            except OSError:  # absent, elsewhere, or the disk refuses: ``holds`` says
                there = False
            if (suspicious or not there) and not self.holds(blob):
                missing.append(blob)
        return missing

    def _open_elsewhere(self, blob: Descriptor) -> int | None:
        if self._unsynced.treats_as_absent(blob.digest):
            return None
        return next((fd for other in self._additional if (fd := other.open(blob)) is not None), None)

    def _look(self, blob: Descriptor) -> os.stat_result | None:
        try:
            return self._paths.blobs(blob.digest.algorithm).stat(blob.digest.hex)
        except FileNotFoundError:
            return None
        except OSError as cause:
            raise files.failure(cause, "look at", self._paths.blob(blob.digest)) from cause

    def _may_write(self) -> bool:
        with suppress(FileNotFoundError):
            return self._paths.leases.is_writable()
        return False

    def _record(self, ref: Ref) -> None:
        self._durability.flush()
        self.refs.set(ref)

    def _probe(self) -> None:
        with self._probing:
            if not self._probed:
                filesystem_probe.check(self._paths)
                self._probed = True

    def _mark_corrupt(self, digest: Digest) -> None:
        with files.translated("mark a blob below", f"{self._paths.root}/unsynced"):
            self._unsynced.mark_corrupt(digest)

    def _mark_pending(self, digests: Sequence[Digest]) -> None:
        with files.translated("mark blobs below", f"{self._paths.root}/unsynced"):
            self._durability.mark_pending(digests)

    def _begin(self, blob: Descriptor, cached: bool) -> StoreIngest | None:
        self._probe()
        if self.holds(blob):
            return None
        info = self._look(blob)
        if info is not None and stat.S_ISDIR(info.st_mode):
            path = self._paths.blob(blob.digest)
            raise StoreError(f"{path} is a directory where a blob belongs: remove it", path=path)
        path = self._paths.ingest(blob.digest)
        held = ingest.hold(self._paths, blob.digest)
        if held is None:
            raise StoreBusyError(f"another process is fetching {blob.digest}", path=path)
        try:
            if not self.holds(blob):  # the last holder may have committed it
                with files.translated("begin", path, wanted=blob.size):
                    self._paths.make(f"blobs/{blob.digest.algorithm}", 0o755)
                return StoreIngest(
                    blob,
                    self._paths,
                    boot_id=self._boot_id,
                    held=held,
                    threads=self._threads,
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
            with files.translated("read", self._paths.blob(blob.digest)):
                data = files.read_all(fd, blob.size)
        finally:
            files.close(fd)
        if len(data) != blob.size:
            raise BlobNotFoundError(f"{blob.digest} ends after {len(data)} of {blob.size} bytes", path=str(self.path))
        return data
