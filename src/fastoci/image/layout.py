"""The two small documents of an OCI image layout: ``oci-layout`` and ``index.json``. No paths, no files.

Spec: image-spec v1.1 image-layout.md; annotations.md for ``REF_NAME``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from fastoci.errors import UnsupportedError
from fastoci.image import document, mediatype
from fastoci.image.descriptor import Descriptor, encode

OCI_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
EMPTY_INDEX: Final = b'{"schemaVersion":2,"manifests":[]}'  # as skopeo begins one
REF_NAME: Final = "org.opencontainers.image.ref.name"
FULL_NAME: Final = "io.containerd.image.name"  # by which containerd and Docker import


class _Form(msgspec.Struct, frozen=True, rename="camel"):
    image_layout_version: str


def parse_layout(data: bytes) -> str:
    """Read ``oci-layout`` and give its version.

    Raises:
        FormatError: not strict JSON, or no version.
        UnsupportedError: another version than 1.x.
    """
    version = document.decode(data, _Form, what="oci-layout").image_layout_version
    if not version.startswith("1."):
        raise UnsupportedError(f"oci-layout: version {version[:64]!r} is not supported, 1.0.0 is")
    return version


def encode_index(entries: Sequence[Descriptor]) -> bytes:
    """Write an ``index.json`` with these entries, in this order: the same entries give the same bytes."""
    index = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_INDEX,
        "manifests": [encode(entry) for entry in entries],
    }
    return msgspec.json.format(msgspec.json.encode(index), indent=1) + b"\n"


def named(top: Descriptor, names: Mapping[str, str]) -> Descriptor:
    """What an ``index.json`` says of an image: it has these names alone, whatever an index that had it annotated."""
    others = {key: text for key, text in top.annotations.items() if key not in (REF_NAME, FULL_NAME)}
    return replace(top, annotations={**others, **names})
