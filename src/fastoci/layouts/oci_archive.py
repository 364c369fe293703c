"""What names the images of an OCI archive: ``index.json``, behind the blobs.

Spec: image-spec v1.1 image-layout.md; containers/image ``oci-archive``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.layout import REF_NAME, encode_index, named
from fastoci.image_interfaces import WholeImage
from fastoci.layouts.archive_writer import Link
from fastoci.layouts.oci_archive_source import INDEX


class OciForm:
    """The ``Form`` of ``oci-archive:``, which podman and others load."""

    def check(self, image: WholeImage, documents: Mapping[Digest, bytes]) -> None:
        """A layout holds any image."""

    def documents(
        self, images: Sequence[WholeImage], documents: Mapping[Digest, bytes]
    ) -> Iterator[tuple[str, bytes | Link]]:
        """``index.json``."""
        yield INDEX, encode_index([_entry(image) for image in images])


def _entry(image: WholeImage) -> Descriptor:
    return named(image.top, {REF_NAME: image.name} if image.name else {})
