"""Bring images from one place to another: documents are read, then blobs go through, then documents, then names.

Knows no transport: a source gives documents and blobs, a sink takes them. No blob waits here as a whole.
Spec: image-spec v1.1 image-index.md, manifest.md; distribution-spec v1.1 (what names something comes after it).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec.structs import replace

from fastoci.aio import all_or_first
from fastoci.errors import FastociError, IntegrityError, UnsupportedError
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
from fastoci.image import manifest as manifests
from fastoci.image import mediatype
from fastoci.image.attachments import Attachment, attestations
from fastoci.image.convert import Conversion, Format
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.index import made_of
from fastoci.image.manifest import Manifest
from fastoci.image.platform import Platform
from fastoci.image_interfaces import AttachmentSource, ImageSink, ImageWriter, Way, WholeImage
from fastoci.interfaces import BlobSource, BlobStore, CorruptionAwareSource
from fastoci.jobs.attachments import Attached, find_attachments
from fastoci.jobs.gathering import Gathered, gather, gathered_of
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
    """One image of a place: ``top`` reads what its name stands for, ``name`` what it is called there; "" is no name.

    ``attachments`` says what hangs on it; None where nothing can.
    """

    source: CopySource
    top: Callable[[], Awaitable[Link]]
    name: Callable[[], Awaitable[str]]
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
        native: the form that images have at the destination, unless their digests are to stay.
    """

    platforms: Wanted = None
    names: tuple[str, ...] = ("",)
    preserve_digests: bool = False
    expected: Digest | None = None
    attached: Attached = Attached()
    called: Callable[[Attachment], str | None] = lambda attachment: attachment.tag
    leaves_foreign: bool = False
    conversion: Conversion = Conversion()
    native: Format | None = None


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


class Job(msgspec.Struct, frozen=True):
    """One image that is copied. ``gate`` holds it against the policy of trust.

    ``source`` and ``destination`` are what the user called them, in events, errors and the result.
    """

    origin: Origin
    terms: Terms
    gate: Gate
    source: str
    destination: str


# What hangs on an image, all of it, and what it is called at the destination.
Hanging = tuple[Attachment, Gathered, str | None]


class Plan(msgspec.Struct, frozen=True):
    """What of one image is brought: ``converting`` is None when it stays what it is."""

    place: CopySource
    whole: Gathered
    converting: Converting | None
    hanging: Sequence[Hanging]


