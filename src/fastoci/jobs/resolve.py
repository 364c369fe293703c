"""From a name to one manifest, through indexes: what a registry may have a pull read on the way is bounded.

An index names further documents, and whoever made it chooses how many, how deep, and whether one stands in it a
thousand times. So each digest is read once, and what is read is counted and weighed against ``Limits``.

Spec: image-spec v1.1 image-index.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, Protocol

from msgspec.structs import replace

from fastoci.aio import all_or_first
from fastoci.errors import (
    BlobNotFoundError,
    DigestMismatchError,
    FormatError,
    IntegrityError,
    PlatformError,
    StoreError,
    UnsupportedError,
)
from fastoci.image import config as config_document
from fastoci.image import index as index_document
from fastoci.image import manifest as manifest_document
from fastoci.image import mediatype
from fastoci.image.config import ImageConfig
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.index import Index, has_platform, ranked, select
from fastoci.image.manifest import Manifest
from fastoci.image.platform import Platform
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage, origin
from fastoci.image_interfaces import ImageSource
from fastoci.interfaces import BlobStore, SizeAwareSource
from fastoci.jobs.plan import Resolved, Wanted
from fastoci.limits import Limits

_NAMED: Final = 32  # platforms in a message; an index may have ten thousand
_LOOKS: Final = 2  # at a document that is damaged: another job may have replaced it meanwhile
_FOLLOWED: Final = mediatype.MANIFESTS | mediatype.INDEXES  # of other types an index may have entries, for others

Link = tuple[Descriptor, bytes]
Chain = tuple[Link, ...]
Found = tuple[Chain, Manifest]


async def resolve(
    reference: Reference, source: ImageSource, platform: Platform | None, store: BlobStore, limits: Limits
) -> Resolved:
    """Follow a name through indexes to one manifest.

    Args:
        platform: as the user asked; None for this machine's.
    Raises:
        PlatformError: the index has no manifest for the platform.
        FormatError, UnsupportedError: a document is not what it should be, or there are more than the limits allow.
    """
    wanted = None if platform is None else (platform,)
    known = await store.recorded([str(reference)])
    return next(iter(await resolve_all(reference, source, wanted, store, limits, known=known)))[0]


async def resolve_all(
    reference: Reference,
    source: ImageSource,
    wanted: Wanted,
    store: BlobStore,
    limits: Limits,
    *,
    known: Mapping[str, StoredImage],
) -> list[tuple[Resolved, Wanted]]:
    """Follow a name through indexes to the manifests of several platforms, each manifest once.

    Args:
        known: what the store has under the names of the job, as ``BlobStore.recorded`` says.
    Returns:
        them, and for which of ``wanted`` each is.
    Raises:
        PlatformError: an index has no manifest for one of the platforms.
        FormatError, UnsupportedError: as ``resolve``.
    """
    top, data = await source.resolve(reference, await _held(known.get(str(reference)), store, limits))
    documents = Documents(source, store, limits)
    documents.count(top)
    if top.media_type in mediatype.SCHEMA1:
        manifest, runs_on = await outline_of((top, data), source, wanted, limits)
        return [(Resolved(reference, ((top, data),), manifest, runs_on), wanted)]
    if wanted is not None and not wanted:
        found = await Descent(documents, None).follow_all(top, data)
        return [(_resolved(reference, each, limits), wanted) for each in found]
    chosen: dict[Digest, tuple[Resolved, Wanted]] = {}
    for platform in wanted or (None,):
        each = await Descent(documents, platform or Platform.host()).follow(top, data)
        resolved, before = chosen.get(each[0][-1][0].digest, (_resolved(reference, each, limits), ()))
        chosen[resolved.descriptor.digest] = resolved, None if platform is None else (*(before or ()), platform)
    return list(chosen.values())


async def outline_of(top: Link, source: object, wanted: Wanted, limits: Limits) -> tuple[Manifest, Platform]:
    """An image of Docker's schema 1, as far as it is known before its layers are read, and what it is for.

    Raises:
        PlatformError: it is not for one of the platforms that were asked for.
        FormatError: it is malformed, or has too many layers.
        UnsupportedError: the source cannot say how large its layers are.
    """
    from fastoci.image import schema1  # which few images are

    descriptor, data = top
    image = schema1.parse(data)
    if len(image.layers) > limits.layers:
        raise FormatError(f"the manifest has {len(image.layers)} layers, more than {limits.layers}")
    alone = replace(descriptor, platform=image.platform)
    if any(select([alone], platform) is None for platform in wanted or ()):
        raise PlatformError(f"the image is for {image.platform} only", available=(str(image.platform),))
    if not isinstance(source, SizeAwareSource):
        raise UnsupportedError("an image of Docker's schema 1 is read where blobs have sizes, and not here")
    asked = {digest: asyncio.create_task(source.size_of(digest)) for digest in dict.fromkeys(image.layers)}
    await all_or_first(asked.values())
    return image.outline({digest: task.result() for digest, task in asked.items()}), image.platform


def _resolved(reference: Reference, found: Found, limits: Limits) -> Resolved:
    chain, manifest = found
    if len(manifest.layers) > limits.layers:
        raise FormatError(f"the manifest has {len(manifest.layers)} layers, more than {limits.layers}")
    return Resolved(reference, chain, manifest, platform_of(chain))


async def platforms(reference: Reference, source: ImageSource, store: BlobStore, limits: Limits) -> tuple[str, ...]:
    """What a name has images for, in the order of its indexes; nothing where no index says it.

    Raises:
        FormatError, UnsupportedError: as ``resolve``.
    """
    known = await store.recorded([str(reference)])
    top, data = await source.resolve(reference, await _held(known.get(str(reference)), store, limits))
    documents = Documents(source, store, limits)
    documents.count(top)
    return await Descent(documents, None).platforms(top, data)


async def read_document(store: BlobStore, descriptor: Descriptor, limits: Limits, *, what: str = "manifest") -> bytes:
    """A manifest, index or config from the store; what is larger than one may be is not read.

    Raises:
        FormatError: too large.
        BlobNotFoundError: the store does not have it.
        DigestMismatchError: the store has other bytes under its name, and from now on does not have it.
    """
    check_size(descriptor, limits, what=what)
    for _ in range(_LOOKS):
        data = await store.read(descriptor)
        actual = Digest.of(data, descriptor.digest.algorithm)
        if actual == descriptor.digest:
            return data
    await store.mark_corrupt(descriptor.digest)
    raise DigestMismatchError(
        f"the {what} {descriptor.digest} is damaged in the store: its {len(data)} bytes are {actual}",
        subject=str(descriptor.digest),
        expected=str(descriptor.digest),
        actual=str(actual),
    )


def check_size(descriptor: Descriptor, limits: Limits, *, what: str = "manifest") -> None:
    """Refuse a document that is larger than one may be.

    Raises:
        FormatError
    """
    if descriptor.size > limits.manifest_size:
        raise FormatError(f"{descriptor.digest}: a {what} of {descriptor.size} bytes, more than {limits.manifest_size}")


async def _held(known: StoredImage | None, store: BlobStore, limits: Limits) -> Link | None:
    """What the name pointed to when it was pulled last, if that is still here and right."""
    if known is None:
        return None
    try:
        data = await read_document(store, known.descriptor, limits)
        if origin(known.descriptor) != known.descriptor.digest:  # nobody but the store has its config
            config = manifest_document.parse(data, known.descriptor.media_type).config
            await read_document(store, config, limits, what="config")
        return known.descriptor, data
    except (StoreError, FormatError, IntegrityError):
        return None


def _is_artifact(entry: Descriptor) -> bool:
    """Whether an entry says so; an image may say the type of its config there."""
    return bool(entry.artifact_type) and entry.artifact_type not in mediatype.CONFIGS


def _manifest(chain: Chain) -> Manifest:
    descriptor, data = chain[-1]
    return manifest_document.parse(data, descriptor.media_type)


def platform_of(chain: Chain) -> Platform | None:
    """What the innermost entry on the way says that says something."""
    platforms = (descriptor.platform for descriptor, _ in reversed(chain) if has_platform(descriptor))
    return next(platforms, None)


class DocumentSource(Protocol):
    """Where the documents below a name come from."""

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index, verified. Raises: as ``ImageSource.manifest``."""


