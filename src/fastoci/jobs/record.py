"""An image by its manifest alone: for pullers that brought its blobs with ``fetch``, or share layers between images."""

from __future__ import annotations

from msgspec.structs import replace

from fastoci.arguments import expect
from fastoci.errors import BlobNotFoundError, DigestMismatchError, UnsupportedError
from fastoci.image import manifest as manifest_document
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.jobs.image import Image
from fastoci.jobs.plan import Resolved, stored_image
from fastoci.jobs.pull import PullContext
from fastoci.jobs.resolve import read_config


async def record(context: PullContext, reference: Reference, data: bytes, media_type: str) -> Image:
    """Store a manifest and give it a name; its blobs are in the store already.

    Layer files may stand for blobs: then the image is kept unpacked only, as the one that has the layers is.

    Raises:
        BlobNotFoundError: one of them is not.
        FormatError, UnsupportedError: ``data`` is not a manifest.
        IntegrityError: the config is damaged; or the reference has a digest, which is another's.
        StoreError: the disk refused.
    """
    expect(bytes, data, "manifest")
    expect(str, media_type, "media_type")
    media_type = media_type or manifest_document.sniff(data)
    if media_type in mediatype.INDEXES:
        raise UnsupportedError("a name is recorded of a manifest, not of an index: of one platform")
    manifest = manifest_document.parse(data, media_type)
    top = Descriptor.of(data, media_type)
    if reference.digest is not None:
        actual = Digest.of(data, reference.digest.algorithm)
        if actual != reference.digest:
            text = f"the manifest for {reference} is {actual}"
            raise DigestMismatchError(
                text, subject=str(reference.digest), expected=str(reference.digest), actual=str(actual)
            )
    resolved = Resolved(reference, ((top, data),), manifest, None)
    async with context.store.session([top, *resolved.blobs]) as session:
        lacking = [blob for blob in session.missing if blob.digest != top.digest]
        spared = await context.layering.spared([resolved]) if lacking else set()
        absent = [blob for blob in lacking if blob.digest not in spared]
        if absent:
            blobs = "a blob" if len(absent) == 1 else f"{len(absent)} blobs"
            text = f"{reference} needs {blobs} that the store does not have, as {absent[0].digest}"
            raise BlobNotFoundError(text, path=str(absent[0].digest), subject=str(absent[0].digest))
        async with session.reserve() as writer:
            await context.keep_document(writer, top, data, str(reference))
            config = await read_config(context.store, manifest, context.limits)
            await writer.record(replace(stored_image(resolved, config), layers_only=bool(lacking)))
    return Image(context, resolved, config)
