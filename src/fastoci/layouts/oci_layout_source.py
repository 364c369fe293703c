"""An OCI image layout in a directory of the user's as a source: what ``index.json`` names, and blobs by digest.

Spec: image-spec v1.1 image-layout.md.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from fastoci import files, path_walk
from fastoci.errors import EndNotFoundError
from fastoci.image import index
from fastoci.image.descriptor import Descriptor
from fastoci.image.layout import REF_NAME, parse_layout
from fastoci.image.mediatype import OCI_INDEX
from fastoci.image_interfaces import NamedImage
from fastoci.layouts.files_source import FilesSource
from fastoci.layouts.open_file import opening
from fastoci.limits import Limits
from fastoci.threads import Threads

_INDEX: Final = 64 << 20  # bytes of index.json
_LAYOUT: Final = 1 << 16


class OciLayoutSource(FilesSource):
    """``ImageCollection`` and ``BlobSource`` of a layout that ``open`` holds."""

    def __init__(self, path: Path, root: int, blobs: int, threads: Threads, limits: Limits) -> None:
        super().__init__(path, root, threads, limits)
        self._blobs = blobs

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, limits: Limits, *, shared: Path | None = None) -> AsyncIterator[OciLayoutSource]:
        """Hold a layout while it is read.

        Args:
            path: absolute.
            shared: the directory of blobs, instead of the layout's own.
        Raises:
            EndNotFoundError: it is not there. StoreError: it is no directory, or none that may be read.
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

    def _names(self) -> tuple[NamedImage, ...]:
        layout = self.small("oci-layout", _LAYOUT)
        if layout is not None:  # some tools write none
            parse_layout(layout)
        data = self.small("index.json", _INDEX)
        if data is None:
            raise EndNotFoundError(f"{self.name} is no OCI layout: it has no index.json", path=self.name)
        return named(data)

    def open_named(self, blob: Descriptor) -> int:
        """Open the file of a blob: ``FilesSource.open_named``."""
        directory = files.open_directory_at(self._blobs, blob.digest.algorithm)
        try:
            return files.open_file_at(directory, blob.digest.hex)
        finally:
            os.close(directory)

    def path_of(self, blob: Descriptor) -> Path:
        """What it is called: ``FilesSource.path_of``."""
        return Path(self.name, "blobs", blob.digest.algorithm, blob.digest.hex)


def named(data: bytes) -> tuple[NamedImage, ...]:
    """The images of an ``index.json``: each entry; a name is that of the first that has it.

    Raises:
        FormatError, UnsupportedError: it is no index.
    """
    found, seen = [], {""}
    for entry in index.parse(data, OCI_INDEX, choosing=True).manifests:
        name = entry.annotations.get(REF_NAME, "")
        found.append(NamedImage("" if name in seen else name, replace(entry, annotations={})))
        seen.add(name)
    return tuple(found)


def _open(path: Path, shared: Path | None) -> tuple[int, int]:
    """The layout, and the directory of its blobs, which may be missing: then it is the layout itself."""
    with opening(str(path)):
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
