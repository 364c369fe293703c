"""An OCI image layout as one tar, read: what ``index.json`` names, and the blobs.

Spec: image-spec v1.1 image-layout.md; containers/image ``oci-archive``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from fastoci._core import Buffer
from fastoci.errors import FormatError
from fastoci.image import index
from fastoci.image.descriptor import Descriptor
from fastoci.image.layout import REF_NAME, parse_layout
from fastoci.image.mediatype import OCI_INDEX
from fastoci.image_interfaces import NamedImage
from fastoci.interfaces import BufferSource
from fastoci.layouts.archive import Archive, ArchiveBlobs
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
        if LAYOUT not in members and "manifest.json" in members:
            raise FormatError(f"{self.name} is no OCI layout: it has manifest.json, which docker-archive: reads")
        parse_layout(await self._archive.read(members.find(LAYOUT), self._limits.manifest_size))
        data = await self._archive.read(members.find(INDEX), self._limits.manifest_size)
        entries = index.parse(data, OCI_INDEX).manifests
        if len(entries) > self._limits.index_entries:
            raise FormatError(
                f"{self.name}: an index of {len(entries)} entries, more than {self._limits.index_entries}"
            )
        return tuple(NamedImage(entry.annotations.get(REF_NAME, ""), entry) for entry in entries)

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """A manifest or index: ``ImageCollection.manifest``."""
        return await self._blobs.document(descriptor, self._limits.manifest_size)

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """A blob: ``ArchiveBlobs.fetch``."""
        async for buffer in self._blobs.fetch(blob, offset, buffers):
            yield buffer
