"""An OCI image layout as one tar, read: what ``index.json`` names, and the blobs.

Spec: image-spec v1.1 image-layout.md; containers/image ``oci-archive``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from fastoci._core import Buffer
from fastoci.errors import FormatError
from fastoci.image.descriptor import Descriptor
from fastoci.image.layout import parse_layout
from fastoci.image_interfaces import NamedImage
from fastoci.interfaces import BufferSource
from fastoci.layouts.archive import Archive, ArchiveBlobs
from fastoci.layouts.oci_layout_source import named
from fastoci.limits import Limits

INDEX: Final = "index.json"
LAYOUT: Final = "oci-layout"


class OciArchiveSource:
    """``ImageCollection`` and ``BlobSource`` of an archive, which stays the caller's."""

    def __init__(self, archive: Archive, limits: Limits) -> None:
        self.name = archive.name
        self._archive = archive
        self._limits = limits
        self._blobs = ArchiveBlobs(archive)

    async def names(self) -> tuple[NamedImage, ...]:
        """Its images: ``ImageCollection.names``.

        Raises:
            FormatError, UnsupportedError: it is no layout, or one that cannot be read. StoreError: the disk refused.
        """
        members = self._archive.members
        if LAYOUT in members:  # some tools write none
            parse_layout(await self._archive.read(members.find(LAYOUT), self._limits.manifest_size))
        elif INDEX not in members and "manifest.json" in members:
            raise FormatError(f"{self.name} is no OCI layout: it has manifest.json, which docker-archive: reads")
        found = named(await self._archive.read(members.find(INDEX), self._limits.manifest_size))
        if len(found) > self._limits.index_entries:
            raise FormatError(f"{self.name} has {len(found)} images, more than {self._limits.index_entries}")
        return found

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """A manifest or index: ``ImageCollection.manifest``."""
        if descriptor.data is not None:
            return descriptor.data
        return await self._blobs.document(descriptor, self._limits.manifest_size)

    def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """A blob: ``ArchiveBlobs.fetch``."""
        return self._blobs.fetch(blob, offset, buffers)

    def spooled(self, blob: Descriptor) -> tuple[int, bytes] | None:
        """The file that has just this blob: ``SpoolingSource.spooled``."""
        return self._blobs.spooled(blob)