class Documents:
    """The documents that one name leads to, each read and parsed once, and weighed against the limits."""

    def __init__(self, source: DocumentSource, store: BlobStore, limits: Limits) -> None:
        self._source = source
        self._store = store
        self._limits = limits
        self._counted: set[Digest] = set()
        self._size = 0
        self._read: dict[Digest, bytes] = {}
        self._indexes: dict[Descriptor, Index] = {}

    def count(self, descriptor: Descriptor) -> None:
        """Before a document is read: whether that is one, or some bytes, too many.

        Raises:
            FormatError
        """
        check_size(descriptor, self._limits)
        if descriptor.digest in self._counted:
            return
        self._counted.add(descriptor.digest)
        self._size += descriptor.size
        if len(self._counted) > self._limits.documents:
            raise FormatError(f"the indexes lead to more than {self._limits.documents} documents")
        if self._size > self._limits.documents_size:
            raise FormatError(f"the indexes lead to more than {self._limits.documents_size} bytes of documents")

    async def step(self, chain: Chain, entry: Descriptor) -> Chain:
        """Read what an entry of the last document names."""
        self.count(entry)
        if entry.digest not in self._read:
            self._read[entry.digest] = await self._get(entry)
        data = self._read[entry.digest]
        own = manifest_document.own_type(data, entry.media_type)
        return (*chain, (replace(entry, media_type=own), data))

    def index(self, chain: Chain) -> Index:
        """The last document, an index.

        Raises:
            FormatError: it is too deep, or has too many entries.
        """
        descriptor, data = chain[-1]
        if len(chain) > self._limits.index_depth:
            raise FormatError(f"indexes are nested more than {self._limits.index_depth} deep")
        if descriptor not in self._indexes:
            index = index_document.parse(data, descriptor.media_type, choosing=True)
            entries, most = len(index.manifests) + len(index.unread), self._limits.index_entries
            if entries > most:
                raise FormatError(f"{descriptor.digest}: an index of {entries} entries, more than {most}")
            self._indexes[descriptor] = index
        return self._indexes[descriptor]

    def known_index(self, digest: Digest) -> Index | None:
        """An index that was read; None when none of this digest was."""
        return next((index for descriptor, index in self._indexes.items() if descriptor.digest == digest), None)

    async def _get(self, descriptor: Descriptor) -> bytes:
        with suppress(BlobNotFoundError, IntegrityError):
            return await read_document(self._store, descriptor, self._limits)
        return await self._source.manifest(descriptor)


