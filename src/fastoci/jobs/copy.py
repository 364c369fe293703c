"""Bring images from one place to another: documents are read, then blobs go through, then documents, then names.

Knows no transport: a source gives documents and blobs, a sink takes them. No blob waits here as a whole.
Spec: image-spec v1.1 image-index.md, manifest.md; distribution-spec v1.1 (what names something comes after it).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec

from fastoci.aio import all_or_first
from fastoci.errors import FastociError, FormatError, IntegrityError, UnsupportedError
from fastoci.events import (
    BlobDone,
    BlobFailed,
    BlobStarted,
    ImageDone,
    ImageFailed,
    ImagePlanned,
    ImageStarted,
    Observer,
    Warned,
)
from fastoci.image import index as indexes
from fastoci.image import manifest as manifests
from fastoci.image import mediatype
from fastoci.image.attachments import Attachment, attestations
from fastoci.image.convert import Conversion
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.index import made_of
from fastoci.image.manifest import Manifest
from fastoci.image.platform import Platform
from fastoci.image_interfaces import AttachmentSource, ImageSink, ImageWriter, Way, WholeImage
from fastoci.interfaces import BlobSource, BlobStore, CorruptionAwareSource
from fastoci.jobs.attachments import Attached, find_attachments
from fastoci.jobs.plan import Wanted
from fastoci.jobs.pull import image_failed
from fastoci.jobs.resolve import Chain, Descent, Documents, DocumentSource, Link, outline_of
from fastoci.jobs.trust import Gate
from fastoci.limits import Limits
from fastoci.transfer.scheduler import BytesSource

if TYPE_CHECKING:
    from fastoci.jobs.conversion import Converting


class CopySource(DocumentSource, BlobSource, Protocol):
    """A place that has both the documents of an image and its blobs."""


class Origin(msgspec.Struct, frozen=True):
    """One image of a place: ``top`` reads what its name stands for.

    ``attachments`` says what hangs on it; None where nothing can.
    """

    source: CopySource
    top: Callable[[], Awaitable[Link]]
    attachments: AttachmentSource | None = None


class Terms(msgspec.Struct, frozen=True):
    """What of an image is copied, and what it is called.

    Args:
        platforms: the one whose manifest is copied, by default this machine's; of several, an index of theirs; with
            none at all, everything the name stands for, as it is.
        names: of the image at the destination; one is empty for an image without a name.
        preserve_digests: what the name stands for at the destination is what it stands for at the source.
        expected: the digest that this is to have.
        attached: what is copied of that which hangs on it.
        called: what that is called at the destination; None when its digest is all that names it there.
        leaves_foreign: layers that registries may not distribute stay where their descriptors say that they are.
        conversion: what the image becomes.
    """

    platforms: Wanted = None
    names: tuple[str, ...] = ("",)
    preserve_digests: bool = False
    expected: Digest | None = None
    attached: Attached = Attached()
    called: Callable[[Attachment], str | None] = lambda attachment: attachment.tag
    leaves_foreign: bool = False
    conversion: Conversion = Conversion()


Brought = tuple[Descriptor, Way]  # a blob of the destination, and how it came there


class Converters(Protocol):
    """What makes other images of images: ``conversion.Converters``."""

    def converting(self, conversion: Conversion, documents: Sequence[Link], warn: Callable[[str], None]) -> Converting:
        """What one image becomes."""

    async def as_schema2(
        self, outline: Manifest, source: BlobSource, image: str, kept: AsyncExitStack
    ) -> tuple[CopySource, Link]:
        """What an image of Docker's schema 1 becomes, and who has it while ``kept`` is open."""


class Copied(msgspec.Struct, frozen=True):
    """What came to a place, and how its blobs did: ``sent`` are bytes that went there."""

    source: str
    destination: str
    descriptor: Descriptor
    there: int = 0
    linked: int = 0
    mounted: int = 0
    brought: int = 0
    sent: int = 0


