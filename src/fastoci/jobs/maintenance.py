"""What keeps a store in order: what is in it, what that takes, whether it is whole, and views for other tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike

from fastoci import path_walk
from fastoci.errors import StoreError
from fastoci.events import Observer
from fastoci.image.reference import Reference
from fastoci.jobs.pull import Repository
from fastoci.jobs.repair import Repair, Repairing
from fastoci.jobs.stored import Mending, Stored
from fastoci.jobs.verify import Verification, Verifying, sound
from fastoci.layouts.oci_layout import LayoutImage
from fastoci.limits import Limits
from fastoci.store.graph import Listed, Read, descriptor, listed, listed_as, needed_by, size_of
from fastoci.store.refs import Ref
from fastoci.store.store import Store
from fastoci.store.usage import Usage
from fastoci.threads import Check
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.scheduler import Scheduler
from fastoci.transfer.workers import WorkerPool


@dataclass(frozen=True, slots=True)
class Listing:
    """A line of a list of images. ``size`` is of configs and layers, over all ``platforms`` that are here, in bytes."""

    name: str
    digest: str
    platforms: tuple[str, ...]
    size: int
    pulled_at: str
    pinned: bool


class Upkeep:
    """Everything here takes references as ``docker pull`` does; none means all that are in the store."""

    def __init__(
        self,
        store: Store,
        scheduler: Scheduler,
        worker: WorkerPool,
        buffers: Buffers,
        *,
        stored: Stored,
        repository: Callable[[Reference], Awaitable[Repository]],
        limits: Limits,
        observer: Observer,
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._stored = stored
        self._repository = repository
        self._observer = observer
        self._verifying = Verifying(store, worker, buffers, threads=limits.workers, observer=observer)

    async def listing(self) -> tuple[tuple[Listing, ...], tuple[StoreError, ...]]:
        """All references by name, and what is wrong with the files that are none."""

        def work(read: Read, check: Check) -> tuple[tuple[Listing, ...], tuple[StoreError, ...]]:
            refs, broken = listed(self._store.paths, check=check)
            return tuple(_listing(ref, size_of(ref, read)) for ref in refs), tuple(broken)

        return await self._store.walk(work)

    async def usage(self) -> Usage:
        """How much room is taken, and for whom.

        Raises:
            StoreError: the disk refused.
        """
        return await self._store.usage()

    async def verify(self, references: Sequence[str] = (), *, rate: int | None = None) -> Verification:
        """Hash again what references need; or, without any, every blob of the store, from where that was interrupted.

        Args:
            rate: bytes a second that are read at most.
        Raises:
            BlobNotFoundError: the store has no such reference.
            StoreBusyError: another process verifies the store.
        """
        if references:
            return await self._verifying.needed(await self._refs(references), rate)
        return await self._verifying.everything(rate)

    async def repair(self, references: Sequence[str] = ()) -> Repair:
        """Hash again what references need, and fetch what is bad or missing from where they point to.

        Raises:
            BlobNotFoundError: the store has no such reference.
        """
        work = Repairing(
            self._store,
            self._scheduler,
            self._verifying,
            repository=self._repository,
            observer=self._observer,
        )
        return await work.repair(await self._refs(references))

    async def view(self, directory: str | PathLike[str], references: Sequence[str] = ()) -> int:
        """Write an OCI layout of images, whose blobs are hard links to the store's where possible; how many there are.

        Raises:
            BlobNotFoundError: the store has no such reference, or lost a part of it.
            IntegrityError: a blob is damaged in the store.
            StoreError: ``directory`` is no layout, or cannot be written.
            StoreBusyError: another process extends the layout, and did not end.
        """

        target = path_walk.absolute(directory)

        def work(read: Read, check: Check) -> list[LayoutImage]:
            if references:
                refs = [self._store.refs.get(str(Reference.parse(each))) for each in dict.fromkeys(references)]
            else:
                refs = list(self._store.refs.list()[0])
            return [_layout_image(ref, sound(read)) for ref in refs]

        images = await self._store.walk(work)
        await self._stored.export(target, images, Mending("", None))
        return len(images)

    async def _refs(self, references: Sequence[str]) -> list[Listed]:
        if not references:
            return (await self._store.walk(lambda _, check: listed(self._store.paths, check=check)))[0]
        names = dict.fromkeys(str(Reference.parse(each)) for each in references)
        return [listed_as(await self._store.reference(name)) for name in names]


def _layout_image(ref: Ref, read: Read) -> LayoutImage:
    """As in ``index.json``: of one platform its manifest, which every tool can read, of several what was named."""
    only = next(iter(ref.images.values())) if len(ref.images) == 1 else None
    top = ref.descriptor if only is None else only
    blobs = [descriptor(link) for link in needed_by(listed_as(replace(ref, descriptor=top)), read)]
    return LayoutImage(ref.name, top, blobs)


def _listing(ref: Listed, size: int) -> Listing:
    return Listing(ref.name, ref.descriptor.digest, tuple(ref.images), size, ref.pulled_at, ref.pinned)
