"""The images of one namespace of containerd: names, and the labels that they carry.

Spec: containerd API v1, ``services.images.v1``.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastoci.containerd import labels, methods
from fastoci.containerd.client import Client
from fastoci.containerd.messages import (
    CreateImageRequest,
    DeleteImageRequest,
    Descriptor,
    Empty,
    FieldMask,
    FiltersRequest,
    ImageRecord,
    ImageResponse,
    ListImagesResponse,
    NameRequest,
    UpdateImageRequest,
)
from fastoci.containerd.rpc import Code
from fastoci.errors import ContainerdError


class ImageRecords:
    """Images, by their names as containerd has them."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(self, name: str) -> ImageRecord | None:
        """One image; None when there is none of the name.

        Raises:
            ContainerdError: containerd refused, or is gone.
        """
        try:
            return (await self._client.call(methods.IMAGE_GET, NameRequest(name), ImageResponse)).image
        except ContainerdError as error:
            if error.code != Code.NOT_FOUND:
                raise
        return None

    async def list(self) -> tuple[ImageRecord, ...]:
        """All of them. Raises: as ``get``."""
        return (await self._client.call(methods.IMAGE_LIST, FiltersRequest(), ListImagesResponse)).images

    async def put(self, name: str, target: Descriptor, carried: Mapping[str, str]) -> None:
        """Let a name lead somewhere, and carry these labels beside those that it has. Raises: as ``get``."""
        record = ImageRecord(name, dict(carried), target)
        try:
            await self._client.call(methods.IMAGE_CREATE, CreateImageRequest(record), ImageResponse)
        except ContainerdError as error:
            if error.code != Code.ALREADY_EXISTS:
                raise
            await self._update(record, "target")

    async def label(self, record: ImageRecord, carried: Mapping[str, str]) -> None:
        """Give an image labels; an empty text takes one away. Raises: as ``get``."""
        # With the target, which is not changed: containerd 2.3 panics without.
        await self._update(ImageRecord(record.name, dict(carried), record.target))

    async def delete(self, name: str) -> bool:
        """Forget a name; False when there was none. Its blobs and snapshots go when nothing else needs them.

        Raises:
            ContainerdError: as ``get``.
        """
        try:
            await self._client.call(methods.IMAGE_DELETE, DeleteImageRequest(name), Empty)
        except ContainerdError as error:
            if error.code != Code.NOT_FOUND:
                raise
            return False
        return True

    async def _update(self, record: ImageRecord, *paths: str) -> None:
        mask = FieldMask((*paths, *labels.mask(record.labels)))
        await self._client.call(methods.IMAGE_UPDATE, UpdateImageRequest(record, mask), ImageResponse)
