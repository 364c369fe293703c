"""One image in a directory, as skopeo's ``dir:`` has it, as a source: ``manifest.json`` says what it is.

Spec: containers-transports(5), "dir:".
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

from fastoci import files, path_walk
from fastoci.errors import EndNotFoundError
from fastoci.image import manifest as manifests
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image_interfaces import NamedImage
from fastoci.layouts.directory import DOCUMENTS, MANIFEST, file_of
from fastoci.layouts.files_source import FilesSource
from fastoci.layouts.open_file import opening
from fastoci.limits import Limits
from fastoci.threads import Threads


class DirectorySource(FilesSource):
    """``ImageCollection`` and ``BlobSource`` of a directory that ``open`` holds. Its image has no name."""

    def __init__(self, path: Path, root: int, threads: Threads, limits: Limits) -> None:
        super().__init__(path, root, threads, limits)
        self._top: tuple[Descriptor, bytes] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, limits: Limits) -> AsyncIterator[DirectorySource]:
        """Hold a directory while it is read.

        Args:
            path: absolute.
        Raises:
            EndNotFoundError: it is not there. StoreError: it is no directory, or none that may be read.
        """
        with closing(Threads()) as threads:
            root, cancelled = await threads.run_to_end(partial(_open, path))
            try:
                if not cancelled:
                    yield cls(path, root, threads, limits)
            finally:
                files.close(root)

    async def names(self) -> tuple[NamedImage, ...]:
        """Its one image: ``ImageCollection.names``."""
        data = await self._threads.run(partial(self.small, MANIFEST, self._limits.manifest_size))
        if data is None:
            raise EndNotFoundError(f"{self.name} is no directory of dir:, it has no {MANIFEST}", path=self.name)
        media_type = manifests.sniff(data)
        if media_type in mediatype.SCHEMA1:
            from fastoci.image import schema1  # which few images are

            media_type, data = mediatype.DOCKER_SCHEMA1, schema1.payload_of(data)
        self._top = Descriptor.of(data, media_type), data
        return (NamedImage("", self._top[0]),)

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """A manifest or index; one of schema 1 without its signatures: ``ImageCollection.manifest``."""
        if self._top is not None and (descriptor.digest, descriptor.size) == (self._top[0].digest, self._top[0].size):
            return self._top[1]
        return await super().manifest(descriptor)

    async def size_of(self, digest: Digest) -> int:
        """Bytes of a blob's file: ``SizeAwareSource.size_of``."""
        return await self._threads.run(partial(self._size, digest))

    def _size(self, digest: Digest) -> int:
        path = f"{self.name}/{digest.hex}"
        try:
            return os.stat(digest.hex, dir_fd=self._root, follow_symlinks=False).st_size
        except FileNotFoundError as error:
            raise EndNotFoundError(f"{self.name} has no {digest}", path=path, subject=str(digest)) from error
        except OSError as error:
            raise files.failure(error, "read", path) from error

    def open_named(self, blob: Descriptor) -> int:
        """Open the file of a blob or document: ``FilesSource.open_named``."""
        return files.open_file_at(self._root, self.path_of(blob).name)

    def path_of(self, blob: Descriptor) -> Path:
        """What it is called: ``FilesSource.path_of``."""
        return Path(self.name, file_of(blob.digest) if blob.media_type in DOCUMENTS else blob.digest.hex)


def _open(path: Path) -> int:
    with opening(str(path)):
        return path_walk.open_directory(path)
