"""Images in files of the user's as a source: documents and blobs, each a regular file of its own.

Nothing of it is believed: documents are held against their digests here, blobs by whoever takes them. What has a blob's
name must be a regular file, and no symbolic link.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from pathlib import Path

from fastoci import files
from fastoci._core import Buffer
from fastoci.errors import DigestMismatchError, EndNotFoundError, FormatError, SizeMismatchError, StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import BufferSource
from fastoci.layouts.open_file import buffers_of
from fastoci.limits import Limits
from fastoci.threads import Threads


class FilesSource:
    """``BlobSource`` and ``FileSource``, and what an ``ImageCollection`` has of documents.

    Args:
        root: the directory, held open by whoever made this.
    """

    def __init__(self, path: Path, root: int, threads: Threads, limits: Limits) -> None:
        self.name = str(path)
        self._root = root
        self._threads = threads
        self._limits = limits

    def open_named(self, blob: Descriptor) -> int:
        """Open the file that has a blob's name. Raises OSError: there is none, or none that may be read."""
        raise NotImplementedError

    def path_of(self, blob: Descriptor) -> Path:
        """What that file is called, in messages."""
        raise NotImplementedError

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index: ``ImageCollection.manifest``."""
        if descriptor.data is not None:
            return descriptor.data
        limit = self._limits.manifest_size
        if descriptor.size > limit:
            raise FormatError(f"{descriptor.digest}: a manifest of {descriptor.size} bytes, more than {limit}")
        return await self._threads.run(partial(self._read, descriptor))

    async def open_file(self, blob: Descriptor) -> int:
        """Open a blob's file: ``FileSource.open_file``."""
        fd, cancelled = await self._threads.run_to_end(partial(self._open_blob, blob))
        if cancelled:
            files.close(fd)
            raise asyncio.CancelledError
        return fd

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield a blob's bytes: ``BlobSource.fetch``."""
        fd = await self.open_file(blob)
        try:
            path = str(self.path_of(blob))
            given = buffers_of(fd, blob, offset, buffers, run=self._threads.run, path=path)
            async with aclosing(given) as arriving:
                async for buffer in arriving:
                    yield buffer
        finally:
            files.close(fd)

    def small(self, name: str, limit: int) -> bytes | None:
        """On a thread: a small file of the directory; None when it is not there."""
        with files.translated("read", f"{self.name}/{name}"):
            try:
                fd = files.open_file_at(self._root, name)
            except FileNotFoundError:
                return None
            with open(fd, "rb") as file:
                data = file.read(limit + 1)
        if len(data) > limit:
            raise FormatError(f"{self.name}/{name} has more than {limit} bytes")
        return data

    def _read(self, descriptor: Descriptor) -> bytes:
        fd = self._open_blob(descriptor)
        path = str(self.path_of(descriptor))
        with files.translated("read", path), open(fd, "rb") as file:
            data = file.read(descriptor.size)
        actual = Digest.of(data, descriptor.digest.algorithm)
        if actual != descriptor.digest:
            subject = str(descriptor.digest)
            raise DigestMismatchError(f"{path} is {actual}", subject=subject, expected=subject, actual=str(actual))
        return data

    def _open_blob(self, blob: Descriptor) -> int:
        """Open a blob's file, which has the right size.

        Raises:
            EndNotFoundError: it is not there. StoreError: it is no regular file, or cannot be read.
            SizeMismatchError: it has another size.
        """
        path = str(self.path_of(blob))
        try:
            with files.translated("read", path):
                fd = self.open_named(blob)
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                text = f"{self.name} has no {blob.digest}"
                raise EndNotFoundError(text, path=path, subject=str(blob.digest)) from error
            raise
        actual = os.fstat(fd).st_size
        if actual != blob.size:
            files.close(fd)
            text = f"{path} has {actual} bytes, and {blob.size} were promised"
            raise SizeMismatchError(text, subject=str(blob.digest), expected=blob.size, actual=actual)
        return fd
