"""What an image becomes on its way to another place: another form, or layers that are compressed anew, or both.

Layers go through one by one, each to an unnamed file, since a destination wants its digest first; then the documents
follow from what the layers became. Knows no transport. Spec: docs/forms.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

import msgspec
from msgspec.structs import replace

from fastoci import files
from fastoci.image import convert, mediatype
from fastoci.image import manifest as manifests
from fastoci.image.convert import Conversion, Kind, Recipe, kind_of, type_of
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.manifest import Manifest
from fastoci.image.stored_image import StoredImage
from fastoci.interfaces import BlobSource
from fastoci.jobs.pull import PullContext
from fastoci.jobs.store_end import StoreImages
from fastoci.stream.compress import compressor
from fastoci.transfer.packer import Packer
from fastoci.transfer.recompress import Recompressor

Link = tuple[Descriptor, bytes]


class Tools(msgspec.Struct, frozen=True):
    """What converts, in one engine. ``spool`` opens an unnamed file on the store's disk."""

    recompressor: Recompressor
    packer: Packer
    spool: Callable[[], Awaitable[int]]


class Converting:
    """One image on its way.

    Args:
        documents: its own, each behind what it names.
        warn: tells what the user should know.
    Raises:
        UnsupportedError: it cannot become that. FormatError: a document is malformed.
    """

    def __init__(
        self, conversion: Conversion, documents: Sequence[Link], tools: Tools, warn: Callable[[str], None]
    ) -> None:
        self._documents = documents
        self._tools = tools
        self._warn = warn
        self._form = conversion.form
        self._recipe = conversion.recipe
        self._layers: dict[Digest, Descriptor] = {}
        self._made: dict[Digest, Descriptor] = {}
        become: dict[Digest, Descriptor] = {}
        for descriptor, data in documents if conversion.recipe is not None else ():
            if descriptor.media_type in mediatype.MANIFESTS:
                self._add(manifests.parse(data, descriptor.media_type), conversion.recipe)
        if conversion.recipe is not None:
            kind = Kind("oci", conversion.recipe.compression)
            become = {each: replace(layer, media_type=type_of(kind)) for each, layer in self._layers.items()}
        convert.image_as(documents, self._form, become)  # what cannot be is refused before anything is sent

    def _add(self, manifest: Manifest, recipe: Recipe | None) -> None:
        """Note which layers of a manifest become others; zstd needs OCI."""
        assert recipe is not None
        if not manifest.is_image:
            return
        for layer in manifest.layers:
            kind = kind_of(layer)
            if kind is not None and kind.compression != recipe.compression and not kind.is_foreign:
                self._layers[layer.digest] = layer
        if recipe.compression == "zstd" and manifest.media_type == mediatype.DOCKER_MANIFEST and self._form is None:
            self._form = "oci"
            self._warn("schema 2 has no layers in zstd: the image becomes OCI")

    def changes(self, blob: Descriptor) -> bool:
        """Whether a blob becomes another one."""
        return blob.digest in self._layers

    @asynccontextmanager
    async def layer(self, blob: Descriptor, source: BlobSource) -> AsyncIterator[tuple[Descriptor, BlobSource]]:
        """What a layer became, and who has it until the end.

        Raises:
            IntegrityError: other bytes came. FormatError, UnsupportedError, LimitError: it is no layer.
            RegistryError, TransportError: it cannot be had. StoreError: the disk refused.
        """
        assert self._recipe is not None
        with ExitStack() as opened:
            async with self._tools.recompressor.open(blob, source) as arriving:
                self._check_type(blob, arriving.compression)
                if arriving.compression == self._recipe.compression:
                    new = Descriptor(type_of(Kind("oci", arriving.compression)), blob.digest, blob.size)
                    made = source
                else:
                    fd = await self._tools.spool()
                    opened.callback(files.close, fd)
                    packed = await arriving.pack(compressor(self._recipe), fd)
                    new, made = packed.blob, self._tools.packer.source(fd, packed)
            self._made[blob.digest] = new
            yield new, made

    def _check_type(self, blob: Descriptor, compression: mediatype.Compression) -> None:
        if text := mediatype.lie_of(blob.media_type, compression):
            self._warn(f"layer {blob.digest} {text}")

    def documents(self) -> list[Link]:
        """The documents of what it became, in the order of its own; all its layers were brought.

        Raises:
            UnsupportedError: as the constructor.
        """
        documents, lost = convert.image_as(self._documents, self._form, self._made)
        for text in lost:
            self._warn(text)
        return documents


class Converters(msgspec.Struct, frozen=True):
    """What makes other images of images, in one engine: ``copy.Converters``."""

    context: PullContext
    tools: Tools

    def converting(self, conversion: Conversion, documents: Sequence[Link], warn: Callable[[str], None]) -> Converting:
        """What one image becomes. Raises: as ``Converting``."""
        return Converting(conversion, documents, self.tools, warn)

    async def as_schema2(
        self, outline: Manifest, source: BlobSource, image: str, kept: AsyncExitStack
    ) -> tuple[StoreImages, Link]:
        """What an image of Docker's schema 1 becomes: it is in the store while ``kept`` is open, with no name.

        Raises:
            FastociError: as ``PullContext.as_schema2``.
        """
        context = self.context
        top, made = await context.as_schema2(outline, source, image=image, kept=kept, announce=lambda missing: None)
        return StoreImages(context, _no_images), (top, made.raw)


async def _no_images() -> Sequence[StoredImage]:
    """What was brought to be copied has no name."""
    return ()
