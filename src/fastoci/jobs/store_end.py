"""The store as a place that images are copied from, and to: by the sessions, flights and names of a pull."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from fastoci.errors import FormatError, PlatformError, UnsupportedError
from fastoci.image import index as indexes
from fastoci.image import manifest as manifests
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.index import has_platform, select
from fastoci.image.platform import Platform
from fastoci.image.stored_image import StoredImage
from fastoci.image_interfaces import NamedImage, Way, WholeImage
from fastoci.interfaces import BlobSource, BlobStore, Spooler, SpoolingSource, StoreWriter
from fastoci.jobs.plan import Wanted
from fastoci.jobs.pull import PullContext
from fastoci.jobs.resolve import Link, read_config, read_document
from fastoci.limits import Limits
from fastoci.transfer.stored_source import StoredSource


class StoreImages(StoredSource):
    """Documents and blobs of the store, as ``jobs.copy.CopySource``; whoever reads them keeps them meanwhile.

    Args:
        images: all that have names.
    """

    def __init__(self, context: PullContext, images: Callable[[], Awaitable[Sequence[StoredImage]]]) -> None:
        super().__init__(context.store, context.layering.workers)
        self._context = context
        self._images = images

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """A document: as ``ImageCollection.manifest``."""
        return await read_document(self._context.store, descriptor, self._context.limits)

    async def names(self) -> tuple[NamedImage, ...]:
        """The images of the store: ``ImageCollection.names``."""
        return tuple(NamedImage(each.name, each.descriptor) for each in await self._images())

    async def top(self, image: StoredImage) -> Link:
        """What stands for an image: of one platform its manifest, of several what the name led to."""
        return await self.link(next(iter(image.images.values())) if len(image.images) == 1 else image.descriptor)

    async def link(self, descriptor: Descriptor) -> Link:
        """A document with its bytes."""
        return descriptor, await self.manifest(descriptor)


class Held(msgspec.Struct, frozen=True):
    """What of an image of the store is copied: ``platforms`` of what ``top`` names, as ``jobs.copy.Terms`` has them.

    ``lacking`` says that everything was asked for, and what of it is there; else it is empty.
    """

    top: Descriptor
    platforms: Wanted = None
    lacking: str = ""


async def held(image: StoredImage, wanted: Wanted, store: BlobStore, limits: Limits) -> Held:
    """Say what the store has of that which is wanted of an image: of one platform its manifest.

    Raises:
        PlatformError: the store does not have a platform that is wanted.
        FormatError, StoreError, IntegrityError: what the name leads to cannot be read.
    """
    there = {str(each.platform): each for each in image.images.values() if has_platform(each)}
    names = ", ".join(there) or "no image for a platform"
    for platform in wanted or ():
        if there and select(list(there.values()), platform) is None:
            more = f"`fastoci pull {image.name} --platform {platform}` brings it"
            raise PlatformError(f"the store has {names} of it, and not {platform}: {more}", available=tuple(there))
    if image.descriptor.media_type not in mediatype.INDEXES:
        return Held(image.descriptor, wanted)
    only = next(iter(image.images.values())) if len(image.images) == 1 else None
    top = image.descriptor if only is None else only
    if wanted != ():
        return Held(top, wanted)
    data = await read_document(store, image.descriptor, limits)
    if not await store.missing(indexes.parse(data, image.descriptor.media_type, choosing=True).manifests):
        return Held(image.descriptor, ())
    lacking = f"not all of it is in the store, which has {names}: that is copied; docker://{image.name} is all of it"
    return Held(top, () if only is not None else tuple(map(Platform.parse, there)), lacking)


class StoreSink:
    """``ImageSink`` over the store of an engine.

    Args:
        spooler: the store itself.
        image: what the user called what comes, in events.
    """

    def __init__(self, context: PullContext, spooler: Spooler, image: str) -> None:
        self._context = context
        self._spooler = spooler
        self._image = image

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[StoreSinkWriter]:
        """Bring images: ``ImageSink.begin``. After an error what came stays until gc."""
        async with AsyncExitStack() as sessions:
            writer = StoreSinkWriter(self._context, self._spooler, sessions, self._image)
            yield writer
            await writer.record()


class StoreSinkWriter:
    """``ImageWriter`` over sessions of the store: each question for what is missing begins one."""

    def __init__(self, context: PullContext, spooler: Spooler, sessions: AsyncExitStack, image: str) -> None:
        self.at_once = context.limits.flights
        self._spooler = spooler
        self._context = context
        self._sessions = sessions
        self._image = image
        self._writers: dict[Digest, StoreWriter] = {}
        self._images: list[WholeImage] = []

    async def missing(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        """Which of these are not there, by name and size: ``ImageWriter.missing``."""
        session = await self._sessions.enter_async_context(self._context.store.session(blobs))
        writer = await self._sessions.enter_async_context(session.reserve())
        self._writers |= dict.fromkeys((blob.digest for blob in blobs), writer)
        return list(session.missing)

    async def put_blob(self, blob: Descriptor, source: BlobSource) -> Way:
        """Bring one blob: ``ImageWriter.put_blob``. A file that a source kept becomes the blob without a copy."""
        if isinstance(source, SpoolingSource) and (kept := source.spooled(blob)) is not None:
            await self._spooler.leave(blob, *kept)
        writer = self._writers[blob.digest]
        head = await self._context.scheduler.fetch(writer, blob, source, image=self._image)
        await self._context.layering.notice_lie(blob, head, self._image)
        return "sent"

    async def put_document(self, descriptor: Descriptor, data: bytes) -> None:
        """Bring a manifest or index: ``ImageWriter.put_document``."""
        await self._context.keep_document(self._writers[descriptor.digest], descriptor, data, self._image)

    async def name(self, image: WholeImage) -> None:
        """Record an image at the end: ``ImageWriter.name``.

        Raises:
            UnsupportedError: it has no name.
        """
        if not image.name:
            raise UnsupportedError("the store has no images without a name")
        self._images.append(image)

    async def record(self) -> None:
        """Give the images their names, durably. Raises: as ``StoreWriter.record``."""
        for image in self._images:
            held: dict[str, Descriptor] = {}
            await self._collect(image.top, {blob.digest for blob in image.blobs}, held)
            pulled_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            stored = StoredImage(image.name, replace(image.top, platform=None), held, pulled_at)
            await self._writers[image.top.digest].record(stored)

    async def _collect(self, descriptor: Descriptor, brought: set[Digest], held: dict[str, Descriptor]) -> None:
        """The manifests below a document, by platform; what is for one that was there before has its digest, too."""
        data = await read_document(self._context.store, descriptor, self._context.limits)
        if descriptor.media_type in mediatype.INDEXES:
            for entry in indexes.parse(data, descriptor.media_type).manifests:
                if entry.digest in brought and entry.media_type in mediatype.INDEXES | mediatype.MANIFESTS:
                    await self._collect(entry, brought, held)
            return
        if not has_platform(descriptor):
            descriptor = await self._with_platform(descriptor, data)
        platform = str(descriptor.platform) if descriptor.platform else "unknown"
        held[platform if platform not in held else f"{platform}@{descriptor.digest.hex}"] = descriptor

    async def _with_platform(self, descriptor: Descriptor, data: bytes) -> Descriptor:
        """A manifest with the platform that its config says; an artifact, and what cannot be read, has none."""
        try:
            config = await read_config(
                self._context.store, manifests.parse(data, descriptor.media_type), self._context.limits
            )
        except (FormatError, UnsupportedError):
            return descriptor
        return replace(descriptor, platform=config.platform) if config is not None and config.os else descriptor
