"""From a name to one manifest, through indexes: what a registry may have a pull read on the way is bounded.

An index names further documents, and whoever made it chooses how many, how deep, and whether one stands in it a
thousand times. So each digest is read once, and what is read is counted and weighed against ``Limits``.

Spec: image-spec v1.1 image-index.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from fastoci.errors import (
    BlobNotFoundError,
    DigestMismatchError,
    FormatError,
    IntegrityError,
    PlatformError,
    StoreError,
)
from fastoci.image import index as index_document
from fastoci.image import manifest as manifest_document
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.index import Index, select
from fastoci.image.platform import Platform
from fastoci.image.reference import Reference
from fastoci.interfaces import BlobStore, ImageSource
from fastoci.jobs.plan import Resolved
from fastoci.limits import Limits

_NAMED: Final = 32  # platforms in a message; an index may have ten thousand

Link = tuple[Descriptor, bytes]
Chain = tuple[Link, ...]


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
    top, data = await source.resolve(reference, await _held(reference, store, limits))
    descent = _Descent(source, platform or Platform.host(), store, limits)
    chain = await descent.follow(top, data)
    descriptor, raw = chain[-1]
    manifest = manifest_document.parse(raw, descriptor.media_type)
    if len(manifest.layers) > limits.layers:
        raise FormatError(f"the manifest has {len(manifest.layers)} layers, more than {limits.layers}")
    return Resolved(reference, chain, manifest, descriptor.platform)


async def read_document(store: BlobStore, descriptor: Descriptor, limits: Limits, *, what: str = "manifest") -> bytes:
    """A manifest, index or config from the store; what is larger than one may be is not read.

    Raises:
        FormatError: too large.
        BlobNotFoundError: the store does not have it.
        DigestMismatchError: the store has other bytes under its name, and from now on does not have it.
    """
    check_size(descriptor, limits, what=what)
    data = await store.read(descriptor)
    actual = Digest.of(data, descriptor.digest.algorithm)
    if actual != descriptor.digest:
        await store.mark_corrupt(descriptor.digest)
        raise DigestMismatchError(
            f"the {what} {descriptor.digest} is damaged in the store: its {len(data)} bytes are {actual}",
            subject=str(descriptor.digest),
            expected=str(descriptor.digest),
            actual=str(actual),
        )
    return data


def check_size(descriptor: Descriptor, limits: Limits, *, what: str = "manifest") -> None:
    """Refuse a document that is larger than one may be.

    Raises:
        FormatError
    """
    if descriptor.size > limits.manifest_size:
        raise FormatError(f"{descriptor.digest}: a {what} of {descriptor.size} bytes, more than {limits.manifest_size}")


async def _held(reference: Reference, store: BlobStore, limits: Limits) -> Link | None:
    """What the name pointed to when it was pulled last, if that is still here and right."""
    try:
        top = (await store.image(str(reference))).descriptor
        return top, await read_document(store, top, limits)
    except (StoreError, FormatError, IntegrityError):
        return None


class _Descent:
    """The way down from one name: what was read so far, and which platforms were seen."""

    def __init__(self, source: ImageSource, wanted: Platform, store: BlobStore, limits: Limits) -> None:
        self._source = source
        self._wanted = wanted
        self._store = store
        self._limits = limits
        self._seen: set[Digest] = set()
        self._size = 0
        self._available: dict[str, None] = {}

    async def follow(self, top: Descriptor, data: bytes) -> Chain:
        """The documents down to the first manifest for the platform, depth first in the order of the indexes.

        Raises:
            PlatformError, FormatError, UnsupportedError: as ``resolve``.
        """
        self._count(top)
        chain: Chain = ((top, data),)
        left: list[tuple[Chain, Iterator[Descriptor]]] = []  # of each index on the way, what was not tried
        while chain[-1][0].media_type in mediatype.INDEXES:
            left.append((chain, iter(self._below(chain))))
            chain = await self._next(left)
        return chain

    async def _next(self, left: list[tuple[Chain, Iterator[Descriptor]]]) -> Chain:
        while left:
            chain, entries = left[-1]
            for entry in entries:
                if entry.digest not in self._seen:
                    self._count(entry)
                    return (*chain, (entry, await self._read(entry)))
            left.pop()
        names = [*self._available][:_NAMED]
        more = f" and {len(self._available) - _NAMED} more" if len(self._available) > _NAMED else ""
        raise PlatformError(
            f"the index has no manifest for {self._wanted}; it has {', '.join(names) or 'none'}{more}",
            available=tuple(self._available),
        )

    def _below(self, chain: Chain) -> list[Descriptor]:
        """What of an index may lead to the platform: the manifest that is for it, else the indexes that do not say."""
        index = self._parse(chain)
        self._available |= {str(entry.platform)[:100]: None for entry in index.manifests if entry.platform}
        found = select(index.manifests, self._wanted)
        if found is not None:
            return [found]
        return [entry for entry in index.manifests if entry.media_type in mediatype.INDEXES and not entry.platform]

    def _parse(self, chain: Chain) -> Index:
        descriptor, data = chain[-1]
        if len(chain) > self._limits.index_depth:
            raise FormatError(f"indexes are nested more than {self._limits.index_depth} deep")
        index = index_document.parse(data, descriptor.media_type)
        entries, most = len(index.manifests), self._limits.index_entries
        if entries > most:
            raise FormatError(f"{descriptor.digest}: an index of {entries} entries, more than {most}")
        return index

    def _count(self, descriptor: Descriptor) -> None:
        """Before a document is read: whether that is one, or some bytes, too many."""
        check_size(descriptor, self._limits)
        self._seen.add(descriptor.digest)
        self._size += descriptor.size
        if len(self._seen) > self._limits.documents:
            raise FormatError(f"the indexes lead to more than {self._limits.documents} documents")
        if self._size > self._limits.documents_size:
            raise FormatError(f"the indexes lead to more than {self._limits.documents_size} bytes of documents")

    async def _read(self, descriptor: Descriptor) -> bytes:
        with suppress(BlobNotFoundError, IntegrityError):
            return await read_document(self._store, descriptor, self._limits)
        return await self._source.manifest(descriptor)
