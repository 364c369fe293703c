"""The one place that knows all ends: what a text names is opened as a source or a sink of images.

Spec: docs/copy.md.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from fastoci import path_walk
from fastoci.arguments import expect
from fastoci.engine_parts import EngineParts
from fastoci.errors import (
    BlobNotFoundError,
    EndNotFoundError,
    EndSyntaxError,
    ReferenceSyntaxError,
    UnsupportedError,
)
from fastoci.events import Warned
from fastoci.image import index as indexes
from fastoci.image import mediatype
from fastoci.image.attachments import Attachment
from fastoci.image.convert import Conversion, Format, Recipe
from fastoci.image.end import End
from fastoci.image.end_names import attachment_names, demand_place_for, kept_names, names
from fastoci.image.platform import ALL, Platform
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage
from fastoci.image_interfaces import ImageCollection, ImageSink, NamedImage
from fastoci.jobs import maintenance
from fastoci.jobs.attachments import Attached, CollectionAttachments, find_attachments
from fastoci.jobs.copy import Copied, Copying, CopySource, Job, Origin, Terms
from fastoci.jobs.plan import Wanted
from fastoci.jobs.push import mount_path
from fastoci.jobs.resolve import Link
from fastoci.jobs.store_end import StoreImages, StoreSink, held
from fastoci.jobs.subjects import EndSubject, Subject, stored_subject
from fastoci.jobs.trust import Gate
from fastoci.layouts.oci_layout_source import OciLayoutSource
from fastoci.registry.options import RegistryOptions
from fastoci.store.lookup import find_one, means_platform

if TYPE_CHECKING:
    from fastoci.layouts.docker_archive_source import DockerArchiveSource
    from fastoci.layouts.oci_archive_source import OciArchiveSource
    from fastoci.registry.client import Registry
    from fastoci.registry.push.sink import RegistrySink
    from fastoci.transfer.spooled_source import Spool

_OCI: Final = frozenset({"oci", "oci-archive"})  # layouts have images of OCI, and skopeo reads no others there
_WITHOUT_FOREIGN: Final = frozenset({"docker", "oci", "oci-archive"})  # an image is whole there without such layers
_SHOWN: Final = 10  # names in a message
_NAME: Final = 300  # characters of a name in a message


class Collected(ImageCollection, CopySource, Protocol):
    """A place that lists its images, and has their blobs."""


class EndOptions(msgspec.Struct, frozen=True):
    """How an end is reached.

    Args:
        registry: how a registry is asked; by default as the engine asks all others.
        shared_blobs: the directory of the blobs of ``oci:``, when it is not the layout's own.
    """

    registry: RegistryOptions | None = None
    shared_blobs: str = ""


class CopyOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What of an image is copied, and how.

    Args:
        platforms: each as ``Engine.pull`` takes it: of one its manifest, of several an index of theirs; "all" is
            everything that the name stands for, as it is. By default this machine's.
        names: more names of the image at the destination: tags, names of a layout, or docker references.
        preserve_digests: nothing is changed that has a digest.
        referrers: what hangs on the image is copied, and what hangs on that; of several platforms also what an index
            of BuildKit has of how they were made.
        signatures: what hangs on the image and is a signature is copied, and what cosign keeps under tags.
        form: "oci" or "v2s2", Docker's schema 2; by default "oci" in a layout, elsewhere an image stays in its own.
        compress: "gzip" or "zstd", perhaps with ``:LEVEL``: layers that are not compressed so are compressed anew.
        source, destination: how the ends are reached.
    """

    platforms: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    preserve_digests: bool = False
    referrers: bool = False
    signatures: bool = False
    source: EndOptions = EndOptions()
    destination: EndOptions = EndOptions()
    form: Format | None = None
    compress: str = ""

    @property
    def conversion(self) -> Conversion:
        """What the image becomes.

        Raises:
            ValueError: there is no such form or compression.
        """
        return Conversion(self.form, Recipe.parse(self.compress) if self.compress else None)

    @property
    def wanted(self) -> Wanted:
        """The platforms; empty for all of them."""
        if ALL in self.platforms:
            return ()
        return tuple(map(Platform.parse, self.platforms)) or None


