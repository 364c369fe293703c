"""Blobs for a registry of an image that has none: of the tars in its layer files, compressed anew.

What the destination has, or can take over from another repository, stays what it is. When that is all, the manifest
stays, too; else there is another one, of the same config. Nothing of it comes into the store.
Spec: docs/layers.md, "Without the compressed blobs".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from fastoci import files
from fastoci._core import Buffer
from fastoci.aio import all_or_first
from fastoci.errors import BlobNotFoundError, DigestMismatchError
from fastoci.events import Warned
from fastoci.image.convert import kind_of, with_blobs
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.manifest import Manifest
from fastoci.jobs.image import Image, mending_of
from fastoci.jobs.layers import Arriving, Pairs, layers_of
from fastoci.jobs.pull import PullContext
from fastoci.jobs.push import Beside
from fastoci.stream.compress import Compressor, Gzip, Plain, Zstd
from fastoci.transfer.layer_source import TarPart
from fastoci.transfer.packer import Packer
from fastoci.transfer.tee import Tee

if TYPE_CHECKING:
    from fastoci.image_interfaces import Way
    from fastoci.jobs.stored import Mending
    from fastoci.registry.push.repository import PushRepository


class Pushable(msgspec.Struct, frozen=True):
    """An image as it can be pushed: its manifest, perhaps another one, and the blobs that the store does not have."""

    descriptor: Descriptor
    manifest: Manifest
    beside: Beside


class Recompressing(msgspec.Struct, frozen=True):
    """What compresses layers anew, in one engine. ``spool`` opens an unnamed file on the store's disk."""

    context: PullContext
    packer: Packer
    spool: Callable[[], Awaitable[int]]

    @asynccontextmanager
    async def pushable(self, image: Image, repository: PushRepository) -> AsyncIterator[Pushable]:
        """What is pushed of an image, whose parts the caller keeps from gc; its files are open until the end.

        Raises:
            BlobNotFoundError: the store has neither a layer nor its layer file.
            FormatError, UnsupportedError: it has no layers that could be unpacked.
            IntegrityError: a layer file is damaged. StoreError: the disk refused.
            RegistryError, TransportError: the registry does not say what it has.
        """
        absent = await self._absent(image)
        taken = await _take([blob for blob, _ in absent], repository)
        manifest, descriptor = image.manifest, image.manifest_descriptor
        with ExitStack() as opened:
            made = await self._make_all([pair for pair in absent if pair[0].digest not in taken], image, opened)
            new = {digest: blob for digest, (blob, _) in made.items() if blob.digest != digest}
            if new:
                manifest = with_blobs(manifest, new)
                described = Descriptor.of(manifest.raw, manifest.media_type)
                descriptor = replace(descriptor, digest=described.digest, size=described.size, data=None)
                text = (
                    f"{len(new)} of its layers are compressed anew: the manifest that is pushed is {described.digest}"
                )
                self.context.observer(Warned(str(image.reference), text))
            beside = Beside({blob.digest: self.packer.source(fd) for blob, fd in made.values()}, taken)
            yield Pushable(descriptor, manifest, beside)

    async def _absent(self, image: Image) -> Pairs:
        """The layers whose blobs are not in the store, each once."""
        missing = {blob.digest for blob in await self.context.store.missing(image.manifest.layers)}
        if not missing:
            return ()
        pairs = {blob.digest: (blob, diff_id) for blob, diff_id in layers_of(image.manifest, image.config)}
        return [pair for digest, pair in pairs.items() if digest in missing]

    async def _make_all(self, pairs: Pairs, image: Image, opened: ExitStack) -> Mapping[Digest, tuple[Descriptor, int]]:
        """Blobs for layers, by the digests of those that they replace, in open files."""
        made: dict[Digest, tuple[Descriptor, int]] = {}

        async def work(tees: Mapping[Digest, Tee]) -> None:
            for blob, diff_id in pairs:
                if blob.digest not in made and await self.context.store.missing([blob]):
                    fd = await self.spool()
                    opened.callback(files.close, fd)
                    made[blob.digest] = await self._make(blob, diff_id, mending, fd), fd

        if pairs:
            mending = mending_of(image)
            await self.context.layering.until_right(work, pairs, Arriving(mending))
        return made

    async def _make(self, blob: Descriptor, diff_id: Digest, mending: Mending, fd: int) -> Descriptor:
        """Write a layer's blob to an empty file: out of its layer file, whose tar is hashed on the way."""
        tar = await self.packer.acquire(partial(self._open, blob, diff_id, mending), _LayerTar.close)
        try:
            packed = await self.packer.pack(tar, _compressor(blob, diff_id), fd)
        finally:
            await self.packer.finish(tar.close)
        if packed.diff_id != diff_id:
            text, actual = f"the tar in the layer file of {diff_id} is {packed.diff_id}", str(packed.diff_id)
            raise DigestMismatchError(text, subject=str(diff_id), expected=str(diff_id), actual=actual)
        return packed.blob

    def _open(self, blob: Descriptor, diff_id: Digest, mending: Mending) -> _LayerTar:
        """On a thread: the tar in a layer's file."""
        layer = self.context.layering.open(blob, diff_id, mending=mending)
        if layer.size is None:  # its blob, which came meanwhile
            files.close(layer.fd)
            text = f"the store has no layer file of {diff_id}"
            raise BlobNotFoundError(text, path=str(diff_id), subject=str(blob.digest))
        return _LayerTar(TarPart(layer.fd, None, layer.offset, layer.size, compressed=layer.compressed))


class _LayerTar:
    """A ``TarBlocks`` of a part of a file, which it owns until ``close``."""

    def __init__(self, part: TarPart) -> None:
        self._part = part

    def fill(self, out: Buffer) -> bool:
        """Fill ``out``; False when the tar has ended. Raises StoreError: the disk refused to read it."""
        self._part.make(out)
        return not self._part.ended

    def close(self) -> None:
        """Close the file."""
        self._part.close()

    def stop(self) -> None:
        """One buffer never takes long."""


async def _take(blobs: Sequence[Descriptor], repository: PushRepository) -> Mapping[Digest, Way]:
    """How the destination has blobs, of those that it has."""
    asked = [asyncio.create_task(repository.take_blob(blob)) for blob in blobs]
    await all_or_first(asked)
    return {blob.digest: way for blob, task in zip(blobs, asked, strict=True) if (way := task.result()) is not None}


def _compressor(blob: Descriptor, diff_id: Digest) -> Compressor:
    """What makes a layer's blob: the same one where it is not compressed."""
    if blob.digest == diff_id:
        return Plain()
    kind = kind_of(blob)
    return Zstd() if kind is not None and kind.compression == "zstd" else Gzip()