class _Whole(msgspec.Struct, frozen=True):
    """Documents, each behind what it names, and the blobs that they name."""

    documents: tuple[Link, ...]
    blobs: tuple[Descriptor, ...]

    @property
    def top(self) -> Descriptor:
        """What the name stands for."""
        return self.documents[-1][0]

    @property
    def named(self) -> Descriptor:
        """The same, without what an index that it was in said of it."""
        return Descriptor(self.top.media_type, self.top.digest, self.top.size, artifact_type=self.top.artifact_type)

    @property
    def parts(self) -> list[Descriptor]:
        """Everything."""
        return [*self.blobs, *self.described]

    @property
    def described(self) -> list[Descriptor]:
        """What names the documents."""
        return [descriptor for descriptor, _ in self.documents]

    @property
    def below(self) -> _Whole:
        """All but what the name stands for."""
        return _Whole(self.documents[:-1], self.blobs)

    @property
    def distributable(self) -> _Whole:
        """All but the layers that are at addresses of their own, and that registries may not distribute."""
        blobs = (blob for blob in self.blobs if not (blob.urls and blob.media_type in mediatype.FOREIGN))
        return _Whole(self.documents, tuple(blobs))

    def beside(self, others: Iterable[_Whole]) -> _Whole:
        """This image behind all that is brought with it."""
        every = [*others, self]
        blobs = {blob.digest: blob for each in every for blob in each.blobs}
        return _Whole(tuple(link for each in every for link in each.documents), tuple(blobs.values()))


# What hangs on an image, all of it, and what it is called at the destination.
Hanging = tuple[Attachment, _Whole, str | None]


