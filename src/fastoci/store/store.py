"""The store: verified blobs by digest and images by name, one directory, many processes.

Puts together what the rest of this folder does; knows nothing of manifests or the network.
Spec: docs/store-format.md 2, 4, 6 and 8.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from fastoci import files
from fastoci._core import file_system
from fastoci.arguments import expect
from fastoci.boot import boot_id
from fastoci.errors import BlobNotFoundError, StoreError, StoreFullError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.stored_image import StoredImage
from fastoci.interfaces import IngestStatus
from fastoci.limits import Limits
from fastoci.store.additional import Borrowed, open_additional
from fastoci.store.blobs import Blobs
from fastoci.store.gc.leases import Leases
from fastoci.store.graph import Read, reader
from fastoci.store.index_json import update_index
from fastoci.store.ingest import status
from fastoci.store.layout import StoreLayout
from fastoci.store.opening import foreign_blobs, open_store
from fastoci.store.refs import Refs
from fastoci.store.reservations import Reservations
from fastoci.store.session import Session, Writer, open_session
from fastoci.threads import Check

if TYPE_CHECKING:
    from fastoci.store.gc.collect import GcItem, GcPlan
    from fastoci.store.gc.eviction import Shortage
    from fastoci.store.gc.retention import Retention
    from fastoci.store.layers.layers import Layers
    from fastoci.store.layers.unpacked import Unpacked
    from fastoci.store.upload_notes import UploadNoteFiles
    from fastoci.store.usage import Usage

_LOG: Final = logging.getLogger(__name__)

T = TypeVar("T")


class Store:
    """``BlobStore`` on a directory. Made by ``Store.at``; ``refs`` are its references, ``blobs`` its blobs.

    Belongs to one event loop; ``open`` and ``holds`` may be called from any thread. ``left_out`` says which additional
    stores cannot be used, and why.
    """

    def __init__(self, paths: StoreLayout, additional: Sequence[Path], limits: Limits) -> None:
        self.path = Path(paths.root)
        self.refs = Refs(paths)
        self._paths = paths
        self._manifest_size = limits.manifest_size
        boot = boot_id()
        self._additional, self.left_out = open_additional(paths, additional, boot)
        self.blobs = Blobs(paths, boot, self._additional, limits)
        self._threads = self.blobs.threads
        self._leases = Leases(paths, boot, self._threads)
        self._level = limits.durability
        self._boot_id = boot
        self._reservations = Reservations(self.blobs, limits, self.size)

    @classmethod
    def at(cls, path: Path, additional: Sequence[Path] = (), *, limits: Limits | None = None) -> Store:
        """Open the store in a directory, made when absent or empty; an OCI layout there becomes one.

        Args:
            additional: stores that are asked before the network, beside those that ``fastoci.json`` names.
            limits: its durability, how large it may become, how large a document that is followed may be, and how long
                another process may make no progress with a blob.
        Raises:
            StoreError: no store, of a newer format, not safe to trust, or it cannot be made.
        """
        paths = open_store(path)
        try:
            store = cls(paths, additional, limits or Limits())
        except BaseException:
            paths.close()
            raise
        if _LOG.isEnabledFor(logging.DEBUG):
            kind = file_system(paths.top.fd)
            _LOG.debug("%s: open, on a file system of type 0x%x", paths.root, kind)
        return store

    def close(self) -> None:
        """End the threads and let go of the directories; no ingest is open any more. Idempotent."""
        self._threads.close()
        self.blobs.small.close()
        for paths in (self._paths, *self.additional):
            paths.close()

    @asynccontextmanager
    async def session(self, blobs: Collection[Descriptor]) -> AsyncIterator[Session]:
        """Begin a job that brings blobs: ``BlobStore.session``."""
        opening = open_session(blobs, self.blobs, self.refs, lease=self.lease(blobs), reservations=self._reservations)
        async with opening as session:
            yield session

    def lent_writer(self, blob: Descriptor) -> Writer:
        """Who brings one blob for the session of another process, which has its lease, reservation and mark.

        That process adopts the blob (``StoreWriter.adopt``), and makes durable what is so late.
        """
        self.blobs.unsynced.trust_mark(blob.digest)
        return Writer(self.blobs, self.refs, frozenset({blob.digest}))

    @asynccontextmanager
    async def keep(self, blobs: Collection[Descriptor], *, name: str = "") -> AsyncIterator[None]:
        """Keep blobs from gc while they are read: ``BlobStore.keep``."""
        if name:
            with suppress(BlobNotFoundError):  # removed meanwhile: its blobs are still here
                await self._threads.run(lambda: self.refs.touch(name))
        async with AsyncExitStack() as held:
            if await self._threads.run(self._may_write):
                with suppress(StoreFullError) if name else nullcontext():
                    await held.enter_async_context(self.lease(blobs))
            yield

    @asynccontextmanager
    async def lease(self, blobs: Collection[Descriptor]) -> AsyncIterator[None]:
        """Keep blobs from gc, those that are there and those to come.

        Raises:
            StoreError: the disk refused, or it is one that no store can be on.
        """
        await self._threads.run(self.blobs.probe)
        async with self._leases.protect([blob.digest for blob in blobs]):
            yield

    @asynccontextmanager
    async def borrowing(self, directory: Path) -> AsyncIterator[set[Digest]]:
        """Count blobs of another program's directory as there, those whose digests come into this set, meanwhile.

        Raises:
            StoreError: the directory is not there, or not safe to trust.
        """
        paths, cancelled = await self._threads.run_to_end(lambda: foreign_blobs(directory))
        other = Borrowed(paths, self._boot_id)
        self.blobs.borrow(other)
        try:
            if cancelled:
                raise asyncio.CancelledError
            yield other.digests
        finally:
            self.blobs.give_back(other)
            await self._threads.run(paths.close)  # after what reads there

    async def missing(self, blobs: Collection[Descriptor]) -> list[Descriptor]:
        """Which of these are absent: ``BlobStore.missing``."""
        return await self.blobs.missing(blobs)

    def holds(self, blob: Descriptor) -> bool:
        """Whether the blob is there, or in an additional store, by ``lstat`` of its name.

        Raises:
            StoreError: the disk refused to tell.
        """
        return self.blobs.holds(blob)

    async def find(self, digest: Digest) -> tuple[Descriptor, Path]:
        """A blob whose size nobody knows: ``Blobs.find``."""
        expect(Digest, digest, "digest", hint="Digest.parse makes one of text")
        blob, path = await self._threads.run(lambda: self.blobs.find(digest))
        return blob, Path(path)

    async def read(self, blob: Descriptor) -> bytes:
        """All bytes of a small blob: ``BlobStore.read``."""
        return await self.blobs.read(blob)

    def open(self, blob: Descriptor) -> int:
        """A read-only descriptor of the blob's file: ``BlobStore.open``."""
        return self.blobs.open(blob)

    async def spool(self) -> int:
        """An unnamed file on the store's disk, for bytes whose digest is not known yet; the caller closes it.

        Raises:
            StoreError: the disk refused.
        """
        fd, cancelled = await self._threads.run_to_end(self.blobs.spool)
        if cancelled:
            files.close(fd)
            raise asyncio.CancelledError
        return fd

    async def leave(self, blob: Descriptor, fd: int, hash_state: bytes) -> None:
        """Make an ingest of a ``spool`` that has all of a blob of this job, where that can be done."""
        await self._threads.run(lambda: self.blobs.leave(blob, fd, hash_state))

    async def mark_corrupt(self, digest: Digest) -> None:
        """Count a blob as absent until it is replaced: ``BlobStore.mark_corrupt``."""
        await self.blobs.mark_corrupt(digest)

    async def ingests(self) -> list[IngestStatus]:
        """All blobs on their way: ``BlobStore.ingests``."""
        return await self._threads.run(lambda: status.statuses(self._paths))

    async def ingest(self, digest: Digest) -> IngestStatus | None:
        """How far one is: ``BlobStore.ingest``."""
        return await self._threads.run(lambda: status.status(self._paths, digest))

    async def discard(self, digest: Digest) -> bool:
        """Delete what an earlier attempt left: ``BlobStore.discard``."""
        return await self._threads.run(lambda: status.discard(self._paths, digest))

    async def image(self, name: str) -> StoredImage:
        """What was recorded last under a name: ``BlobStore.image``."""
        return await self._threads.run(lambda: self.refs.get(name))

    async def recorded(self, names: Collection[str]) -> dict[str, StoredImage]:
        """What was recorded last under these names: ``BlobStore.recorded``."""
        return await self._threads.run_stoppable(lambda check: dict(self._recorded(names, check)))

    def _recorded(self, names: Collection[str], check: Check) -> Iterator[tuple[str, StoredImage]]:
        for name in names:
            check()
            with suppress(StoreError):
                yield name, self.refs.get(name)

    async def invalidate(self, name: str) -> None:
        """``refs.invalidate`` in the store's threads."""
        await self._threads.run(lambda: self.refs.invalidate(name))

    async def forget(self, name: str) -> bool:
        """``refs.remove`` in the store's threads."""
        return await self._threads.run(lambda: self.refs.remove(name))

    async def pin(self, name: str, pinned: bool) -> StoredImage:
        """``refs.pin`` in the store's threads."""
        return await self._threads.run(lambda: self.refs.pin(name, pinned))

    async def plan_gc(self, retention: Retention) -> GcPlan:
        """``gc.plan`` in one of the store's threads."""
        from fastoci.store.gc import collect
        from fastoci.store.gc.retention import Retention

        expect(Retention, retention, "retention")
        unsynced, limit = self.blobs.unsynced, self._manifest_size
        return await self._threads.run_stoppable(
            lambda check: collect.plan(
                self._paths, unsynced, retention, additional=self.additional, limit=limit, check=check
            )
        )

    async def plan_eviction(self, shortage: Shortage) -> tuple[GcPlan, int]:
        """``gc.plan_eviction`` in one of the store's threads."""
        from fastoci.store.gc import collect

        unsynced, limit = self.blobs.unsynced, self._manifest_size
        return await self._threads.run_stoppable(
            lambda check: collect.plan_eviction(
                self._paths, unsynced, shortage, additional=self.additional, limit=limit, check=check
            )
        )

    async def gc(self, plan: GcPlan) -> tuple[GcItem, ...]:
        """``gc.execute`` in one of the store's threads; a task that is cancelled leaves the rest for the next."""
        from fastoci.store.gc import collect

        expect(collect.GcPlan, plan, "plan")
        await self._threads.run(self.blobs.probe)
        unsynced, limit = self.blobs.unsynced, self._manifest_size
        return await self._threads.run_stoppable(
            lambda check: collect.execute(
                self._paths, unsynced, plan, additional=self.additional, limit=limit, check=check
            )
        )

    async def unpacked(self) -> Unpacked:
        """What is unpacked, as of now.

        Raises:
            StoreError: the disk refused.
        """
        from fastoci.store.layers.unpacked import Unpacked

        limit = self._manifest_size
        return await self._threads.run_stoppable(
            lambda check: Unpacked(self._paths, self.additional, limit=limit, check=check)
        )

    async def usage(self) -> Usage:
        """What takes how much disk space.

        Raises:
            StoreError: the disk refused.
        """
        return await self._usage(self.additional)

    async def walk(self, work: Callable[[Read, Check], T]) -> T:
        """Run what follows references in one of the store's threads; it ends early when this task is cancelled.

        Args:
            work: gets what reads documents, here and in additional stores, and what it has to call now and then.
        """
        limit, stores = self._manifest_size, (self._paths, *self.additional)
        return await self._threads.run_stoppable(lambda check: work(reader(stores, limit=limit, check=check), check))

    async def size(self) -> int:
        """Bytes of everything in it: as dear as ``usage``.

        Raises:
            StoreError: the disk refused.
        """
        return (await self._usage(())).total.size

    async def _usage(self, additional: Sequence[StoreLayout]) -> Usage:
        from fastoci.store.usage import usage

        limit = self._manifest_size
        return await self._threads.run_stoppable(lambda check: usage(self._paths, additional, limit=limit, check=check))

    @cached_property
    def layers(self) -> Layers:
        """What is unpacked: the ``LayerStore`` in this directory."""
        from fastoci.store.layers.layers import Layers

        return Layers(self.blobs, self._leases.protect, self._boot_id, self._level)

    @cached_property
    def upload_notes(self) -> UploadNoteFiles:
        """What is kept of uploads that are under way."""
        from fastoci.store.upload_notes import UploadNoteFiles

        return UploadNoteFiles(self._paths, self._threads)

    @property
    def paths(self) -> StoreLayout:
        """Where everything is."""
        return self._paths

    @property
    def additional(self) -> tuple[StoreLayout, ...]:
        """The additional stores that are in use."""
        return tuple(other.paths for other in self._additional)

    async def update_index(self) -> None:
        """Bring ``index.json`` up to date with the references, for other tools; once a job.

        Raises:
            StoreError: the disk refused, or another tool left an ``index.json`` that does not parse.
        """
        await self._threads.run(lambda: update_index(self._paths, self.refs))

    def _may_write(self) -> bool:
        with suppress(FileNotFoundError):
            return self._paths.leases.is_writable()
        return False
