"""What is looked at: an image of the store, or of any other end, with its documents and layers.

Nothing is brought into the store. Spec: docs/inspect.md.
"""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Literal, Protocol, TypeVar

from msgspec.structs import replace

from fastoci._core import Buffer
from fastoci.errors import BlobNotFoundError, IntegrityError
from fastoci.image import manifest as manifest_document
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.platform import ALL, Platform
from fastoci.image.stored_image import StoredImage
from fastoci.interfaces import BlobSource, BufferSource
from fastoci.jobs.browse import Browsing, go_on
from fastoci.jobs.image import choose
from fastoci.jobs.layers import Arriving, Pairs
from fastoci.jobs.merging import Merging, Turn, scratch, temporary
from fastoci.jobs.pull import PullContext
from fastoci.jobs.resolve import Descent, Documents, DocumentSource, Found, check_size, outline_of, read_document
from fastoci.jobs.stored import Mending
from fastoci.stream.verify import Verifier
from fastoci.transfer.layer_reading import LayerSink, Progressed
from fastoci.transfer.spooled_source import Spool, SpooledSource
from fastoci.transfer.stored_source import StoredSource

S = TypeVar("S", bound=LayerSink)
Wanted = Platform | Literal["all"] | None  # a platform; all that there are; this machine's


def wanted_of(platform: str | None) -> Wanted:
    """What is asked for by a text.

    Raises:
        ReferenceSyntaxError: it is not a platform.
    """
    return None if platform is None else "all" if platform == ALL else Platform.parse(platform)


class ReadableLayers(Protocol):
    """The layers of one image, each of which can be read as often as is wanted."""

    async def metadata(self) -> io.FileIO:
        """Merged metadata with a device for each layer; the caller closes the file.

        Raises:
            FormatError, UnsupportedError, UnpackError, IntegrityError: layers are damaged, or not for trees.
            StoreError: the disk refused. FastociError: they cannot be had.
        """

    async def read(self, number: int, make: Callable[[], S], progressed: Progressed = go_on) -> S:
        """A new sink that has all of one layer's tar, which has its diff_id.

        Args:
            progressed: says when that is too much; nothing is of a layer that was merged.
        Raises:
            FastociError: as ``metadata``.
        """


class Subject(Protocol):
    """An image, or an index of some, at one place."""

    @property
    def name(self) -> str:
        """What it was called."""

    @property
    def top(self) -> tuple[Descriptor, bytes]:
        """The document that the name leads to."""

    async def images(self, documents: Documents, wanted: Wanted) -> list[Found]:
        """The images for a platform, or of all.

        Raises:
            PlatformError: there is none.
            FormatError, UnsupportedError, FastociError: documents cannot be read.
        """

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """A manifest or index, verified. Raises: as ``ImageSource.manifest``."""

    async def document(self, descriptor: Descriptor) -> bytes:
        """A config, verified. Raises: as the source of blobs does."""

    async def has(self, layer: Descriptor) -> bool:
        """Whether a layer is at hand: on this machine."""

    def layers(self, image: Found, pairs: Pairs) -> ReadableLayers:
        """The layers of one of the images, with their diff_ids."""


class EndSource(DocumentSource, BlobSource, Protocol):
    """A place that has both documents and blobs."""


def spool_of(context: PullContext) -> Spool:
    """A place for the layers of registries that are read several times."""
    return Spool(context.layering.workers, partial(temporary, scratch(context.layering.root)))


@asynccontextmanager
async def stored_subject(
    context: PullContext, ref: StoredImage, asked: str, *, is_platform: bool
) -> AsyncIterator[StoredSubject]:
    """An image of the store, kept from gc meanwhile.

    Args:
        asked: what the user called it.
        is_platform: by a platform's digest, which means that manifest, and not the index of its name.
    Raises:
        BlobNotFoundError: the store lost a document of it.
        FormatError, UnsupportedError, IntegrityError: one is damaged.
    """
    top = ref.descriptor
    if is_platform and len(ref.images) == 1:
        (top,) = ref.images.values()
    async with context.store.keep([top, *ref.images.values()], name=ref.name):
        parts = []
        for manifest in ref.images.values():
            data = await read_document(context.store, manifest, context.limits)
            parsed = manifest_document.parse(data, manifest.media_type)
            parts += [parsed.config, *parsed.layers]
        async with context.store.keep(parts):
            yield StoredSubject(context, ref, (top, await read_document(context.store, top, context.limits)), asked)


class StoredSubject:
    """A ``Subject`` of the store, whose blobs the caller keeps."""

    def __init__(self, context: PullContext, ref: StoredImage, top: tuple[Descriptor, bytes], asked: str) -> None:
        self.name = ref.name
        self.top = top
        self._context = context
        self._ref = ref
        self._asked = asked

    async def images(self, documents: Documents, wanted: Wanted) -> list[Found]:
        """Of a platform, or all that were pulled: ``Subject.images``."""
        chosen = self._ref.images.values() if isinstance(wanted, str) else (choose(self._ref, wanted),)
        return [await self._found(manifest) for manifest in dict.fromkeys(chosen)]

    async def _found(self, descriptor: Descriptor) -> Found:
        data = await self.manifest(descriptor)
        return ((descriptor, data),), manifest_document.parse(data, descriptor.media_type)

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """Out of the store: ``Subject.manifest``."""
        return await read_document(self._context.store, descriptor, self._context.limits)

    async def document(self, descriptor: Descriptor) -> bytes:
        """Out of the store: ``Subject.document``."""
        return await read_document(self._context.store, descriptor, self._context.limits, what="config")

    async def has(self, layer: Descriptor) -> bool:
        """Always; what is lost says so when it is read."""
        return True

    def layers(self, image: Found, pairs: Pairs) -> ReadableLayers:
        """Out of layer files and blobs: ``Subject.layers``."""
        return Browsing(self._context.layering, pairs, image[0][-1][0].digest, Arriving(Mending(self._asked, None)))


