"""What ``docker load`` reads, written once: an OCI archive with ``manifest.json``, as ``docker save`` writes it.

Docker 25 and later read the layout, all before read ``manifest.json``: one image a name, whatever its platform.
Spec: Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence

from fastoci.errors import UnsupportedError
from fastoci.image import manifest as manifests
from fastoci.image import mediatype
from fastoci.image_interfaces import WholeImage
from fastoci.interfaces import BlobStore
from fastoci.layouts.archive_stream import ArchiveStream
from fastoci.layouts.layout_files import FindCorrupt
from fastoci.layouts.oci_archive import path_of, write_layout
from fastoci.layouts.oci_layout import RunHashing


class DockerArchive:
    """An open file or pipe, as ``OciArchive`` is one.

    Args:
        fd: stays the caller's.
        run: runs the work, which hashes.
    """

    def __init__(self, fd: int, run: RunHashing) -> None:
        self._fd = fd
        self._run = run

    async def put(self, images: Sequence[WholeImage], store: BlobStore) -> None:
        """Write all images: ``OciArchive.put``.

        Raises:
            UnsupportedError: an image is of several platforms.
            StoreError, BlobNotFoundError, IntegrityError: as ``OciArchive.put``.
        """

        def work(find_corrupt: FindCorrupt, check: Callable[[], None]) -> None:
            described = [_described(image, store) for image in images]
            stream = ArchiveStream(self._fd, check)
            write_layout(stream, images, store, find_corrupt)
            stream.add("manifest.json", json.dumps(described).encode())
            stream.end()

        await self._run(work)


def _described(image: WholeImage, store: BlobStore) -> dict[str, object]:
    """What ``manifest.json`` says of an image."""
    if image.top.media_type in mediatype.INDEXES:
        text = f"{image.name} is of several platforms: docker load takes one, by the name of its manifest"
        raise UnsupportedError(text)
    source = store.open(image.top)
    with os.fdopen(source, "rb") as file:
        manifest = manifests.parse(file.read(image.top.size), image.top.media_type)
    return {
        "Config": path_of(manifest.config),
        "RepoTags": [image.name] if image.name and "@" not in image.name else None,
        "Layers": [path_of(layer) for layer in manifest.layers],
    }