class Copying(msgspec.Struct, frozen=True):
    """What copies images, in one engine."""

    store: BlobStore
    limits: Limits
    observer: Observer
    converters: Callable[[], Converters]

    async def copy(self, jobs: Sequence[Job], sink: ImageSink) -> tuple[Copied, ...]:
        """Copy images to one place: all of them are read before it is touched, and get their names together.

        Raises:
            PlatformError, PolicyError: an image is not for a platform that was asked for; or may not be had.
            UnsupportedError: the digests cannot be preserved, or the destination cannot hold such an image.
            FastociError: as a source, or the destination, says; nothing has a name then.
        """
        async with AsyncExitStack() as kept, self._told(jobs) as at:
            plans = [await self._plan(at(job), kept) for job in jobs]
            async with sink.begin() as writer:
                copied = [await self._carry(at(job), plan, writer) for job, plan in zip(jobs, plans, strict=True)]
        for each in copied:
            self.observer(ImageDone(each.source, str(each.descriptor.digest)))
        return tuple(copied)

    @asynccontextmanager
    async def _told(self, jobs: Sequence[Job]) -> AsyncIterator[Callable[[Job], Job]]:
        """Tell observers that images begin, and which one failed; the others are not there then, either."""
        current = jobs[0]

        def at(job: Job) -> Job:
            nonlocal current
            current = job
            return job

        for job in jobs:
            self.observer(ImageStarted(job.source))
        try:
            yield at
        except FastociError as error:
            error.image = error.image or current.source
            for job in jobs:
                self.observer(image_failed(job.source, error))
            raise
        except asyncio.CancelledError:
            for job in jobs:
                self.observer(ImageFailed(job.source, "cancelled", "cancelled", None))
            raise

    async def _plan(self, job: Job, kept: AsyncExitStack) -> Plan:
        """Read all documents of an image, and say what becomes of it."""
        terms = job.terms
        place, whole = await self._read(job, kept)
        whole = whole.distributable if terms.leaves_foreign else whole
        converting = self._conversion(whole, terms, job.source)
        if converting is None:
            _demand(terms.expected, whole, job.destination)
        return Plan(place, whole, converting, await self._attached(job.origin, whole, terms, job.source))

    async def _carry(self, job: Job, plan: Plan, writer: ImageWriter) -> Copied:
        """Bring an image, with what hangs on it."""
        whole = plan.whole
        together = whole.beside(each.below if name is None else each for _, each, name in plan.hanging)
        made, ways = await self._write(writer, together, plan.place, job.source, plan.converting)
        if plan.converting is not None:
            whole = made
            _demand(job.terms.expected, whole, job.destination)
        await _name_all(writer, whole, plan.hanging, job.terms)
        return _result(whole, ways, job.source, job.destination)

    def _conversion(self, whole: Gathered, terms: Terms, image: str) -> Converting | None:
        """What the image becomes; None when it stays what it is."""
        fixed, conversion = terms.preserve_digests or terms.attached, terms.conversion
        if conversion.form is None and not fixed and whole.has_other_form(terms.native):
            conversion = msgspec.structs.replace(conversion, form=terms.native)
        if not conversion.changes:
            return None
        if fixed and conversion.recipe is None and not whole.has_other_form(conversion.form):
            return None
        if fixed:
            stays = "which is to be preserved" if terms.preserve_digests else "and what hangs on it names this one"
            raise UnsupportedError(f"an image in another form, or compressed anew, has another digest, {stays}")
        return self.converters().converting(conversion, whole.documents, partial(self._warn, image))

    def _warn(self, image: str, text: str) -> None:
        self.observer(Warned(image, text))

    async def _read(self, job: Job, kept: AsyncExitStack) -> tuple[CopySource, Gathered]:
        """Read the documents of what is copied, and say who has it: of schema 1 the store, as what that becomes."""
        terms, gate = job.terms, job.gate
        await gate.admit()
        source, (top, data) = job.origin.source, await job.origin.top()
        if top.media_type in mediatype.SCHEMA1:
            if terms.preserve_digests:
                raise UnsupportedError("Docker's schema 1 becomes schema 2, which has another digest")
            outline, _ = await outline_of((top, data), source, terms.platforms, self.limits)
            await gate.check([top])
            source, (top, data) = await self.converters().as_schema2(outline, source, job.source, kept)
            return source, await self._gathered(source, (top, data), terms)
        whole = await self._gathered(source, (top, data), terms)
        await gate.check([each for each in whole.described if each.media_type not in mediatype.INDEXES])
        return source, whole

    async def _gathered(self, source: CopySource, top_link: Link, terms: Terms) -> Gathered:
        """Read the documents of what is copied."""
        top, data = top_link
        top = replace(top, media_type=manifests.own_type(data, top.media_type))
        documents = Documents(source, self.store, self.limits)
        documents.count(top)
        chain: Chain = ((top, data),)
        if top.media_type not in mediatype.INDEXES or terms.platforms == ():
            return await gather(documents, [chain], self.limits)
        found: dict[Digest, Chain] = {}
        for platform in terms.platforms or (None,):
            each, _ = await Descent(documents, platform or Platform.host()).follow(top, data)
            found.setdefault(each[-1][0].digest, each)
        if len(found) == 1:
            return await gather(documents, found.values(), self.limits)
        if terms.preserve_digests:
            text = "an index of some of its platforms has another digest: copy one, or all"
            raise UnsupportedError(text)
        if terms.attached.referrers:
            for *above, (descriptor, _) in list(found.values()):
                for entry in attestations(documents.index(tuple(above)).manifests, descriptor.digest):
                    found[entry.digest] = await documents.step(tuple(above), entry)
        entries = [each[-1][0] for each in found.values()]
        new = made_of(entries, top.media_type, documents.index(chain).annotations)
        gathered = await gather(documents, found.values(), self.limits)
        return Gathered((*gathered.documents, (Descriptor.of(new, top.media_type), new)), gathered.blobs)

    async def _attached(self, origin: Origin, whole: Gathered, terms: Terms, image: str) -> list[Hanging]:
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
            whole = await gather(documents, [((top, each.data),)], self.limits)
            hanging.append((each, whole, terms.called(each)))
        return hanging

    async def _write(
        self, writer: ImageWriter, whole: Gathered, source: BlobSource, image: str, converting: Converting | None
    ) -> tuple[Gathered, list[Brought]]:
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
            whole = gathered_of(converting.documents())
            missing = {each.digest: each for each in await writer.missing(whole.described)}
        for descriptor, data in whole.documents:
            if descriptor.digest in missing:
                await writer.put_document(descriptor, data)
        return whole, ways

    def _announce(self, whole: Gathered, missing: Collection[Descriptor], image: str) -> None:
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


async def _name_all(writer: ImageWriter, whole: Gathered, hanging: Sequence[Hanging], terms: Terms) -> None:
    for name in terms.names:
        await writer.name(WholeImage(name, whole.named, whole.parts))
    for attachment, each, called in hanging:
        if called is None:  # also when it is there: perhaps it is not listed
            await writer.put_document(each.top, attachment.data)
        else:
            await writer.name(WholeImage(called, each.top, each.parts))


def _demand(expected: Digest | None, whole: Gathered, destination: str) -> None:
    if expected not in (None, whole.top.digest):
        raise UnsupportedError(f"{destination}: the image is {whole.top.digest}, and no other can be there")


def _result(whole: Gathered, ways: Sequence[tuple[Descriptor, Way]], source: str, destination: str) -> Copied:
    count = Counter(way for _, way in ways)
    sent = sum(blob.size for blob, way in ways if way == "sent")
    counts = {"there": count["there"], "linked": count["linked"], "mounted": count["mounted"], "brought": count["sent"]}
    return Copied(source, destination, whole.top, sent=sent, **counts)