class Ends(msgspec.Struct, frozen=True):
    """Opens ends for one engine."""

    parts: EngineParts

    async def copy(self, sources: Sequence[str], destination: str, asked: CopyOptions | None) -> tuple[Copied, ...]:
        """Copy images to one place: ``Engine.copy``, and ``Engine.copy_all``."""
        options = CopyOptions() if asked is None else expect(CopyOptions, asked, "options")
        begins, end = list(map(End.parse, sources)), End.parse(destination).demand_writable()
        demand_place_for(len(begins), end, options.names)
        terms = self._terms(end, options)
        context = self.parts.context
        copying = Copying(context.store, context.limits, context.observer, self.parts.converters)
        async with AsyncExitStack() as opened:
            if end.transport == "store":
                await opened.enter_async_context(self.parts.updates.after())
            origins = [await opened.enter_async_context(self.source(begin, options.source)) for begin in begins]
            called = [names(end, options.names)]
            if len(origins) > 1:
                called = [(name,) for name in kept_names([await each.name() for each in origins], end)]
            jobs = []
            for source, begin, origin, each in zip(sources, begins, origins, called, strict=True):
                gate, asked_of = await self._gate(begin, origin), msgspec.structs.replace(terms, names=each)
                if begin.transport == "store":
                    origin, asked_of = await self._of_stored(begin, origin, asked_of, source)
                jobs.append(Job(origin, asked_of, gate, source, destination))
            sink = await opened.enter_async_context(self.sink(end, options.destination, begins[0]))
            return await copying.copy(jobs, sink)

    async def _of_stored(self, begin: End, origin: Origin, terms: Terms, source: str) -> tuple[Origin, Terms]:
        """What the store has of that which is copied of an image."""
        assert isinstance(origin.source, StoreImages)
        context, image = self.parts.context, await find_one(self.parts.store, begin.name)
        if means_platform(begin.name, image):
            return origin, terms
        found = await held(image, terms.platforms, context.store, context.limits)
        if found.lacking and terms.preserve_digests:
            raise UnsupportedError(f"{source}: {found.lacking}")
        if found.lacking:
            context.observer(Warned(source, found.lacking))
        top = partial(origin.source.link, found.top)
        return msgspec.structs.replace(origin, top=top), msgspec.structs.replace(terms, platforms=found.platforms)

    def _terms(self, end: End, options: CopyOptions) -> Terms:
        """What is copied of each image to an end; the names are not among it."""
        asked = options.source.registry or self.parts.registry_options
        return Terms(
            options.wanted,
            (),
            options.preserve_digests,
            None if end.reference is None else end.reference.digest,
            attached(end, options),
            attachment_names(end),
            leaves_foreign=end.transport in _WITHOUT_FOREIGN and not asked.download_foreign_layers,
            conversion=options.conversion,
            native="oci" if end.transport in _OCI else None,
        )

    async def push(self, reference: str, destination: str, platforms: tuple[str, ...]) -> Copied:
        """Push an image of the store: ``Engine.push``."""
        if destination and End.parse_image(destination).transport not in ("docker", "store"):
            text = (
                f"{destination}: a push goes to a registry; `fastoci copy store:{reference} {destination}` goes there"
            )
            raise EndSyntaxError(text)
        image = await find_one(self.parts.store, reference)
        options = CopyOptions(platforms=platforms or await self._held(reference, image))
        name = destination.removeprefix("docker://") or image.name
        return (await self.copy([f"store:{image.name}"], f"docker://{name}", options))[0]

    async def _held(self, reference: str, image: StoredImage) -> tuple[str, ...]:
        """The platforms that the store has of an image: "all" where that is everything that it names."""
        context = self.parts.context
        if means_platform(reference, image):
            return tuple(str(each.platform) for each in image.images.values() if each.platform)
        found = await held(image, (), context.store, context.limits)
        if not found.lacking:
            return (ALL,)
        return tuple(map(str, found.platforms or filter(None, [found.top.platform])))

    @asynccontextmanager
    async def source(self, end: End, options: EndOptions) -> AsyncIterator[Origin]:
        """Open the image that an end names.

        Raises:
            FastociError: it cannot be opened, or the place has no such image.
        """
        context = self.parts.context
        async with AsyncExitStack() as opened:
            match end.transport:
                case "docker":
                    assert end.reference is not None
                    client = await self._client(options, opened)
                    repository = client.repository(end.reference, image=str(end))
                    name = partial(_of_reference, end.reference)
                    yield Origin(repository, partial(repository.resolve, end.reference), name, repository)
                case "oci":
                    opening = OciLayoutSource.open(_path(end), context.limits, shared=_shared(options))
                    layout = await opened.enter_async_context(opening)
                    yield self._of_collection(layout, end)
                case "oci-archive" | "docker-archive":
                    yield self._of_collection(await self._archive(end, opened), end)
                case "store":
                    image = await find_one(self.parts.store, end.name)
                    needed = await maintenance.needed(self.parts.store, image)
                    await opened.enter_async_context(self.parts.store.keep(needed, name=image.name))
                    stored = StoreImages(context, partial(maintenance.named_images, self.parts.store, ()))
                    name = partial(_of_reference, Reference.parse(image.name))
                    attachments = CollectionAttachments(stored, context.limits)
                    yield Origin(stored, partial(stored.top, image), name, attachments)
                case "dir":
                    from fastoci.layouts.directory_source import DirectorySource

                    directory = await opened.enter_async_context(DirectorySource.open(_path(end), context.limits))
                    yield self._of_collection(directory, end)

    def _of_collection(self, place: Collected, end: End) -> Origin:
        """The image of a place that an end names."""
        attachments = CollectionAttachments(place, self.parts.context.limits)
        return Origin(place, partial(_chosen, place, end), partial(_name_in, place, end), attachments)

    @asynccontextmanager
    async def subject(self, text: str, spool: Spool) -> AsyncIterator[Subject]:
        """Open the image that is looked at by a name.

        Raises:
            ReferenceSyntaxError: it does not parse. FastociError: as ``source``.
        """
        context, end = self.parts.context, End.parse_image(text)
        if end.transport == "store":
            image = await self._stored(text, end)
            platform = means_platform(end.name, image)
            async with stored_subject(context, image, end.name, is_platform=platform) as stored:
                yield stored
            return
        async with self.source(end, EndOptions()) as origin:
            yield EndSubject(
                context, text, await origin.top(), origin.source, spool if end.transport == "docker" else None
            )

    async def attachments(self, text: str) -> tuple[Attachment, ...]:
        """What hangs on an image and its manifests: ``Engine.attachments``."""
        context = self.parts.context
        async with self.source(End.parse_image(text), EndOptions()) as origin:
            if origin.attachments is None:
                return ()
            top, data = await origin.top()
            below = (
                indexes.parse(data, top.media_type, choosing=True).manifests
                if top.media_type in mediatype.INDEXES
                else ()
            )
            return await find_attachments(
                [top.digest, *(entry.digest for entry in below)],
                origin.attachments,
                Attached(referrers=True, signatures=True),
                context.limits,
                lambda warning: context.observer(Warned(text, warning)),
            )

    async def _stored(self, text: str, end: End) -> StoredImage:
        """The image of the store that a text names; what is written as a registry has it may be meant to be there."""
        try:
            return await find_one(self.parts.store, end.name)
        except BlobNotFoundError as error:
            if end.name != text:
                raise
            where = f"{error.message}; docker://{text[:_NAME]} asks its registry"
            raise BlobNotFoundError(where, path=error.path, subject=error.subject) from error

    @asynccontextmanager
    async def sink(self, end: End, options: EndOptions, source: End) -> AsyncIterator[ImageSink]:
        """Open the place that an end names.

        Args:
            source: what comes from there: a registry may have its blobs already.
        Raises:
            FastociError: it cannot be opened.
        """
        context = self.parts.context
        async with AsyncExitStack() as opened:
            match end.demand_writable().transport:
                case "docker":
                    yield await self._registry_sink(end, options, source, opened)
                case "oci":
                    yield context.layout(context.target(end.path), shared=_shared(options))
                case "store":
                    yield StoreSink(context, self.parts.store, str(source))
                case "oci-archive" | "docker-archive":
                    yield self._archive_sink(end)
                case "dir":
                    from fastoci.layouts.directory import Directory

                    yield Directory(context.target(end.path), context.stored.run_hashing, context.streams)

    async def _registry_sink(self, end: End, options: EndOptions, source: End, opened: AsyncExitStack) -> RegistrySink:
        from fastoci.registry.push.sink import RegistrySink

        assert end.reference is not None
        client, mount_from = await self._client(options, opened), mount_path(_reference(source), end.reference)
        repository = self.parts.destination_at(client, end.reference, image=str(source), mount_from=mount_from)
        return RegistrySink(repository, self.parts.context.streams)

    async def _archive(self, end: End, opened: AsyncExitStack) -> OciArchiveSource | DockerArchiveSource:
        """An archive that is closed with ``opened``; what is not a tar file was read to its end by then."""
        from fastoci.layouts.archive_opening import open_archive
        from fastoci.layouts.docker_archive_source import DockerArchiveSource
        from fastoci.layouts.oci_archive_source import OciArchiveSource

        limits = self.parts.context.limits
        opening = open_archive(_path(end), self.parts.store.spool, self.parts.buffers, limits)
        archive = await opened.enter_async_context(opening)
        return (OciArchiveSource if end.transport == "oci-archive" else DockerArchiveSource)(archive, limits)

    def _archive_sink(self, end: End) -> ImageSink:
        from fastoci.layouts.archive_writer import ArchiveSink, Form
        from fastoci.layouts.docker_archive import DockerForm
        from fastoci.layouts.oci_archive import OciForm

        form: Form = OciForm() if end.transport == "oci-archive" else DockerForm()
        return ArchiveSink(self.parts.context.target(end.path), form, self.parts.context.streams)

    async def _gate(self, end: End, origin: Origin) -> Gate:
        """What holds the image of an end against the policy of trust."""
        trust = self.parts.context.trust
        match end.transport:
            case "docker":
                from fastoci.registry.fetch.repository import Repository

                assert end.reference is not None
                assert isinstance(origin.source, Repository)
                return trust.gate(end.reference, origin.source)
            case "store":
                image = await find_one(self.parts.store, end.name)
                return trust.gate(Reference.parse(image.name), None, image.signatures)
            case _:
                return trust.gate((end.transport, os.path.realpath(end.path)), None)

    async def _client(self, options: EndOptions, opened: AsyncExitStack) -> Registry:
        """The client for an end: the engine's, or one that is closed with ``opened``."""
        if options.registry is None:
            return await self.parts.registry()
        from fastoci.registry.opening import open_registry

        context = self.parts.context
        return await opened.enter_async_context(await open_registry(options.registry, context.limits, context.observer))


