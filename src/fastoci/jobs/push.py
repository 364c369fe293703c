"""Bring one image out of the store into a repository of a registry: blobs first, the document with the tag last.

Who reads the registry meanwhile sees the image whole, or as it was before.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from fastoci.aio import all_or_first
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import BlobStore

if TYPE_CHECKING:
    from fastoci.registry.push.repository import PushRepository, Way

_AT_ONCE: Final = 4  # blobs; of one connection each


class Pushed(msgspec.Struct, frozen=True):
    """How the blobs of an image came into a repository, in numbers, and the bytes that were sent of them."""

    there: int = 0
    mounted: int = 0
    uploaded: int = 0
    sent: int = 0


class Beside(msgspec.Struct, frozen=True):
    """Blobs that the store need not have: those in open files, and those that the destination has taken before."""

    files: Mapping[Digest, int]
    taken: Mapping[Digest, Way]

    def __bool__(self) -> bool:
        return bool(self.files or self.taken)

    def __contains__(self, digest: Digest) -> bool:
        return digest in self.files or digest in self.taken


_NOTHING: Final = Beside({}, {})


async def push(
    store: BlobStore,
    repository: PushRepository,
    blobs: Sequence[Descriptor],
    documents: Sequence[tuple[Descriptor, bytes]],
    tag: str,
    *,
    mount_from: str = "",
    beside: Beside = _NOTHING,
) -> Pushed:
    """Push blobs of the store, and then documents.

    Args:
        documents: each behind what it names; the last one gets the tag.
        mount_from: the path of another repository of the same registry that may have blobs.
        beside: blobs that are not the store's.
    Raises:
        BlobNotFoundError: the store lacks a blob.
        RegistryError, TransportError: the registry does not take it; what it has by then has no tag.
    """
    ways = Counter[str](beside.taken.values())
    sent = 0
    turns = asyncio.Semaphore(_AT_ONCE)

    async def bring(blob: Descriptor) -> None:
        nonlocal sent
        async with turns:
            fd = beside.files.get(blob.digest)
            if fd is None:
                way = await _put(store, repository, blob, mount_from)
            else:
                way = await repository.put_blob(blob, fd)
        ways[way] += 1
        sent += blob.size * (way == "uploaded")

    unique = {blob.digest: blob for blob in blobs if blob.digest not in beside.taken}
    async with store.keep(list(unique.values())):
        await all_or_first([asyncio.create_task(bring(blob)) for blob in unique.values()])
    *below, (top, data) = documents
    for descriptor, document in below:
        await repository.put_manifest(descriptor, document)
    await repository.put_manifest(top, data, tag)
    return Pushed(ways["there"], ways["mounted"], ways["uploaded"], sent)


async def _put(store: BlobStore, repository: PushRepository, blob: Descriptor, mount_from: str) -> Way:
    fd = store.open(blob)
    try:
        return await repository.put_blob(blob, fd, mount_from=mount_from)
    finally:
        os.close(fd)