class Copying(msgspec.Struct, frozen=True):
    """What copies images, in one engine."""

    store: BlobStore
    limits: Limits
    observer: Observer
    converters: Callable[[], Converters]

    async def copy(
        self, origin: Origin, sink: ImageSink, terms: Terms, *, gate: Gate, source: str, destination: str
    ) -> Copied:
        """Copy one image.

        Args:
            gate: holds it against the policy of trust.
            source, destination: what the user called them, in events, errors and the result.
        Raises:
            PlatformError, PolicyError: the image is not for a platform that was asked for; or may not be had.
            UnsupportedError: the digests cannot be preserved, or the destination cannot hold such an image.
            FastociError: as the source, or the destination, says; nothing has a name then.
        """
        self.observer(ImageStarted(source))
        try:
            async with AsyncExitStack() as kept:
                place, whole = await self._read(origin, terms, gate, source, kept)
                whole = whole.distributable if terms.leaves_foreign else whole
                converting = self._conversion(whole, terms, source)
                if converting is None:
                    _demand(terms.expected, whole, destination)
                hanging = await self._attached(origin, whole, terms, source)
                async with sink.begin() as writer:
                    together = whole.beside(each.below if name is None else each for _, each, name in hanging)
                    made, ways = await self._write(writer, together, place, source, converting)
                    if converting is not None:
                        whole = made
                        _demand(terms.expected, whole, destination)
                    await _name_all(writer, whole, hanging, terms)
        except FastociError as error:
            error.image = error.image or source
            self.observer(image_failed(source, error))
            raise
        except asyncio.CancelledError:
            self.observer(ImageFailed(source, "cancelled", "cancelled", None))
            raise
        self.observer(ImageDone(source, str(whole.top.digest)))
        return _result(whole, ways, source, destination)

    def _conversion(self, whole: _Whole, terms: Terms, image: str) -> Converting | None:
        """What the image becomes; None when it stays what it is."""
        if not terms.conversion.changes:
            return None
        if terms.preserve_digests or terms.attached:
            raise UnsupportedError("an image in another form, or compressed anew, has another digest")
        return self.converters().converting(terms.conversion, whole.documents, partial(self._warn, image))

    def _warn(self, image: str, text: str) -> None:
        self.observer(Warned(image, text))

    async def _read(
        self, origin: Origin, terms: Terms, gate: Gate, image: str, kept: AsyncExitStack
    ) -> tuple[CopySource, _Whole]:
        """Read the documents of what is copied, and say who has it: of schema 1 the store, as what that becomes."""
        await gate.admit()
        source, (top, data) = origin.source, await origin.top()
        if top.media_type in mediatype.SCHEMA1:
            if terms.preserve_digests:
                raise UnsupportedError("Docker's schema 1 becomes schema 2, which has another digest")
            outline, _ = await outline_of((top, data), source, terms.platforms, self.limits)
            await gate.check([top])
            source, (top, data) = await self.converters().as_schema2(outline, source, image, kept)
            return source, await self._gathered(source, (top, data), terms)
        whole = await self._gathered(source, (top, data), terms)
        await gate.check([each for each in whole.described if each.media_type not in mediatype.INDEXES])
        return source, whole

    async def _gathered(self, source: CopySource, top_link: Link, terms: Terms) -> _Whole:
        """Read the documents of what is copied."""
        top, data = top_link
        top = replace(top, media_type=manifests.own_type(data, top.media_type))
        documents = Documents(source, self.store, self.limits)
        documents.count(top)
        chain: Chain = ((top, data),)
        if top.media_type not in mediatype.INDEXES or terms.platforms == ():
            return await _gather(documents, [chain], self.limits)
        found: dict[Digest, Chain] = {}
        for platform in terms.platforms or (None,):
            each, _ = await Descent(documents, platform or Platform.host()).follow(top, data)
            found.setdefault(each[-1][0].digest, each)
        if len(found) == 1:
            return await _gather(documents, found.values(), self.limits)
        if terms.preserve_digests:
            text = "an index of some of its platforms has another digest: copy one, or all"
            raise UnsupportedError(text)
        if terms.attached.referrers:
            for *above, (descriptor, _) in list(found.values()):
                for entry in attestations(documents.index(tuple(above)).manifests, descriptor.digest):
                    found[entry.digest] = await documents.step(tuple(above), entry)
        entries = [each[-1][0] for each in found.values()]
        new = made_of(entries, top.media_type, documents.index(chain).annotations)
        gathered = await _gather(documents, found.values(), self.limits)
        return _Whole((*gathered.documents, (Descriptor.of(new, top.media_type), new)), gathered.blobs)

    async def _attached(self, origin: Origin, whole: _Whole, terms: Terms, image: str) -> list[Hanging]:
        """Read the documents of what hangs on the image."""
        if not terms.attached:
            return []
        if origin.attachments is None:
            raise UnsupportedError(f"{image}: in such a place nothing hangs on an image")
        found = await find_attachments(
            [descriptor.digest for descriptor, _ in reversed(whole.documents)],
            origin.attachments,
            terms.attached,
            self.limits,
            partial(self._warn, image),
        )
        hanging = []
        for each in found:
            documents = Documents(origin.source, self.store, self.limits)
            top = replace(each.descriptor, media_type=manifests.own_type(each.data, each.descriptor.media_type))
            whole = await _gather(documents, [((top, each.data),)], self.limits)
            hanging.append((each, whole, terms.called(each)))
        return hanging

    async def _write(
        self, writer: ImageWriter, whole: _Whole, source: BlobSource, image: str, converting: Converting | None
    ) -> tuple[_Whole, list[Brought]]:
        """Bring what is missing: blobs first, several at a time, then documents in their order.

        Returns:
            what is there then, and how it came.
        """
        become = [blob for blob in whole.blobs if converting is not None and converting.changes(blob)]
        stay = [blob for blob in whole.blobs if converting is None or not converting.changes(blob)]
        documents = whole.described if converting is None else ()
        missing = {blob.digest: blob for blob in await writer.missing([*stay, *documents])}
        self._announce(whole, [*become, *missing.values()], image)
        turns = asyncio.Semaphore(min(writer.at_once, self.limits.flights))
        ways: list[Brought] = [(blob, "there") for blob in stay if blob.digest not in missing]

        async def bring(blob: Descriptor) -> None:
            carried = source if blob.data is None else BytesSource(blob.data)
            put = partial(_put, writer, blob, carried)
            if converting is not None and converting.changes(blob):
                put = partial(_put_converted, writer, blob, carried, converting)
            async with turns:
                ways.append(await self._bring(put, blob, carried, image))

        brought = [*(blob for blob in stay if blob.digest in missing), *become]
        await all_or_first([asyncio.create_task(bring(blob)) for blob in brought])
        if converting is not None:
            whole = _whole_of(converting.documents())
            missing = {each.digest: each for each in await writer.missing(whole.described)}
        for descriptor, data in whole.documents:
            if descriptor.digest in missing:
                await writer.put_document(descriptor, data)
        return whole, ways

    def _announce(self, whole: _Whole, missing: Collection[Descriptor], image: str) -> None:
        top = whole.top
        self.observer(
            ImagePlanned(
                image,
                digest=str(top.digest),
                platform=str(top.platform) if top.platform else "",
                blobs=len(whole.blobs),
                size=sum(blob.size for blob in whole.blobs),
                missing={str(blob.digest): blob.size for blob in missing},
            )
        )

    async def _bring(
        self, put: Callable[[], Awaitable[Brought]], blob: Descriptor, source: BlobSource, image: str
    ) -> Brought:
        """Bring one blob; after wrong bytes once more, as long as a server sent them that had sent none before."""
        corrupt: set[str] = set()
        self.observer(BlobStarted(image, str(blob.digest), blob.size, 0))
        while True:
            try:
                brought = await put()
            except IntegrityError as error:
                servers = set(source.served_by(blob)) if isinstance(source, CorruptionAwareSource) else set()
                if servers <= corrupt or not isinstance(source, CorruptionAwareSource):
                    self._failed(blob, error)
                    raise
                corrupt |= servers
                source.report_corrupt(blob, servers)
            except FastociError as error:
                self._failed(blob, error)
                raise
            except asyncio.CancelledError:
                self.observer(BlobFailed(str(blob.digest), "cancelled", "cancelled", None))
                raise
            else:
                self.observer(BlobDone(str(blob.digest), blob.size))
                return brought

    def _failed(self, blob: Descriptor, error: FastociError) -> None:
        error.blob = error.blob or str(blob.digest)
        self.observer(BlobFailed(str(blob.digest), str(error), type(error).__name__, error.exit_code))


