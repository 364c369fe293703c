"""Repair: what references need and is bad or missing is fetched again, and replaced only by what is verified.

A bad blob stays where it is until its replacement is renamed over it; for this process it counts as absent meanwhile.
As long as a manifest is bad, a collection does not know what it names, and deletes that. So a repair keeps it by a
lease, as a pull does, and has older plans read the reference again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from fastoci.errors import FastociError, FormatError, IntegrityError, StoreError
from fastoci.events import ImageDone, ImageStarted, Observer
from fastoci.image.descriptor import Descriptor
from fastoci.image.graph import tops_of
from fastoci.image.links import Link, has_links, links
from fastoci.image.mediatype import INDEXES
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage
from fastoci.interfaces import BlobSource, BlobStore
from fastoci.jobs.pull import Repository, image_failed
from fastoci.jobs.resolve import read_document
from fastoci.jobs.verify import Verifying
from fastoci.limits import Limits
from fastoci.store.graph import descriptor
from fastoci.transfer.scheduler import BytesSource, Scheduler

if TYPE_CHECKING:
    from fastoci.jobs.repair_unpacked import RepairedStore


class Repair(msgspec.Struct, frozen=True):
    """What was replaced, by digest, and why the rest was not, by reference."""

    repaired: tuple[str, ...]
    failed: tuple[tuple[str, FastociError], ...]


class Repairing:
    """Repairs references one after the other; blobs that they share are hashed once.

    Args:
        repository: where a reference's name leads to.
        unpacked: what is done to the store beside its blobs.
    """

    def __init__(
        self,
        store: BlobStore,
        scheduler: Scheduler,
        verifying: Verifying,
        *,
        repository: Callable[[Reference], Awaitable[Repository]],
        unpacked: RepairedStore,
        limits: Limits,
        observer: Observer,
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._verifying = verifying
        self._repository = repository
        self._unpacked = unpacked
        self._limits = limits
        self._observe = observer
        self._good: set[str] = set()
        self._repaired: list[str] = []

    async def repair(self, refs: Sequence[StoredImage]) -> Repair:
        """Repair all that these references need; what cannot be had is reported, and the others go on."""
        failed: list[tuple[str, FastociError]] = []
        for ref in refs:
            try:
                if await self._one(ref):
                    self._observe(ImageDone(ref.name, str(ref.descriptor.digest)))
            except FastociError as error:
                self._observe(image_failed(ref.name, error))
                failed.append((ref.name, error))
        return Repair(tuple(self._repaired), tuple(failed))

    async def _one(self, ref: StoredImage) -> bool:
        """Whether anything was to be done."""
        source = _Source(ref.name, self._repository, self._observe)
        needed: dict[str, Link] = {}
        images = tops_of(ref)
        async with self._store.keep(list(map(descriptor, images))):
            for image in images:
                await self._documents(image, source, needed)
            async with self._store.keep(list(map(descriptor, needed.values()))):  # before they are hashed
                if not {image.digest for image in images}.isdisjoint(self._repaired):
                    await self._unpacked.invalidate(ref.name)
                remade = await self._blobs(ref, source, needed)
        if remade:
            await self._unpacked.settle(ref)
        return source.used

    async def _blobs(self, ref: StoredImage, source: _Source, needed: dict[str, Link]) -> bool:
        """Bring what the documents need into order, as far as it can be had; then the first error is raised.

        Returns:
            whether something unpacked was made again.
        """
        discarded = await self._unpacked.discard_bad(ref)
        spared = await self._unpacked.spared(ref)
        found = await self._verifying.outcomes([needed[each] for each in sorted(needed.keys() - self._good)])
        bad = [each for each in found if each.kind != "missing" or each.digest not in spared]
        wanted: list[tuple[Descriptor, BlobSource]] = []
        for blob in (descriptor(needed[each.digest]) for each in bad):
            wanted.append((blob, self._unpacked.source(blob) or await source.get()))
        if wanted:
            await self._replace(wanted, ref.name)
        await self._unpacked.remake(ref, discarded.manifests)
        self._repaired += discarded.digests
        self._good |= needed.keys() - {each.digest for each in found}.difference(each.digest for each in bad)
        return bool(discarded.digests)

    async def _replace(self, wanted: Sequence[tuple[Descriptor, BlobSource]], image: str) -> None:
        """Fetch blobs that are bad or missing, as far as they can be had; then the first error is raised."""
        failed: FastociError | None = None
        for blob, _ in wanted:
            await self._store.mark_corrupt(blob.digest)
        async with self._store.session([blob for blob, _ in wanted]) as session, session.reserve() as writer:
            for blob, source in wanted:
                try:
                    await self._scheduler.fetch(writer, blob, source, image=image)
                    self._repaired.append(str(blob.digest))
                except FastociError as error:  # the next one may be had all the same
                    failed = failed or error
            await writer.flush()
        if failed is not None:
            raise failed

    async def _documents(self, link: Link, source: _Source, needed: dict[str, Link]) -> None:
        """Bring a document that is needed into order, and find what it needs."""
        if not has_links(link.media_type):
            needed[link.digest] = link
            return
        blob = descriptor(link)
        data = await self._sound(blob)
        if data is None:
            data = await (await source.get()).manifest(blob)
            await self._replace([(blob, BytesSource(data))], source.image)
        if link.media_type in INDEXES:  # its manifests are those of all platforms: the reference says which are held
            return
        for child in links(data, link.media_type):
            if has_links(child.media_type):
                raise FormatError(f"{link.digest} names the document {child.digest} as a part of an image")
            needed[child.digest] = child

    async def _sound(self, blob: Descriptor) -> bytes | None:
        """A document of the store itself, when it is there and what its name says."""
        if not await self._store.missing([blob]):
            with suppress(StoreError, IntegrityError):
                return await read_document(self._store, blob, self._limits)
        return None


class _Source:
    """The repository of a reference, asked for when it is needed first."""

    def __init__(self, image: str, repository: Callable[[Reference], Awaitable[Repository]], observe: Observer) -> None:
        self.image = image
        self._find = repository
        self._observe = observe
        self._found: Repository | None = None

    @property
    def used(self) -> bool:
        """Whether it was asked for."""
        return self._found is not None

    async def get(self) -> Repository:
        """The repository; opened by the first call.

        Raises:
            ReferenceSyntaxError, FastociError: as the engine's opening.
        """
        if self._found is None:
            self._observe(ImageStarted(self.image))
            self._found = await self._find(Reference.parse(self.image))
        return self._found
