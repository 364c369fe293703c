"""An archive of images that is written: each blob once, hashed on its way, then the documents that name the images.

In a file each blob has its place before its first byte comes, so that many are written at once. In a stream they come
one after the other. What a reader may trust comes last, in both. The same images give the same bytes.
Spec: POSIX pax; image-spec v1.1 image-layout.md; docs/archives.md.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import msgspec

from fastoci import files
from fastoci._core import Buffer
from fastoci.aio import wait_to_end, when_free
from fastoci.errors import StoreError
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.layout import OCI_LAYOUT
from fastoci.image_interfaces import Way, WholeImage
from fastoci.interfaces import BlobSource, Streaming
from fastoci.layouts.archive import path_of
from fastoci.layouts.archive_target import ArchiveTarget
from fastoci.limits import DOCUMENT
from fastoci.stream.tar_headers import END, TarEntry, header, padding
from fastoci.threads import Threads

_AT_ONCE: Final = 32
_MODE: Final = 0o444
# What an image is named by at the end.
_DOCUMENTS: Final = mediatype.MANIFESTS | mediatype.INDEXES | {mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG}


class Link(msgspec.Struct, frozen=True):
    """A member that is a symbolic link to another, by the way from the one to the other."""

    target: str


class Form(Protocol):
    """What archives of a kind have beside a layout's blobs."""

    def check(self, image: WholeImage, documents: Mapping[Digest, bytes]) -> None:
        """Refuse an image that no such archive can hold. Raises UnsupportedError."""

    def documents(
        self, images: Sequence[WholeImage], documents: Mapping[Digest, bytes]
    ) -> Iterator[tuple[str, bytes | Link]]:
        """The members that name the images, in their order."""


class ArchiveSink:
    """``ImageSink`` of one archive, which is written anew as a whole.

    Args:
        path: absolute.
    """

    def __init__(self, path: Path, form: Form, streaming: Streaming) -> None:
        self._path = path
        self._form = form
        self._streaming = streaming

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[ArchiveWriter]:
        """Write images: ``ImageSink.begin``. After an error a file is as it was, and a stream has no end.

        Raises:
            StoreError: it cannot be written.
        """
        with closing(Threads()) as threads:
            target = await self._open(threads)
            try:
                writer = ArchiveWriter(target, self._form, threads, self._streaming)
                await writer.add("oci-layout", OCI_LAYOUT)
                yield writer
                await writer.finish()
            finally:
                await wait_to_end(threads.run(target.close))

    async def _open(self, threads: Threads) -> ArchiveTarget:
        """The target, as soon as somebody reads it, if it is a FIFO."""
        open_target = partial(ArchiveTarget, self._path)
        target, cancelled = await when_free(lambda: threads.run_to_end(open_target), within_s=math.inf)
        if cancelled:
            target.close()
            raise asyncio.CancelledError
        return target


class ArchiveWriter:
    """``ImageWriter`` of an open archive."""

    def __init__(self, target: ArchiveTarget, form: Form, threads: Threads, streaming: Streaming) -> None:
        self.at_once = _AT_ONCE if target.seeks else 1
        self._target = target
        self._form = form
        self._threads = threads
        self._streaming = streaming
        self._end = 0  # of what has its place
        self._in_turn = asyncio.Lock()  # of a stream
        self._there: set[Digest] = set()
        self._documents: dict[Digest, bytes] = {}
        self._images: list[WholeImage] = []
        self._broken = False

    async def missing(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        """Which of these were not written: ``ImageWriter.missing``."""
        return list({blob.digest: blob for blob in blobs if blob.digest not in self._there}.values())

    async def put_blob(self, blob: Descriptor, source: BlobSource) -> Way:
        """Write one blob: ``ImageWriter.put_blob``."""
        if blob.digest in self._there:
            return "there"
        self._there.add(blob.digest)
        head = _header(path_of(blob.digest), blob.size)
        kept = bytearray() if blob.media_type in _DOCUMENTS and blob.size <= DOCUMENT else None
        try:
            if self._target.seeks:
                offset = self._place(head, blob.size)
                await self._threads.run(partial(self._target.write_at, offset, head))
                await self._streaming.into(blob, source, _Part(self._target, offset + len(head), kept))
            else:
                await self._stream(head, blob, source, kept)
        except BaseException:
            self._broken = True
            raise
        if kept is not None:
            self._documents[blob.digest] = bytes(kept)
        return "sent"

    async def put_document(self, descriptor: Descriptor, data: bytes) -> None:
        """Write a manifest or index: ``ImageWriter.put_document``."""
        self._documents[descriptor.digest] = data
        if descriptor.digest not in self._there:
            self._there.add(descriptor.digest)
            await self.add(path_of(descriptor.digest), data)

    async def name(self, image: WholeImage) -> None:
        """Name an image at the end: ``ImageWriter.name``."""
        self._form.check(image, self._documents)
        self._images.append(image)

    async def add(self, name: str, data: bytes | Link) -> None:
        """Write one more member."""
        if isinstance(data, Link):
            written = header(TarEntry(name.encode(), "symlink", mode=0o777, link=data.target.encode()))
        else:
            written = _header(name, len(data)) + data + bytes(padding(len(data)))
        async with self._in_turn:
            await self._write(written)

    async def finish(self) -> None:
        """Write what names the images, and the end.

        Raises:
            StoreError: it cannot be written, or a blob was not.
        """
        if self._broken:
            raise StoreError(
                f"{self._target.path}: a blob was not written, so there is no archive", path=self._target.path
            )
        for name, data in self._form.documents(self._images, self._documents):
            await self.add(name, data)
        await self._write(END)
        await self._threads.run(self._target.commit)

    async def _write(self, data: bytes) -> None:
        if self._target.seeks:
            await self._threads.run(partial(self._target.write_at, self._place(data, 0), data))
        else:
            await self._threads.run(partial(self._target.write, data))

    async def _stream(self, head: bytes, blob: Descriptor, source: BlobSource, kept: bytearray | None) -> None:
        async with self._in_turn, aclosing(self._streaming.verified(blob, source)) as buffers:
            await self._write(head)
            async for buffer in buffers:
                try:
                    if kept is not None:
                        kept += buffer
                    await self._threads.run(partial(self._write_buffer, buffer))
                finally:
                    buffer.release()
            await self._write(bytes(padding(blob.size)))

    def _write_buffer(self, buffer: Buffer) -> None:
        with memoryview(buffer) as view:
            self._target.write(view)

    def _place(self, head: bytes, size: int) -> int:
        """Where so many bytes go in a file; the zeros behind them are a hole."""
        offset, self._end = self._end, self._end + len(head) + size + padding(size)
        return offset


class _Part:
    """``Sink`` of the bytes of one blob in a file, which go to ``kept``, too."""

    def __init__(self, target: ArchiveTarget, offset: int, kept: bytearray | None) -> None:
        self._target = target
        self._offset = offset
        self._kept = kept

    def feed(self, buffer: Buffer) -> None:
        """Write the next bytes."""
        if self._kept is not None:
            self._kept += buffer
        code = buffer.pwrite(self._target.fd, self._offset)
        if code:
            cause = OSError(-code, os.strerror(-code))
            raise files.failure(cause, "write", self._target.path) from cause
        self._offset += len(buffer)

    def finish(self) -> None:
        """The last byte is written."""

    def abort(self) -> None:
        """The archive will not be made."""


def _header(name: str, size: int) -> bytes:
    return header(TarEntry(name.encode(), "file", mode=_MODE, size=size))