def _reference(end: End) -> Reference | None:
    """The name of an image in a registry, or in the store; None for what has none."""
    if end.transport != "store":
        return end.reference if end.transport == "docker" else None
    try:
        return Reference.parse(end.name)
    except ReferenceSyntaxError:  # the first digits of a digest
        return None


def _path(end: End) -> Path:
    return path_walk.absolute(end.path)


def _shared(options: EndOptions) -> Path | None:
    return path_walk.absolute(options.shared_blobs) if options.shared_blobs else None


async def _chosen(place: ImageCollection, end: End) -> Link:
    """The image of a place that an end names, with its document.

    Raises:
        EndNotFoundError: there is none. EndSyntaxError: there are several.
    """
    descriptor = choose(await place.names(), end).top
    return descriptor, await place.manifest(descriptor)


async def _name_in(place: ImageCollection, end: End) -> str:
    """What the image is called there. Raises: as ``_chosen``."""
    return end.name or choose(await place.names(), end).name


async def _of_reference(reference: Reference) -> str:
    """The name of an image of a registry or the store: one that is known by its digest alone has none."""
    return f"{reference.name}:{reference.tag}" if reference.tag is not None else ""


def choose(images: Sequence[NamedImage], end: End) -> NamedImage:
    """The image of a place that an end names.

    Raises:
        EndNotFoundError: there is none. EndSyntaxError: there are several.
    """
    if end.index is not None:
        if end.index < len(images):
            return images[end.index]
        raise EndNotFoundError(f"{end}: {end.path} has {len(images)} images, and @0 is the first", path=end.path)
    if end.name:
        for image in images:
            if end.name in (image.name, *image.also):
                return image
        raise EndNotFoundError(f"{end}: {end.path} has no image of that name{_listed(images)}", path=end.path)
    if len(images) == 1:
        return images[0]
    if not images:
        raise EndNotFoundError(f"{end}: {end.path} has no images", path=end.path)
    text = f"{end}: {end.path} has {len(images)} images: choose one by name, or by :@0 and so on{_listed(images)}"
    raise EndSyntaxError(text)


def _listed(images: Sequence[NamedImage]) -> str:
    """The names that there are, as the end of a message."""
    found = [name for image in images for name in (image.name, *image.also) if name]
    more = ", ..." if len(found) > _SHOWN else ""
    return f"; there are {', '.join(found[:_SHOWN])}{more}" if found else ""


def attached(end: End, options: CopyOptions) -> Attached:
    """What is copied of that which hangs on the image.

    Raises:
        UnsupportedError: nothing can hang on an image at the destination.
    """
    found = Attached(options.referrers, options.signatures)
    if found and end.transport in ("dir", "docker-archive"):
        raise UnsupportedError(f"{end}: nothing can hang on an image there; it can in a registry, in oci: and store:")
    return found
