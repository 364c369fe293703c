"""An image of Docker's schema 1 becomes one of schema 2: its layers are brought, and read while they arrive.

Its manifest names neither a config nor diff_ids. So its layers come first, and what they unpack to is hashed in the
same pass; then the store has all of the image that it is made into, and a pull goes on as with any other.
Spec: docs/forms.md, "Schema 1".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

import msgspec
from msgspec.structs import replace

from fastoci.aio import all_or_first
from fastoci.events import Warned
from fastoci.image import schema1
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.manifest import Manifest
from fastoci.image.stored_image import CONVERTED
from fastoci.interfaces import BlobSource, StoreSession, StoreWriter
from fastoci.jobs.layers import Arriving, Hashed, Layering
from fastoci.jobs.stored import Mending
from fastoci.stream.verify import Meter
from fastoci.transfer.scheduler import Scheduler
from fastoci.transfer.tee import Tee
from fastoci.transfer.unpack_totals import UnpackTotals

Made = tuple[Descriptor, Manifest]


class Schema1Bringing(msgspec.Struct, frozen=True):
    """What makes images of schema 2, in one engine.

    Args:
        keep: has a document in the store, as ``PullContext.keep_document`` does.
    """

    layering: Layering
    scheduler: Scheduler
    keep: Callable[[StoreWriter, Descriptor, bytes, str], Awaitable[None]]

    async def run(
        self,
        outline: Manifest,
        source: BlobSource,
        *,
        image: str,
        kept: AsyncExitStack,
        announce: Callable[[Sequence[Descriptor]], None],
    ) -> Made:
        """What an image became; its layers, its config and its manifest are in the store.

        Args:
            announce: is told which layers the store lacks.
            kept: is open for as long as gc leaves it there.
        Raises:
            FormatError, IntegrityError, UnsupportedError, LimitError: a layer is no layer.
            FastociError: one cannot be had. StoreError: the disk refused.
        """
        store, layers = self.layering.store, tuple({layer.digest: layer for layer in outline.layers}.values())
        session = await kept.enter_async_context(store.session(layers))
        announce(session.missing)
        diff_ids = await self._bring(session, layers, source, image)
        document = schema1.parse(outline.raw)
        sizes = {layer.digest: layer.size for layer in layers}
        made, config = schema1.converted(document, sizes, [diff_ids[digest] for digest in document.layers])
        described = Descriptor.of(made.raw, made.media_type)
        documents = await kept.enter_async_context(store.session((described, made.config)))
        async with documents.reserve() as writer:
            await self.keep(writer, made.config, config, image)
            await self.keep(writer, described, made.raw, image)
        was = str(outline.config.digest)
        text = f"Docker's schema 1 is kept as schema 2: {was} becomes {described.digest}"
        self.layering.observer(Warned(image, text))
        return replace(described, annotations={CONVERTED: was}), made

    async def _bring(
        self, session: StoreSession, layers: Sequence[Descriptor], source: BlobSource, image: str
    ) -> Mapping[Digest, Digest]:
        """Fetch the layers that are missing; the diff_ids of all, by their blobs."""
        found: dict[Digest, Digest] = {}
        tees = await self._tees(session.missing)
        async with session.reserve() as writer:

            async def fetch(blob: Descriptor) -> None:
                tee = tees.get(blob.digest)
                await self.scheduler.fetch(writer, blob, source, image=image, tee=tee, cached=tee is None)

            fetches = {blob.digest: asyncio.create_task(fetch(blob)) for blob in session.missing}

            async def ready(blob: Descriptor) -> None:
                if blob.digest in fetches:
                    await asyncio.shield(fetches[blob.digest])

            arriving = Arriving(Mending(image, source), ready, tees)
            pairs = [(blob, blob.digest) for blob in layers]  # nobody knows their diff_ids yet
            work = partial(self._read_all, layers, arriving, found)
            reading = asyncio.create_task(self.layering.until_right(work, pairs, arriving))
            try:
                await all_or_first([reading, *fetches.values()])
            finally:
                for tee in tees.values():
                    self.layering.reader.close_tee(tee)
            await writer.flush()
        return found

    async def _tees(self, missing: Sequence[Descriptor]) -> dict[Digest, Tee]:
        tees: dict[Digest, Tee] = {}
        for blob in missing:
            if (tee := await self.layering.reader.tee()) is None:
                break
            tees[blob.digest] = tee
        return tees

    async def _read_all(
        self, layers: Sequence[Descriptor], arriving: Arriving, found: dict[Digest, Digest], tees: Mapping[Digest, Tee]
    ) -> None:
        """Hash the tars of all layers that were not yet."""
        layering, mending = self.layering, arriving.mending
        totals = UnpackTotals(layering.limits, mending.image, lambda event: None, base=False, owners=False)

        async def read(number: int, blob: Descriptor) -> None:
            opened = partial(layering.open_blob, blob, mending=mending)
            ready, tee = partial(arriving.ready, blob), tees.get(blob.digest)
            async with layering.reader.arrived(tee, ready, opened) as (run, _):
                proof = await run(Hashed(), Meter(), partial(totals.progress, number))
            assert proof is not None
            found[blob.digest] = proof.digest

        left = [blob for blob in layers if blob.digest not in found]
        await all_or_first([asyncio.create_task(read(number, blob)) for number, blob in enumerate(left)])
