"""A directory becomes an image: what differs from its base as one more layer, with config and manifest, under a name.

Spec: image-spec v1.1 layer.md, config.md, manifest.md; SOURCE_DATE_EPOCH (reproducible-builds.org).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from fastoci import files, path_walk
from fastoci.errors import FormatError, ReferenceSyntaxError, UnsupportedError
from fastoci.events import Warned
from fastoci.image import mediatype
from fastoci.image.build import BuiltImage, NewLayer, image_of, image_on
from fastoci.image.convert import Recipe, Recompression
from fastoci.image.descriptor import Descriptor
from fastoci.image.platform import Platform
from fastoci.image.reference import Reference
from fastoci.interfaces import Spooler
from fastoci.jobs.image import Image, tree_of
from fastoci.jobs.pull import PullContext
from fastoci.jobs.record import record
from fastoci.pack.changes import BaseDirectory, Changes
from fastoci.pack.losses import Losses
from fastoci.pack.tar import TarMaker
from fastoci.pack.tree import Told, Tree
from fastoci.stream.compress import compressor
from fastoci.transfer.packer import PackedLayer, Packer
from fastoci.transfer.scheduler import BytesSource
from fastoci.unpack import user_namespace
from fastoci.unpack.losses import read_report

_SECOND: Final = 1_000_000_000


class PackRequest(msgspec.Struct, frozen=True):
    """What becomes an image.

    ``against`` is a directory that the tree is compared with, in place of the base's own tree; ``upper`` says that the
    tree is an overlay's upper directory, which is compared with nothing. ``epoch`` is the latest time that anything in
    the image has, in seconds since 1970.
    """

    directory: Path
    reference: Reference
    against: Path | None = None
    upper: bool = False
    compression: Recompression = "gzip"
    platform: Platform | None = None
    epoch: int | None = None


class Packing(msgspec.Struct, frozen=True):
    """What makes images out of directories, in one engine; ``spooler`` is its store."""

    context: PullContext
    packer: Packer
    spooler: Spooler

    async def pack(self, request: PackRequest, base: Image | None) -> Image:
        """Make an image, and give it its name.

        Raises:
            PackError: the tree cannot become a layer.
            StoreError: something may not be read, or the disk refused.
            BlobNotFoundError: the store lost a part of the base.
            UnsupportedError: the base is not an image.
        """
        needed = [] if base is None else [base.manifest.config, *base.manifest.layers]
        fd = await self.spooler.spool()
        try:
            async with self.context.store.keep(needed):
                layer, packed = await self._layer(request, base, fd)
                return await self._record(request, layer, packed, base, fd)
        finally:
            files.close(fd)

    async def _record(
        self, request: PackRequest, layer: NewLayer, packed: PackedLayer, base: Image | None, fd: int
    ) -> Image:
        """Bring a layer, config and manifest into the store, and give them a name."""
        built = _documents(request, layer, base)
        blobs = [*built.layers, built.config_descriptor, Descriptor.of(built.manifest, mediatype.OCI_MANIFEST)]
        async with self.context.store.session(blobs) as session, session.reserve() as writer:
            fetch = partial(self.context.scheduler.fetch, writer, image=str(request.reference))
            if layer.blob is not None:
                if packed.blob in session.missing:
                    await self.spooler.leave(packed.blob, fd, packed.hash_state)
                await fetch(packed.blob, self.packer.source(fd))
            await fetch(built.config_descriptor, BytesSource(built.config))
            return await record(self.context, request.reference, built.manifest, mediatype.OCI_MANIFEST)

    async def _layer(self, request: PackRequest, base: Image | None, fd: int) -> tuple[NewLayer, PackedLayer]:
        """Write the layer to a file."""
        async with self._tar(request, base) as tar:
            packed = await self.packer.pack(tar, compressor(Recipe(request.compression)), fd)
        created = request.epoch if request.epoch is not None else (tar.newest_ns or 0) // _SECOND
        blob = packed.blob if tar.entries or base is None else None
        return NewLayer(blob, packed.diff_id, created), packed

    @asynccontextmanager
    async def _tar(self, request: PackRequest, base: Image | None) -> AsyncIterator[TarMaker]:
        """The tar of what differs; closed on a thread."""
        told: list[str] = []
        compared = None
        if base is not None and request.against is None and not request.upper:
            compared = (await tree_of(base)).root
        try:
            make = partial(_open_tar, request, compared, told=told.append)
            tar = await self.packer.acquire(make, TarMaker.close)
        except BaseException:
            if compared is not None:
                compared.close()
            raise
        try:
            yield tar
        finally:
            await self.packer.finish(tar.close)
            for text in told:
                self.context.observer(Warned(str(request.reference), text))


def _open_tar(request: PackRequest, compared: BaseDirectory | None, *, told: Told) -> TarMaker:
    """On a thread: the tar of what makes the directory out of ``compared``, or of what the request compares it with."""
    latest_ns = None if request.epoch is None else request.epoch * _SECOND
    with ExitStack() as opened:
        tree = _open_tree(request.directory, latest_ns, told)
        opened.callback(tree.root.close)
        if request.against is not None:
            compared = _open_tree(request.against, None, told).root
        opened.pop_all()
        return TarMaker(Changes(tree, compared, upper=request.upper))


def _open_tree(path: Path, latest_ns: int | None, told: Told) -> Tree:
    with files.translated("open", str(path)):
        fd = path_walk.open_directory(path)
    try:
        losses = Losses(partial(read_report, path))
    except BaseException:
        files.close(fd)
        raise
    namespace = None if os.geteuid() == 0 else user_namespace.for_containers()
    return Tree(fd, str(path), latest_ns=latest_ns, losses=losses, namespace=namespace, told=told)


def _documents(request: PackRequest, layer: NewLayer, base: Image | None) -> BuiltImage:
    if base is None:
        return image_of(layer, request.platform or Platform.host())
    if base.config is None:
        raise UnsupportedError(f"{base.reference} is not a container image: nothing can be packed on top of it")
    return image_on(layer, base.manifest, base.config)


def tag_of(text: str) -> Reference:
    """The name of an image to be.

    Raises:
        ReferenceSyntaxError: it does not parse, or has a digest, which nobody knows yet.
    """
    reference = Reference.parse(text)
    if reference.digest is not None:
        raise ReferenceSyntaxError(f"{text}: an image is packed under a name, whose digest is known afterwards")
    return reference


def source_date_epoch(environ: Mapping[str, str]) -> int | None:
    """The latest time that an image may have, as the environment says it.

    Raises:
        FormatError: it is not a number of seconds.
    """
    text = environ.get("SOURCE_DATE_EPOCH", "")
    if text and not (text.isascii() and text.isdigit()):
        raise FormatError(f"SOURCE_DATE_EPOCH: {text[:100]!r} is not a number of seconds since 1970")
    return int(text) if text else None


def environment_epoch() -> int | None:
    """``source_date_epoch`` of this process."""
    return source_date_epoch(os.environ)
