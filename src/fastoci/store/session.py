"""A job's time in a store: its lease, what it misses, the space for that, and its end under a name.

The order is kept by what each step hands out: ``open_session`` a session, ``reserve`` a writer, and only a writer
begins blobs and records names. Spec: docs/store-format.md 4, 6 and 8.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from fastoci.errors import BlobNotFoundError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.stored_image import StoredImage
from fastoci.interfaces import Ingest, SmallIngest
from fastoci.store.blobs import Blobs
from fastoci.store.refs import Refs
from fastoci.store.reservations import Reservations

_LOG: Final = logging.getLogger(__name__)


class Writer:
    """``StoreWriter``: made by ``Session.reserve``, and over with it."""

    def __init__(self, blobs: Blobs, refs: Refs, leased: frozenset[Digest]) -> None:
        self._blobs = blobs
        self._refs = refs
        self._leased = leased
        self._is_open = True

    def end(self) -> None:
        """Refuse everything from now on."""
        self._is_open = False

    async def begin(self, blob: Descriptor, *, cached: bool = False) -> Ingest | None:
        """Take hold of a digest: ``StoreWriter.begin``."""
        self._demand(blob)
        return await self._blobs.begin(blob, cached=cached)

    def begin_small(self, blob: Descriptor) -> SmallIngest | None:
        """Take hold of the digest of a blob that comes as a whole: ``StoreWriter.begin_small``."""
        self._demand(blob)
        return self._blobs.begin_small(blob)

    async def wait(self, blob: Descriptor, progressed: Callable[[int], None]) -> bool:
        """Return when nobody else holds it: ``StoreWriter.wait``."""
        self._demand(blob)
        return await self._blobs.wait(blob, progressed)

    async def adopt(self, blob: Descriptor) -> None:
        """Take over what another process committed: ``StoreWriter.adopt``."""
        self._demand(blob)
        await self._blobs.threads.run(lambda: self._blobs.adopt(blob))

    async def record(self, image: StoredImage) -> None:
        """Give an image its name: ``StoreWriter.record``."""
        named = (image.descriptor, *image.images.values())
        self._demand(*named)
        await self._blobs.threads.run(lambda: self._record(image, named))

    async def use(self, name: str) -> None:
        """Note that an image is used: ``StoreWriter.use``."""
        with suppress(BlobNotFoundError):
            await self._blobs.threads.run(lambda: self._refs.touch(name))

    async def flush(self) -> None:
        """Make durable what was committed: ``StoreWriter.flush``."""
        await self._blobs.threads.run(self._blobs.flush)

    def _demand(self, *blobs: Descriptor) -> None:
        if not self._is_open:
            raise ValueError("the session is over")
        for blob in blobs:
            if blob.digest not in self._leased:
                raise ValueError(f"{blob.digest} is not of this session")

    def _record(self, image: StoredImage, named: Collection[Descriptor]) -> None:
        for blob in self._blobs.find_missing(named):
            text = f"{image.name} names {blob.digest}, which the store does not have"
            raise BlobNotFoundError(text, path=self._blobs.paths.blob(blob.digest), subject=str(blob.digest))
        self._blobs.flush()
        self._refs.set(image)


class Session:
    """``StoreSession``: made by ``open_session``."""

    def __init__(
        self,
        blobs: Blobs,
        refs: Refs,
        reservations: Reservations,
        *,
        leased: frozenset[Digest],
        missing: Collection[Descriptor],
    ) -> None:
        self.missing = tuple(missing)
        self._blobs = blobs
        self._refs = refs
        self._reservations = reservations
        self._leased = leased

    @asynccontextmanager
    async def reserve(self, *, root: Path | None = None, unpacked: int = 0) -> AsyncIterator[Writer]:
        """Hold space for what is missing: ``StoreSession.reserve``."""
        async with self._reservations.reserve(self.missing, root=root, unpacked=unpacked):
            writer = Writer(self._blobs, self._refs, self._leased)
            try:
                yield writer
            finally:
                writer.end()


@asynccontextmanager
async def open_session(
    wanted: Collection[Descriptor],
    blobs: Blobs,
    refs: Refs,
    *,
    lease: AbstractAsyncContextManager[None],
    reservations: Reservations,
) -> AsyncIterator[Session]:
    """Lease, then see what is missing, then mark it pending: ``BlobStore.session``."""
    leased = frozenset(blob.digest for blob in wanted)
    async with lease:
        missing = await blobs.threads.run(lambda: _find(blobs, wanted))
        yield Session(blobs, refs, reservations, leased=leased, missing=missing)


def _find(blobs: Blobs, wanted: Collection[Descriptor]) -> list[Descriptor]:
    missing = blobs.find_missing(wanted)
    _LOG.debug("%s: lease of %d blobs, %d are missing", blobs.paths.root, len(wanted), len(missing))
    blobs.mark_pending(missing)
    return missing
