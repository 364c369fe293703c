"""What a repair does about unpacked layers: bad ones go, and are made again of the blobs; or a blob is made of one.

A layer file that is bad is deleted first: whoever has it open or mounted goes on with what it is.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Container, Sequence
from functools import partial
from typing import Final

import msgspec

from fastoci import files
from fastoci._core import Buffer
from fastoci.errors import FastociError, SizeMismatchError, StoreError
from fastoci.events import Warned
from fastoci.image import manifest as manifest_document
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.layer_file import TAR_OFFSET
from fastoci.image.links import Link
from fastoci.image.stored_image import StoredImage
from fastoci.interfaces import BlobSource, BufferSource
from fastoci.jobs.layers import Arriving, layers_of
from fastoci.jobs.pull import PullContext
from fastoci.jobs.rehash import read_piece
from fastoci.jobs.resolve import read_config, read_document
from fastoci.jobs.stored import Mending
from fastoci.jobs.verify import Verifying
from fastoci.store.store import Store
from fastoci.store.unpacked_only import drop_blobs


class Discarded(msgspec.Struct, frozen=True):
    """What was bad and is deleted, by the digests that it goes by, and the manifests whose layers are made again."""

    digests: tuple[str, ...]
    manifests: tuple[Descriptor, ...]


class RepairedStore:
    """The store under repair, as far as it is more than a ``BlobStore``."""

    def __init__(self, store: Store, verifying: Verifying, context: PullContext) -> None:
        self._store = store
        self._verifying = verifying
        self._context = context

    async def invalidate(self, name: str) -> None:
        """Have the plans of gc that are made already read a reference again."""
        await self._store.invalidate(name)

    async def discard_bad(self, ref: StoredImage) -> Discarded:
        """Delete the layer files and merged metadata of an image that are bad."""
        unpacked, layers = await self._store.unpacked(), self._store.layers
        bad = await self._verifying.bad_unpacked(ref)
        whole = [each for each in ref.images.values() if ref.layers_only or unpacked.is_whole(Link.of(each))]
        for each in bad:
            self._context.observer(Warned(ref.name, f"{each.message}: it is made again"))
            digest = Digest.parse(each.digest)
            await (layers.discard_merged(digest) if each.what == "merged" else layers.discard(digest))
        return Discarded(tuple(each.digest for each in bad), tuple(whole if bad else ()))

    async def spared(self, ref: StoredImage) -> Container[str]:
        """The blobs that the image does without."""
        return (await self._store.unpacked()).spared(ref)

    def source(self, blob: Descriptor) -> BlobSource | None:
        """Where the blob of a layer that is not compressed comes from without a registry: its layer file."""
        info = self._store.layers.find(blob.digest)
        fits = info is not None and info.form == "tar" and info.tar_size == blob.size
        return TarSource(self._store) if fits else None

    async def remake(self, ref: StoredImage, manifests: Sequence[Descriptor]) -> None:
        """Make the layer files and merged metadata of images that are absent, from their blobs.

        Raises:
            FastociError: one cannot be made.
        """
        context = self._context
        for descriptor in manifests:
            data = await read_document(context.store, descriptor, context.limits)
            manifest = manifest_document.parse(data, descriptor.media_type)
            pairs = layers_of(manifest, await read_config(context.store, manifest, context.limits))
            async with self._store.layers.keep([diff_id for _, diff_id in pairs]):
                await context.layering.make(pairs, descriptor, "erofs", Arriving(Mending(ref.name, None)))

    async def settle(self, ref: StoredImage) -> None:
        """Let the blobs go that were there to make it."""
        if ref.layers_only:
            await drop_blobs(self._store, [ref.name])


class TarSource:
    """A ``BlobSource`` of layers that are not compressed: the tar in the layer file of each."""

    name: Final = "layer files"

    def __init__(self, store: Store) -> None:
        self._store = store

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield the tar from ``offset`` on.

        Raises:
            BlobNotFoundError: there is no layer file.
            StoreError: the disk refused.
            SizeMismatchError: the file ends before.
        """
        fd = self._store.layers.open(blob.digest)
        try:
            while offset < blob.size:
                buffer = await buffers.take()
                try:
                    read = partial(read_piece, buffer, fd, TAR_OFFSET + offset, TAR_OFFSET + blob.size)
                    count = await self._store.blobs.threads.run(read)
                    if count <= 0:
                        raise self._ended(blob, offset, -count)
                except BaseException:
                    buffer.release()
                    raise
                offset += count
                yield buffer
        finally:
            files.close(fd)

    def _ended(self, blob: Descriptor, offset: int, number: int) -> FastociError:
        path = str(self._store.layers.path(blob.digest))
        if number:
            return StoreError(f"cannot read {path}: {os.strerror(number)}", path=path)
        text = f"{path}: the tar of {blob.size} bytes ends after {offset}"
        return SizeMismatchError(text, subject=str(blob.digest), expected=blob.size, actual=offset)
