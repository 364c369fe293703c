"""Where a registry keeps the signatures of a manifest: under a tag made of its digest, ``sha256-<hex>.sig``.

Whoever can write to the repository says how many there are, and how large: both are bounded, and no more is read.

Spec: cosign SIGNATURE_SPEC.md, "Storage"; containers-registries.d(5), ``use-sigstore-attachments``.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Final, Protocol

from fastoci.errors import DigestMismatchError, FormatError, NotFoundError
from fastoci.image import manifest as manifest_document
from fastoci.image import mediatype
from fastoci.image.attachments import cosign_tags
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.image_interfaces import ImageSource
from fastoci.interfaces import BlobSource, BufferSource
from fastoci.trust.signature import ANNOTATION, MEDIA_TYPE, Signature

MOST: Final = 128  # signatures of one manifest
SIZE: Final = 64 << 10  # bytes of one signed payload; a real one has 300


class Repository(ImageSource, BlobSource, Protocol):
    """A place that has both manifests and blobs."""


async def signatures(
    source: Repository, reference: Reference, buffers: BufferSource, manifest: Digest
) -> tuple[Signature, ...]:
    """The signatures that a repository has of a manifest; none when it has none.

    Raises:
        FormatError: they are too many, or one is too large; or what has the tag is not a manifest.
        DigestMismatchError, RegistryError, TransportError: they cannot be had.
    """
    tag = next(iter(cosign_tags(manifest)), None)
    if tag is None:  # of a digest that is too long for one
        return ()
    tagged = Reference(reference.domain, reference.path, tag, None)
    try:
        top, data = await source.resolve(tagged)
    except NotFoundError:
        return ()
    if top.media_type in mediatype.INDEXES:
        raise FormatError(f"{tagged}: an index where the manifest of signatures is expected")
    layers = manifest_document.parse(data, top.media_type).layers
    made = [layer for layer in layers if layer.media_type == MEDIA_TYPE and ANNOTATION in layer.annotations]
    if len(made) > MOST:
        raise FormatError(f"{tagged}: {len(made)} signatures, more than {MOST}")
    return tuple([Signature(await _read(source, layer, buffers), layer.annotations) for layer in made])


async def _read(source: BlobSource, blob: Descriptor, buffers: BufferSource) -> bytes:
    """A small blob, verified."""
    if blob.size > SIZE:
        raise FormatError(f"{blob.digest}: a signed payload of {blob.size} bytes, more than {SIZE}")
    data = bytearray()
    async with aclosing(source.fetch(blob, 0, buffers)) as arriving:
        async for buffer in arriving:
            data += memoryview(buffer)
            buffer.release()
    actual = Digest.of(bytes(data), blob.digest.algorithm)
    if actual != blob.digest:
        text = f"expected {blob.digest}, the {len(data)} bytes received are {actual}"
        raise DigestMismatchError(text, subject=str(blob.digest), expected=str(blob.digest), actual=str(actual))
    return bytes(data)
