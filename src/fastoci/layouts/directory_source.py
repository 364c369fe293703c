"""One image in a directory, as skopeo's ``dir:`` has it, as a source: ``manifest.json`` says what it is.

Spec: containers-transports(5), "dir:".
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

from fastoci import files, path_walk
from fastoci.errors import BlobNotFoundError
from fastoci.image import manifest as manifests
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image_interfaces import NamedImage
from fastoci.layouts.directory import DOCUMENTS, MANIFEST, file_of
from fastoci.layouts.files_source import FilesSource
from fastoci.limits import Limits
from fastoci.threads import Threads


class DirectorySource(FilesSource):
    """``ImageCollection`` and ``BlobSource`` of a directory that ``open`` holds. Its image has no name."""

    def __init__(self, path: Path, root: int, threads: Threads, limits: Limits) -> None:
        super().__init__(path, root, threads, limits)
        self._top: Digest | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, limits: Limits) -> AsyncIterator[DirectorySource]:
        """Hold a directory while it is read.

        Args:
            path: absolute.
        Raises:
            StoreError: it is no directory, or none that may be read.
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
            raise BlobNotFoundError(f"{self.name} is no directory of dir:, it has no {MANIFEST}", path=self.name)
        top = Descriptor.of(data, manifests.sniff(data))
        self._top = top.digest
        return (NamedImage("", top),)

    def open_named(self, blob: Descriptor) -> int:
        """Open the file of a blob or document: ``FilesSource.open_named``."""
        return files.open_file_at(self._root, self.path_of(blob).name)

    def path_of(self, blob: Descriptor) -> Path:
        """What it is called: ``FilesSource.path_of``."""
        if blob.digest == self._top:
            return Path(self.name, MANIFEST)
        return Path(self.name, file_of(blob.digest) if blob.media_type in DOCUMENTS else blob.digest.hex)


def _open(path: Path) -> int:
    with files.translated("read", str(path)):
        return path_walk.open_directory(path)