class Descent:
    """The way down from one name: what was seen so far. ``wanted`` is None for all platforms."""

    def __init__(self, documents: Documents, wanted: Platform | None) -> None:
        self._documents = documents
        self._wanted = wanted
        self._seen: set[Digest] = set()
        self._available: dict[str, None] = {}
        self._skipped: dict[str, None] = {}  # media types, and what is wrong with entries
        self._unmarked: list[tuple[Chain, Descriptor]] = []  # entries without a platform, and where they are
        self._artifact: Found | None = None  # the first that is for the platform

    async def follow(self, top: Descriptor, data: bytes) -> Found:
        """The documents down to the best manifest for the platform, depth first in the order of the indexes.

        An image goes before an artifact. When none says that it is for the platform, the first that says nothing is it.

        Raises:
            PlatformError, FormatError, UnsupportedError: as ``resolve``.
        """
        self._seen.add(top.digest)
        chain = ((top, data),)
        if top.media_type not in mediatype.INDEXES:
            return chain, _manifest(chain)
        found = await self._search(chain) or next(iter(await self._images(self._unmarked, 1)), self._artifact)
        if found is None:
            raise self._nothing(f"manifest for {self._wanted}")
        return found

    async def follow_all(self, top: Descriptor, data: bytes) -> list[Found]:
        """The first image of each platform, in the order of the indexes; when none says a platform, all images.

        Raises:
            PlatformError, FormatError, UnsupportedError: as ``resolve``.
        """
        self._seen.add(top.digest)
        chain = ((top, data),)
        if top.media_type not in mediatype.INDEXES:
            return [(chain, _manifest(chain))]
        marked: dict[str, tuple[Chain, Descriptor]] = {}
        await self._collect(chain, marked)
        found = await self._images(marked.values()) or await self._images(self._unmarked)
        if not found:
            raise self._nothing("image")
        return found

    async def platforms(self, top: Descriptor, data: bytes) -> tuple[str, ...]:
        """What the indexes have images for.

        Raises:
            FormatError, UnsupportedError: as ``resolve``.
        """
        self._seen.add(top.digest)
        marked: dict[str, tuple[Chain, Descriptor]] = {}
        if top.media_type in mediatype.INDEXES:
            await self._collect(((top, data),), marked)
        return tuple(marked)

    async def _search(self, chain: Chain) -> Found | None:
        """The image for the platform in an index, or in the indexes below it."""
        for entry in self._below(chain):
            if entry.digest in self._seen:
                continue
            below = await self._step(chain, entry)
            if entry.media_type in mediatype.INDEXES:
                found = await self._search(below)
            else:
                manifest = _manifest(below)
                found = (below, manifest) if manifest.is_image else None
                self._artifact = self._artifact or (below, manifest)
            if found is not None:
                return found
        return None

    async def _collect(self, chain: Chain, marked: dict[str, tuple[Chain, Descriptor]]) -> None:
        """The entries that may be an image of a platform, the first of each, in an index and those below it."""
        for entry in self._followed(chain):
            platform = entry.platform if has_platform(entry) else platform_of(chain)
            if _is_artifact(entry) or (platform and "unknown" in (platform.os, platform.architecture)):
                continue
            if entry.media_type not in mediatype.INDEXES:
                if platform is None:
                    self._unmarked.append((chain, entry))
                else:
                    marked.setdefault(str(platform.normalised()), (chain, entry))
            elif entry.digest not in self._seen:
                await self._collect(await self._step(chain, entry), marked)

    async def _images(self, entries: Iterable[tuple[Chain, Descriptor]], most: int | None = None) -> list[Found]:
        """Those of these entries that are images, or the first of them."""
        found: list[Found] = []
        for chain, entry in entries:
            if entry.digest not in self._seen:
                below = await self._step(chain, entry)
                manifest = _manifest(below)
                if manifest.is_image:
                    found.append((below, manifest))
            if len(found) == most:
                break
        return found

    async def _step(self, chain: Chain, entry: Descriptor) -> Chain:
        self._seen.add(entry.digest)
        return await self._documents.step(chain, entry)

    def _below(self, chain: Chain) -> list[Descriptor]:
        """What of an index may lead to the platform: images for it, best first, indexes that do not say, artifacts."""
        assert self._wanted is not None
        known = self._followed(chain)
        entries = [entry for entry in known if not _is_artifact(entry)]
        silent = [entry for entry in entries if not has_platform(entry)]
        self._unmarked += [(chain, entry) for entry in silent if entry.media_type not in mediatype.INDEXES]
        return [
            *ranked(entries, self._wanted),
            *(entry for entry in silent if entry.media_type in mediatype.INDEXES),
            *ranked([entry for entry in known if _is_artifact(entry)], self._wanted),
        ]

    def _followed(self, chain: Chain) -> list[Descriptor]:
        """The entries of an index that can be followed; what cannot is noted."""
        index = self._documents.index(chain)
        self._available |= {str(entry.platform)[:100]: None for entry in index.manifests if entry.platform}
        self._skipped |= {entry.media_type: None for entry in index.manifests if entry.media_type not in _FOLLOWED}
        self._skipped |= dict.fromkeys(index.unread)
        return [entry for entry in index.manifests if entry.media_type in _FOLLOWED]

    def _nothing(self, what: str) -> PlatformError:
        skipped = f"; not followed: {', '.join([*self._skipped][:_NAMED])}" if self._skipped else ""
        names = ", ".join([*self._available][:_NAMED]) or "none"
        more = f" and {len(self._available) - _NAMED} more" if len(self._available) > _NAMED else ""
        return PlatformError(
            f"the index has no {what}; it has {names}{more}{skipped}", available=tuple(self._available)
        )


async def read_config(store: BlobStore, manifest: Manifest, limits: Limits) -> ImageConfig | None:
    """The config from the store; None when the manifest is an artifact and no image.

    Raises:
        FormatError: too large, or no config.
    """
    descriptor = manifest.config
    if not manifest.is_image:
        return None
    return config_document.parse(await read_document(store, descriptor, limits, what="config"))
