"""Bring one image out of the store into a repository of a registry: blobs first, the document with the tag last.

Who reads the registry meanwhile sees the image whole, or as it was before.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from fastoci.aio import all_or_first
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.image_interfaces import Way
from fastoci.interfaces import BlobSource

if TYPE_CHECKING:
    from fastoci.registry.push.repository import PushRepository

_AT_ONCE: Final = 4  # blobs; of one connection each


class Pushed(msgspec.Struct, frozen=True):
    """How the blobs of an image came into a repository, in numbers, and the bytes that were sent of them."""

    there: int = 0
    mounted: int = 0
    uploaded: int = 0
    sent: int = 0


class Beside(msgspec.Struct, frozen=True):
    """Blobs that the store need not have: those of other sources, and those that the destination has taken before."""

    sources: Mapping[Digest, BlobSource]
    taken: Mapping[Digest, Way]

    def __bool__(self) -> bool:
        return bool(self.sources or self.taken)

    def __contains__(self, digest: Digest) -> bool:
        return digest in self.sources or digest in self.taken


_NOTHING: Final = Beside({}, {})


async def push(
    source: BlobSource,
    repository: PushRepository,
    blobs: Sequence[Descriptor],
    documents: Sequence[tuple[Descriptor, bytes]],
    tag: str,
    *,
    beside: Beside = _NOTHING,
) -> Pushed:
    """Push blobs, and then documents.

    Args:
        source: what the store has, which keeps it meanwhile.
        documents: each behind what it names; the last one gets the tag.
        beside: blobs that are not the store's.
    Raises:
        BlobNotFoundError: the store lacks a blob. IntegrityError: it has another one under the name.
        RegistryError, TransportError: the registry does not take it; what it has by then has no tag.
    """
    ways = Counter[Way](beside.taken.values())
    sent = 0
    turns = asyncio.Semaphore(_AT_ONCE)

    async def bring(blob: Descriptor) -> None:
        nonlocal sent
        async with turns:
            way = await repository.put_blob(blob, beside.sources.get(blob.digest, source))
        ways[way] += 1
        sent += blob.size * (way == "sent")

    unique = {blob.digest: blob for blob in blobs if blob.digest not in beside.taken}
    await all_or_first([asyncio.create_task(bring(blob)) for blob in unique.values()])
    *below, (top, data) = documents
    for descriptor, document in below:
        await repository.put_manifest(descriptor, document)
    await repository.put_manifest(top, data, tag)
    return Pushed(ways["there"], ways["mounted"], ways["sent"], sent)


def mount_path(near: Reference | None, target: Reference) -> str:
    """The path of the other repository of a registry that may have the blobs of an image; empty when there is none."""
    return near.path if near is not None and near.domain == target.domain and near.path != target.path else ""