class EndSubject:
    """A ``Subject`` of any other end. What of a registry's layers the store has is read there.

    Args:
        source: of documents and blobs.
        spool: keeps the layers of a registry that are read; None where blobs are on this machine.
    """

    def __init__(
        self,
        context: PullContext,
        name: str,
        top: tuple[Descriptor, bytes],
        source: EndSource,
        spool: Spool | None,
    ) -> None:
        self.name = name
        self.top = top
        self._context = context
        self._source = source
        self._spool = spool

    async def images(self, documents: Documents, wanted: Wanted) -> list[Found]:
        """By the indexes: ``Subject.images``. An image of schema 1 is as far known as its layers need not be read."""
        top, data = self.top
        if top.media_type in mediatype.SCHEMA1:
            asked = (wanted,) if isinstance(wanted, Platform) else None
            manifest, platform = await outline_of(self.top, self._source, asked, self._context.limits)
            return [(((replace(top, platform=platform), data),), manifest)]
        if isinstance(wanted, str):
            return await Descent(documents, None).follow_all(*self.top)
        return [await Descent(documents, wanted or Platform.host()).follow(*self.top)]

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """As the source: ``Subject.manifest``."""
        return await self._source.manifest(descriptor)

    async def document(self, descriptor: Descriptor) -> bytes:
        """Out of the descriptor, the store, or the source: ``Subject.document``."""
        check_size(descriptor, self._context.limits, what="config")
        if descriptor.data is not None:
            return descriptor.data
        if self._spool is not None:
            with suppress(BlobNotFoundError, IntegrityError):
                return await read_document(self._context.store, descriptor, self._context.limits, what="config")
        sink = _Bytes()
        await self._context.streams.into(descriptor, self._source, sink)
        return bytes(sink.data)

    async def has(self, layer: Descriptor) -> bool:
        """When the end is here, or the store has it: ``Subject.has``."""
        return self._spool is None or not await self._context.store.missing([layer])

    def layers(self, image: Found, pairs: Pairs) -> ReadableLayers:
        """As they come: ``Subject.layers``."""
        source: BlobSource = self._source
        if self._spool is not None:
            source = _StoreFirst(self._context, SpooledSource(source, self._spool))
        return StreamedLayers(self._context, self.name, source, image[0][-1][0].digest, pairs)


class _StoreFirst:
    """A ``BlobSource`` that a store is asked before, which keeps the blob while it is read."""

    def __init__(self, context: PullContext, source: BlobSource) -> None:
        self.name = source.name
        self._store = context.store
        self._stored = StoredSource(context.store, context.layering.workers)
        self._source = source

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield the bytes from ``offset`` on: ``BlobSource.fetch``. What the store has damaged fails by its digest."""
        async with self._store.keep([blob]):
            source = self._source if await self._store.missing([blob]) else self._stored
            async with aclosing(source.fetch(blob, offset, buffers)) as arriving:
                async for buffer in arriving:
                    yield buffer


class StreamedLayers:
    """``ReadableLayers`` of a source, which pass by."""

    def __init__(self, context: PullContext, name: str, source: BlobSource, manifest: Digest, pairs: Pairs) -> None:
        self._reader = context.layering.reader
        self._workers = context.layering.workers
        self._limits = context.limits
        self._scratch = scratch(context.layering.root)
        self._name = name
        self._source = source
        self._manifest = manifest
        self._pairs = pairs

    async def metadata(self) -> io.FileIO:
        """Merged out of all layers, each read once: ``ReadableLayers.metadata``."""

        async def read(turn: Turn) -> None:
            blob, diff_id = self._pairs[turn.number]
            await self._reader.from_source(self._source, blob, turn.sink(), Verifier(diff_id, None), turn.progressed)

        file = await self._workers.acquire(partial(temporary, self._scratch), io.FileIO.close)
        try:
            merging = Merging(self._workers, self._reader, self._limits)
            await merging.merge(file, self._name, self._manifest, self._pairs, read)
        except BaseException:
            file.close()
            raise
        return file

    async def read(self, number: int, make: Callable[[], S], progressed: Progressed = go_on) -> S:
        """A layer, as it comes: ``ReadableLayers.read``."""
        blob, diff_id = self._pairs[number]
        sink = make()
        await self._reader.from_source(self._source, blob, sink, Verifier(diff_id, None), progressed)
        return sink


class _Bytes:
    """A sink of a document, which was weighed before."""

    def __init__(self) -> None:
        self.data = bytearray()

    def feed(self, buffer: Buffer) -> None:
        """More of it."""
        self.data += memoryview(buffer)

    def finish(self) -> None:
        """That was all."""

    def abort(self) -> None:
        """Nothing is held."""
