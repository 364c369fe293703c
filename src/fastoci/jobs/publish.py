"""Publish an image with merged metadata: an index of the ordinary manifest and one whose layers are devices (a draft).

The documents and the metadata get their name in the store, and go to the registry of that name. Spec: erofs-image-spec
(draft); docs/publishing.md.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from fastoci import files
from fastoci.errors import BlobNotFoundError, ReferenceSyntaxError, UnsupportedError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.erofs_image import METADATA, ErofsImage, erofs_image, with_feature
from fastoci.image.manifest import Manifest
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage
from fastoci.jobs.image import Image
from fastoci.jobs.layers import Pairs, layers_of
from fastoci.jobs.plan import Layers
from fastoci.jobs.pull import PullContext
from fastoci.jobs.push import Pushed, push
from fastoci.jobs.recompress import Pushable, Recompressing
from fastoci.stream.compress import Zstd
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
    """What publishes images, in one engine."""

    context: PullContext
    recompressing: Recompressing

    async def publish(self, image: Image, reference: Reference, repository: PushRepository) -> Published:
        """Publish an image of the store under another name, or its own.

        Of one whose blobs were dropped, those that the registry lacks are made of its layer files, compressed anew: the
        manifest is another one then.

        Raises:
            UnsupportedError: it is no image for a platform, or has a layer that cannot be a device.
            BlobNotFoundError: the store lacks a part of it.
            UnpackError, FormatError, IntegrityError, StoreError: its layer files cannot be made.
            RegistryError, TransportError: the registry does not take it; it is in the store under the name.
        """
        if image.platform is None or image.config is None or not image.manifest.layers:
            raise UnsupportedError(f"{image.reference} is not a container image with layers for a platform")
        await image.check()
        pairs = layers_of(image.manifest, image.config)
        parts = (image.manifest_descriptor, image.manifest.config, *image.manifest.layers)
        async with (
            self.context.store.keep(parts),
            self.context.layering.layers.keep([diff_id for _, diff_id in pairs]),
            self.recompressing.pushable(image, repository) as pushable,
        ):
            metadata, made = await self._make(image, pushable, reference)
            blobs = [pushable.manifest.config, *pushable.manifest.layers, made.config[0], metadata]
            documents = [(pushable.descriptor, pushable.manifest.raw), made.manifest, made.index]
            tag, stored = reference.tag or "", self.context.stored.source
            async with self.context.store.keep(blobs):
                pushed = await push(stored, repository, blobs, documents, tag, beside=pushable.beside)
        return Published(reference, made.index[0], metadata, pushed)

    async def _make(self, image: Image, pushable: Pushable, reference: Reference) -> tuple[Descriptor, ErofsImage]:
        """Have the metadata and the documents in the store, under their name."""
        assert image.config is not None
        manifest, beside = pushable.manifest, pushable.beside
        ordinary = replace(pushable.descriptor, platform=image.platform, annotations={}, data=None)
        fd = await self.recompressing.spool()
        try:
            metadata, uncompressed = await self._compress(image, manifest, fd)
            made = erofs_image(ordinary, manifest, image.config, metadata, uncompressed)
            documents = [made.config, (ordinary, manifest.raw), made.manifest, made.index]
            layers = [each for each in manifest.layers if each.digest not in beside]
            parts = [manifest.config, *layers, metadata, *(descriptor for descriptor, _ in documents)]
            async with self.context.store.session(parts) as session, session.reserve() as writer:
                source = self.recompressing.packer.source(fd)
                await self.context.scheduler.fetch(writer, metadata, source, image=str(reference))
                for descriptor, data in documents:
                    await self.context.keep_document(writer, descriptor, data, str(reference))
                await writer.record(_stored(reference, ordinary, made, layers_only=bool(beside)))
        finally:
            files.close(fd)
        return metadata, made

    async def _compress(self, image: Image, manifest: Manifest, fd: int) -> tuple[Descriptor, Digest]:
        """Write the metadata of an image, for devices that are tars, into an empty file.

        Args:
            manifest: whose blobs the devices are.
        """
        packer = self.recompressing.packer
        await image.make_layers(Layers("erofs"))
        opened = await packer.acquire(partial(self._open, image, layers_of(manifest, image.config)), _close)
        try:
            packed = await packer.pack(opened[1], Zstd(), fd)
        finally:
            await packer.finish(partial(_close, opened))
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


def _stored(reference: Reference, ordinary: Descriptor, made: ErofsImage, *, layers_only: bool) -> StoredImage:
    """The name, with both manifests: who asks for no feature is given the ordinary one."""
    index = made.index[0]
    assert ordinary.platform is not None
    erofs = replace(made.manifest[0], platform=with_feature(ordinary.platform))
    return StoredImage(
        name=str(reference),
        descriptor=index,
        images={str(each.platform): each for each in (ordinary, erofs)},
        pulled_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        layers_only=layers_only,
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