async def _put(writer: ImageWriter, blob: Descriptor, source: BlobSource) -> Brought:
    return blob, await writer.put_blob(blob, source)


async def _put_converted(writer: ImageWriter, blob: Descriptor, source: BlobSource, converting: Converting) -> Brought:
    """Bring what a layer becomes, unless it is there."""
    async with converting.layer(blob, source) as (new, made):
        return new, await writer.put_blob(new, made) if await writer.missing([new]) else "there"


async def _name_all(writer: ImageWriter, whole: _Whole, hanging: Sequence[Hanging], terms: Terms) -> None:
    for name in terms.names:
        await writer.name(WholeImage(name, whole.named, whole.parts))
    for attachment, each, called in hanging:
        if called is None:  # also when it is there: perhaps it is not listed
            await writer.put_document(each.top, attachment.data)
        else:
            await writer.name(WholeImage(called, each.top, each.parts))


def _demand(expected: Digest | None, whole: _Whole, destination: str) -> None:
    if expected not in (None, whole.top.digest):
        raise UnsupportedError(f"{destination}: the image is {whole.top.digest}, and no other can be there")


def _whole_of(documents: Sequence[Link]) -> _Whole:
    """What documents name that were converted."""
    blobs: dict[Digest, Descriptor] = {}
    for descriptor, data in documents:
        if descriptor.media_type in mediatype.INDEXES:
            blobs |= {each.digest: each for each in indexes.parse(data, descriptor.media_type).manifests}
        else:
            manifest = manifests.parse(data, descriptor.media_type)
            blobs |= {blob.digest: blob for blob in (manifest.config, *manifest.layers)}
    known = {descriptor.digest for descriptor, _ in documents}
    return _Whole(tuple(documents), tuple(blob for blob in blobs.values() if blob.digest not in known))


async def _gather(documents: Documents, chains: Iterable[Chain], limits: Limits) -> _Whole:
    """Read everything below the last documents of chains, and them.

    Raises:
        FormatError: an index has entries that cannot be read; there is too much of something.
        UnsupportedError: something is neither a manifest nor an index.
    """
    read: dict[Digest, Link] = {}
    blobs: dict[Digest, Descriptor] = {}

    async def descend(chain: Chain) -> None:
        descriptor, data = chain[-1]
        if descriptor.digest in read:
            return
        if descriptor.media_type not in mediatype.INDEXES:
            manifest = manifests.parse(data, descriptor.media_type)
            if len(manifest.layers) > limits.layers:
                raise FormatError(f"the manifest has {len(manifest.layers)} layers, more than {limits.layers}")
            blobs.update({blob.digest: blob for blob in (manifest.config, *manifest.layers)})
        else:
            index = documents.index(chain)
            if index.unread:
                raise FormatError(f"{descriptor.digest}: not all entries can be copied: {index.unread[0]}")
            for entry in index.manifests:
                if entry.media_type in mediatype.INDEXES | mediatype.MANIFESTS:
                    await descend(await documents.step(chain, entry))
                else:
                    blobs[entry.digest] = entry
        read[descriptor.digest] = descriptor, data

    for chain in chains:
        await descend(chain)
    return _Whole(tuple(read.values()), tuple(blob for blob in blobs.values() if blob.digest not in read))


def _result(whole: _Whole, ways: Sequence[tuple[Descriptor, Way]], source: str, destination: str) -> Copied:
    count = Counter(way for _, way in ways)
    sent = sum(blob.size for blob, way in ways if way == "sent")
    counts = {"there": count["there"], "linked": count["linked"], "mounted": count["mounted"], "brought": count["sent"]}
    return Copied(source, destination, whole.top, sent=sent, **counts)
