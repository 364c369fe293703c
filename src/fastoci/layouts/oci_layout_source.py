"""An OCI image layout in a directory of the user's as a source: what ``index.json`` names, and blobs by digest.

Nothing of it is believed: documents are held against their digests here, blobs by whoever takes them. What has a blob's
name must be a regular file, and no symbolic link.
Spec: image-spec v1.1 image-layout.md.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from fastoci import files, path_walk
from fastoci._core import Buffer
from fastoci.errors import BlobNotFoundError, DigestMismatchError, FormatError, SizeMismatchError, StoreError
from fastoci.image import index
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.layout import REF_NAME, parse_layout
from fastoci.image.mediatype import OCI_INDEX
from fastoci.image_interfaces import NamedImage
from fastoci.interfaces import BufferSource
from fastoci.layouts.open_file import buffers_of
from fastoci.limits import Limits
from fastoci.threads import Threads

_INDEX: Final = 64 << 20  # bytes of index.json
_LAYOUT: Final = 1 << 16


class OciLayoutSource:
    """``ImageCollection`` and ``BlobSource`` of a layout that ``open`` holds."""

    def __init__(self, path: Path, root: int, blobs: int, threads: Threads, limits: Limits) -> None:
        self.name = str(path)
        self._root = root
        self._blobs = blobs
        self._threads = threads
        self._limits = limits

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, limits: Limits, *, shared: Path | None = None) -> AsyncIterator[OciLayoutSource]:
        """Hold a layout while it is read.

        Args:
            path: absolute.
            shared: the directory of blobs, instead of the layout's own.
        Raises:
            StoreError: it is no directory, or none that may be read.
        """
        with closing(Threads()) as threads:
            (root, blobs), cancelled = await threads.run_to_end(partial(_open, path, shared))
            try:
                if not cancelled:
                    yield cls(path, root, blobs, threads, limits)
            finally:
                files.close(blobs)
                files.close(root)

    async def names(self) -> tuple[NamedImage, ...]:
        """The entries of ``index.json``: ``ImageCollection.names``."""
        return await self._threads.run(self._names)

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index: ``ImageCollection.manifest``."""
        if descriptor.data is not None:
            return descriptor.data
        limit = self._limits.manifest_size
        if descriptor.size > limit:
            raise FormatError(f"{descriptor.digest}: a manifest of {descriptor.size} bytes, more than {limit}")
        return await self._threads.run(partial(self._read, descriptor))

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield a blob's bytes: ``BlobSource.fetch``."""
        fd, cancelled = await self._threads.run_to_end(partial(self._open_blob, blob))
        try:
            if not cancelled:
                path = str(self._path_of(blob))
                given = buffers_of(fd, blob, offset, buffers, run=self._threads.run, path=path)
                async with aclosing(given) as arriving:
                    async for buffer in arriving:
                        yield buffer
        finally:
            files.close(fd)

    def _names(self) -> tuple[NamedImage, ...]:
        layout = self._small("oci-layout", _LAYOUT)
        if layout is not None:  # some tools write none
            parse_layout(layout)
        data = self._small("index.json", _INDEX)
        if data is None:
            raise BlobNotFoundError(f"{self.name} is no OCI layout: it has no index.json", path=self.name)
        entries = index.parse(data, OCI_INDEX, choosing=True).manifests
        found, seen = [], {""}
        for entry in entries:
            name = entry.annotations.get(REF_NAME, "")
            found.append(NamedImage("" if name in seen else name, replace(entry, annotations={})))
            seen.add(name)
        return tuple(found)

    def _small(self, name: str, limit: int) -> bytes | None:
        """A small file of the layout; None when it is not there."""
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
        path = str(self._path_of(descriptor))
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
            BlobNotFoundError: it is not there. StoreError: it is no regular file, or cannot be read.
            SizeMismatchError: it has another size.
        """
        path = str(self._path_of(blob))
        try:
            with files.translated("read", path):
                directory = files.open_directory_at(self._blobs, blob.digest.algorithm)
                try:
                    fd = files.open_file_at(directory, blob.digest.hex)
                finally:
                    os.close(directory)
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                text = f"{self.name} has no {blob.digest}"
                raise BlobNotFoundError(text, path=path, subject=str(blob.digest)) from error
            raise
        actual = os.fstat(fd).st_size
        if actual != blob.size:
            files.close(fd)
            text = f"{path} has {actual} bytes, and {blob.size} were promised"
            raise SizeMismatchError(text, subject=str(blob.digest), expected=blob.size, actual=actual)
        return fd

    def _path_of(self, blob: Descriptor) -> Path:
        return Path(self.name, "blobs", blob.digest.algorithm, blob.digest.hex)


def _open(path: Path, shared: Path | None) -> tuple[int, int]:
    """The layout, and the directory of its blobs, which may be missing: then it is the layout itself."""
    with files.translated("read the layout", str(path)):
        root = path_walk.open_directory(path)
        try:
            if shared is not None:
                return root, path_walk.open_directory(shared)
            try:
                return root, files.open_directory_at(root, "blobs")
            except FileNotFoundError:
                return root, os.dup(root)
        except BaseException:
            os.close(root)
            raise
