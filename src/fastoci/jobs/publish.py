"""Publish an image with merged metadata: an index of the ordinary manifest and one whose layers are devices (a draft).

The documents and the metadata get their name in the store, and go to the registry of that name. Spec: erofs-image-spec
(draft); docs/publishing.md.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from fastoci import files
from fastoci.errors import BlobNotFoundError, ReferenceSyntaxError, UnsupportedError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.erofs_image import METADATA, ErofsImage, erofs_image, with_feature
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage
from fastoci.jobs.image import Image
from fastoci.jobs.layers import Pairs, layers_of
from fastoci.jobs.plan import Layers
from fastoci.jobs.pull import PullContext
from fastoci.jobs.push import Pushed, push
from fastoci.stream.compress import Zstd
from fastoci.transfer.packer import Packer
from fastoci.unpack.erofs_devices import TarDevices

if TYPE_CHECKING:
    from fastoci.registry.push.repository import PushRepository


class Published(msgspec.Struct, frozen=True):
    """What a name leads to from now on: the index, and in it the metadata; how the blobs came to the registry."""

    reference: Reference
    index: Descriptor
    metadata: Descriptor
    pushed: Pushed


class Publishing(msgspec.Struct, frozen=True):
    """What publishes images, in one engine.

    ``spool`` opens an unnamed file on the store's disk.
    """

    context: PullContext
    packer: Packer
    spool: Callable[[], Awaitable[int]]

    async def publish(self, image: Image, reference: Reference, repository: PushRepository) -> Published:
        """Publish an image of the store under another name, or its own.

        Raises:
            UnsupportedError: it is no image for a platform, or has a layer that cannot be a device.
            BlobNotFoundError: the store lacks a layer's blob.
            UnpackError, FormatError, IntegrityError, StoreError: its layer files cannot be made.
            RegistryError, TransportError: the registry does not take it; it is in the store under the name.
        """
        ordinary = replace(image.manifest_descriptor, platform=image.platform, annotations={}, data=None)
        if ordinary.platform is None or image.config is None or not image.manifest.layers:
            raise UnsupportedError(f"{image.reference} is not a container image with layers for a platform")
        fd = await self.spool()
        try:
            metadata, uncompressed = await self._compress(image, fd)
            made = erofs_image(ordinary, image.manifest, image.config, metadata, uncompressed)
            documents = [(ordinary, image.manifest.raw), made.manifest, made.index]
            blobs = [image.manifest.config, *image.manifest.layers, made.config[0], metadata]
            parts = [*blobs, *(descriptor for descriptor, _ in documents)]
            async with self.context.store.session(parts) as session:
                new = (metadata, made.config[0], made.manifest[0], made.index[0])
                _demand(session.missing, {each.digest for each in new})
                async with session.reserve() as writer:
                    await self.context.scheduler.fetch(writer, metadata, self.packer.source(fd), image=str(reference))
                    for descriptor, data in (made.config, made.manifest, made.index):
                        await self.context.keep_document(writer, descriptor, data, str(reference))
                    await writer.record(_stored(reference, ordinary, made))
        finally:
            files.close(fd)
        near = image.reference.domain == reference.domain and image.reference.path != reference.path
        source = image.reference.path if near else ""
        tag = reference.tag or ""
        pushed = await push(self.context.store, repository, blobs, documents, tag, mount_from=source)
        return Published(reference, made.index[0], metadata, pushed)

    async def _compress(self, image: Image, fd: int) -> tuple[Descriptor, Digest]:
        """Write the metadata of an image, for devices that are tars, into an empty file."""
        pairs = layers_of(image.manifest, image.config)
        async with self.context.layering.layers.keep([diff_id for _, diff_id in pairs]):
            await image.make_layers(Layers("erofs"))
            opened = await self.packer.acquire(partial(self._open, image, pairs), _close)
            try:
                packed = await self.packer.pack(opened[1], Zstd(), fd)
            finally:
                await self.packer.finish(partial(_close, opened))
        return replace(packed.blob, media_type=METADATA), packed.diff_id

    def _open(self, image: Image, pairs: Pairs) -> tuple[int, TarDevices]:
        """On a thread: the merged metadata, which has just been made."""
        digest = image.manifest_descriptor.digest
        merged = self.context.layering.layers.find_merged(digest)
        if merged is None:
            raise BlobNotFoundError(f"the store has no merged metadata of {digest}", path=str(digest))
        devices = [(blob.digest, self._tar_size(diff_id)) for blob, diff_id in pairs]
        with files.translated("open", merged.path):
            fd = os.open(merged.path, files.READ)
        try:
            return fd, TarDevices(fd, merged.path, devices)
        except BaseException:
            files.close(fd)
            raise

    def _tar_size(self, diff_id: Digest) -> int:
        found = self.context.layering.layers.find(diff_id)
        if found is None:
            raise BlobNotFoundError(f"the store has no layer file of {diff_id}", path=str(diff_id))
        return found.tar_size


def _close(opened: tuple[int, TarDevices]) -> None:
    files.close(opened[0])


def _demand(missing: Sequence[Descriptor], new: Collection[Digest]) -> None:
    """Refuse an image that is not whole.

    Raises:
        BlobNotFoundError: a blob is missing that is not made here.
    """
    absent = [blob for blob in missing if blob.digest not in new]
    if absent:
        digest = str(absent[0].digest)
        text = f"the store lacks {len(absent)} of the image's blobs, as {digest}: pull it first"
        raise BlobNotFoundError(text, path=digest, subject=digest)


def _stored(reference: Reference, ordinary: Descriptor, made: ErofsImage) -> StoredImage:
    """The name, with both manifests: who asks for no feature is given the ordinary one."""
    index = made.index[0]
    assert ordinary.platform is not None
    erofs = replace(made.manifest[0], platform=with_feature(ordinary.platform))
    return StoredImage(
        name=str(reference),
        descriptor=index,
        images={str(each.platform): each for each in (ordinary, erofs)},
        pulled_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def target_of(text: str) -> Reference:
    """The name of what is to be published.

    Raises:
        ReferenceSyntaxError: it does not parse, or has a digest, which nobody knows yet.
    """
    reference = Reference.parse(text)
    if reference.digest is not None:
        raise ReferenceSyntaxError(f"{text}: an image is published under a tag, and its digest is known afterwards")
    return reference
