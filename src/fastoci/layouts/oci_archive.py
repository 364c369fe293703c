"""An OCI image layout as one tar, written once: for ``podman load``, ``skopeo copy oci-archive:`` and others.

What is in it comes in the order in which a reader may trust it: blobs, then ``index.json``, which names the images.
Spec: image-spec v1.1 image-layout.md; containers/image ``oci-archive``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from fastoci.image.descriptor import Descriptor
from fastoci.image.layout import OCI_LAYOUT, REF_NAME, encode_index
from fastoci.image_interfaces import WholeImage
from fastoci.interfaces import BlobStore
from fastoci.layouts.archive_stream import ArchiveStream
from fastoci.layouts.layout_files import FindCorrupt
from fastoci.layouts.oci_layout import RunHashing


class OciArchive:
    """An open file or pipe, for one ``put`` of images of a store: an archive is not extended.

    Args:
        fd: stays the caller's.
        run: runs the work, which hashes.
    """

    def __init__(self, fd: int, run: RunHashing) -> None:
        self._fd = fd
        self._run = run

    async def put(self, images: Sequence[WholeImage], store: BlobStore) -> None:
        """Write all images. When it fails, the archive has no end, and no names.

        Raises:
            StoreError: it cannot be written. BlobNotFoundError, IntegrityError: the store lacks a blob, or has another.
        """

        def work(find_corrupt: FindCorrupt, check: Callable[[], None]) -> None:
            stream = ArchiveStream(self._fd, check)
            write_layout(stream, images, store, find_corrupt)
            stream.end()

        await self._run(work)


def write_layout(
    stream: ArchiveStream, images: Sequence[WholeImage], store: BlobStore, find_corrupt: FindCorrupt
) -> None:
    """Write a layout's files: each blob once, hashed before; the names last."""
    stream.add("oci-layout", OCI_LAYOUT)
    for blob in {blob.digest: blob for image in images for blob in image.blobs}.values():
        source = store.open(blob)
        try:
            for error in find_corrupt([(blob, source)]):
                raise error
            stream.add_blob(path_of(blob), blob, source)
        finally:
            os.close(source)
    stream.add("index.json", encode_index([_entry(image) for image in images]))


def path_of(blob: Descriptor) -> str:
    """Where a blob is in the archive."""
    return f"blobs/{blob.digest.algorithm}/{blob.digest.hex}"


def _entry(image: WholeImage) -> Descriptor:
    if not image.name:
        return image.top
    return replace(image.top, annotations={**image.top.annotations, REF_NAME: image.name})
