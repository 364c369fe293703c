"""What a document names, at a glance: digests and sizes, without the checks of ``manifest`` and ``index``.

For walks over very many documents that are in a store and were checked on their way in. Nothing else of a document is
believed here, and a digest is text until somebody parses it.

Spec: image-spec v1.1 manifest.md and image-index.md.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fastoci.errors import FormatError
from fastoci.image import mediatype
from fastoci.image.descriptor import Size

DOCUMENTS: Final = mediatype.MANIFESTS | mediatype.INDEXES


class Link(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What one descriptor says of a blob."""

    digest: str
    size: Size
    media_type: str = ""


class _Form(msgspec.Struct, frozen=True, gc=False):
    config: Link | None = None
    layers: tuple[Link, ...] | None = None
    manifests: tuple[Link, ...] | None = None


_DECODER: Final = msgspec.json.Decoder(_Form)


def links(data: bytes) -> tuple[Link, ...]:
    """The blobs that a manifest or index names, the config first.

    Raises:
        FormatError: it is neither.
    """
    try:
        form = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"neither manifest nor index: {error}") from error
    return (*(() if form.config is None else (form.config,)), *(form.layers or ()), *(form.manifests or ()))
