"""Repair: what references need and is bad or missing is fetched again, and replaced only by what is verified.

A bad blob stays where it is until its replacement is renamed over it; for this process it counts as absent meanwhile.
As long as a manifest is bad, a collection does not know what it names, and deletes that. So a repair keeps it by a
lease, as a pull does, and has older plans look at the reference again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from fastoci.errors import FastociError, FormatError
from fastoci.events import ImageDone, ImageFailed, ImageStarted, Observer
from fastoci.image.digest import Digest
from fastoci.image.links import Link, has_links, links
from fastoci.image.mediatype import INDEXES
from fastoci.image.reference import Reference
from fastoci.jobs.pull import Repository
from fastoci.jobs.verify import Verifying
from fastoci.store.graph import Listed, descriptor
from fastoci.store.store import Store
from fastoci.transfer.scheduler import BytesSource, Scheduler


@dataclass(frozen=True, slots=True)
class Repair:
    """What was replaced, by digest, and why the rest was not, by reference."""

    repaired: tuple[str, ...]
    failed: tuple[tuple[str, FastociError], ...]


class Repairing:
    """Repairs references one after the other; blobs that they share are looked at once.

    Args:
        repository: where a reference's name leads to.
    """

    def __init__(
        self,
        store: Store,
        scheduler: Scheduler,
        verifying: Verifying,
        *,
        repository: Callable[[Reference], Awaitable[Repository]],
        observer: Observer,
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._verifying = verifying
        self._repository = repository
        self._observe = observer
        self._good: set[str] = set()
        self._repaired: list[str] = []

    async def repair(self, refs: Sequence[Listed]) -> Repair:
        """Repair all that these references need; what cannot be had is told, and the others go on."""
        failed: list[tuple[str, FastociError]] = []
        for ref in refs:
            try:
                if await self._one(ref):
                    self._observe(ImageDone(ref.name, ref.descriptor.digest))
            except FastociError as error:
                self._observe(ImageFailed(ref.name, str(error)))
                failed.append((ref.name, error))
        if self._repaired:
            await self._store.flush()
        return Repair(tuple(self._repaired), tuple(failed))

    async def _one(self, ref: Listed) -> bool:
        """Whether anything was to be done."""
        source = _Source(ref.name, self._repository, self._observe)
        needed: dict[str, Link] = {}
        images = (ref.descriptor, *ref.images.values())
        async with self._store.lease_if_writable(map(descriptor, images)):
            for image in images:
                await self._documents(image, source, needed)
            async with self._store.lease_if_writable(map(descriptor, needed.values())):  # before they are looked at
                if not {image.digest for image in images}.isdisjoint(self._repaired):
                    await self._store.invalidate(ref.name)
                await self._blobs(ref, source, needed)
        return source.used

    async def _blobs(self, ref: Listed, source: _Source, needed: dict[str, Link]) -> None:
        """Bring what the documents need into order, as far as it can be had; then the first error is raised."""
        failed: FastociError | None = None
        for bad in await self._verifying.outcomes([needed[each] for each in sorted(needed.keys() - self._good)]):
            blob = descriptor(needed[bad.digest])
            self._store.treat_as_absent(blob.digest)
            repository = await source.get()
            try:
                await self._scheduler.fetch(blob, repository, image=ref.name)
                self._repaired.append(bad.digest)
            except FastociError as error:  # the next one may be had all the same
                failed = failed or error
        if failed is not None:
            raise failed
        self._good |= needed.keys()

    async def _documents(self, link: Link, source: _Source, needed: dict[str, Link]) -> None:
        """Bring a document that is needed into order, and find what it needs."""
        if not has_links(link.media_type):
            needed[link.digest] = link
            return
        blob = descriptor(link)
        data = await self._store.walk(lambda read, _: read(link), additional=False)
        if data is None or Digest.of(data, blob.digest.algorithm) != blob.digest:
            data = await (await source.get()).manifest(blob)
            self._store.treat_as_absent(blob.digest)
            await self._scheduler.fetch(blob, BytesSource(data), image=source.image)
            self._repaired.append(link.digest)
        if link.media_type in INDEXES:  # its manifests are those of all platforms: the reference says which are held
            return
        for child in links(data, link.media_type):
            if has_links(child.media_type):
                raise FormatError(f"{link.digest} names the document {child.digest} as a part of an image")
            needed[child.digest] = child


class _Source:
    """The repository of a reference, asked for when it is needed first."""

    def __init__(self, image: str, repository: Callable[[Reference], Awaitable[Repository]], observe: Observer) -> None:
        self.image = image
        self._find = repository
        self._observe = observe
        self._found: Repository | None = None

    @property
    def used(self) -> bool:
        return self._found is not None

    async def get(self) -> Repository:
        if self._found is None:
            self._observe(ImageStarted(self.image))
            self._found = await self._find(Reference.parse(self.image))
        return self._found
