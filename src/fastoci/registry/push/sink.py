"""A repository of a registry as a destination of whole images: an ``ImageSink``.

Blobs are there under their digests as soon as they are brought; a tag is given at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Final

from fastoci.aio import all_or_first
from fastoci.errors import UnsupportedError
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.image_interfaces import Way, WholeImage
from fastoci.interfaces import BlobSource, Streaming
from fastoci.registry.push.repository import PushRepository

_AT_ONCE: Final = 4  # uploads; of one connection each
_ASKED: Final = 8  # blobs at once
_DOCUMENTS: Final = mediatype.MANIFESTS | mediatype.INDEXES


class RegistrySink:
    """Brings images to a repository. The name of one is a reference of it: without a tag its digest is all it has.

    Args:
        writer: what brings them.
    """

    def __init__(
        self,
        repository: PushRepository,
        streaming: Streaming,
        *,
        writer: Callable[[PushRepository, Streaming], RegistryWriter] | None = None,
    ) -> None:
        self._repository = repository
        self._streaming = streaming
        self._writer = writer or RegistryWriter

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[RegistryWriter]:
        """Bring images: ``ImageSink.begin``. After an error, what came has no tag, and the next time it is there.

        Raises:
            RegistryError, TransportError: the registry does not take a tag; those before it are given.
        """
        writer = self._writer(self._repository, self._streaming)
        yield writer
        await writer.end()


class RegistryWriter:
    """Brings blobs and documents: ``ImageWriter``."""

    at_once = _AT_ONCE

    def __init__(self, repository: PushRepository, streaming: Streaming) -> None:
        self.repository = repository
        self._streaming = streaming
        self._documents: dict[Digest, tuple[Descriptor, bytes]] = {}
        self._tags: list[tuple[Descriptor, str]] = []
        self._absent: set[Digest] = set()

    async def missing(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        """Which of these the registry does not have: ``ImageWriter.missing``."""
        turns = asyncio.Semaphore(_ASKED)

        async def there(blob: Descriptor) -> bool:
            async with turns:
                if blob.media_type in _DOCUMENTS:
                    return await self.repository.has_manifest(blob)
                return await self.repository.has_blob(blob)

        unique = {blob.digest: blob for blob in blobs if blob.digest not in self._documents}.values()
        asked = [asyncio.create_task(there(blob)) for blob in unique]
        await all_or_first(asked)
        missing = [blob for blob, task in zip(unique, asked, strict=True) if not task.result()]
        self._absent |= {blob.digest for blob in missing}
        return missing

    async def put_blob(self, blob: Descriptor, source: BlobSource) -> Way:
        """Bring one blob: ``ImageWriter.put_blob``."""
        if blob.media_type not in _DOCUMENTS:
            return await self.repository.put_blob(blob, source, absent=blob.digest in self._absent)
        data = bytearray()
        async with aclosing(self._streaming.verified(blob, source)) as buffers:
            async for buffer in buffers:
                data += buffer
                buffer.release()
        await self.put_document(blob, bytes(data))
        return "sent"

    async def put_document(self, descriptor: Descriptor, data: bytes) -> None:
        """Bring a manifest or index at the end, after all blobs: ``ImageWriter.put_document``."""
        self._documents[descriptor.digest] = descriptor, data

    async def name(self, image: WholeImage) -> None:
        """Give the image its tag at the end: ``ImageWriter.name``.

        Raises:
            UnsupportedError: its name is of another repository.
        """
        if tag := _tag(image, self.repository.name):
            self._tags.append((image.top, tag))

    async def end(self) -> None:
        """Bring the documents in their order, and give tags last."""
        tagged = {top.digest for top, _ in self._tags}
        for descriptor, data in self._documents.values():
            if descriptor.digest not in tagged:
                await self.repository.put_manifest(descriptor, data)
        for top, tag in self._tags:
            found = self._documents.get(top.digest)
            data = await self.repository.reading.manifest(top) if found is None else found[1]
            await self.repository.put_manifest(top, data, tag)


def _tag(image: WholeImage, repository: str) -> str:
    """The tag in an image's name; empty where it has none."""
    if not image.name:
        return ""
    reference = Reference.parse(image.name)
    if reference.name != repository:
        raise UnsupportedError(f"{image.name} cannot be the name of an image in {repository}")
    return reference.tag or ""
