"""Images that are kept unpacked only: the blobs of their layers go when the layer files are there for good.

Spec: docs/store-format.md 6, 8 and 9.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress

from msgspec.structs import replace

from fastoci.errors import FormatError, StoreBusyError, UnsupportedError
from fastoci.image import document
from fastoci.image.digest import Digest
from fastoci.image.links import Link, diff_ids, links
from fastoci.image.stored_image import StoredImage
from fastoci.store.gc.collect import GcItem
from fastoci.store.gc.retention import Retention
from fastoci.store.graph import Read
from fastoci.store.layers.unpacked import Unpacked
from fastoci.store.store import Store


async def drop_blobs(store: Store, names: Collection[str]) -> tuple[GcItem, ...]:
    """Delete the blobs that these images do without, of those that are kept unpacked only; what was deleted.

    Their layer files are made durable before. What another image or a running job needs stays: a job calls this when
    its own session is over. While another collection is at work nothing is deleted: that one, or the next, does it.

    Raises:
        StoreError: a reference or a document is broken, or the disk refused.
    """
    images = [image for image in (await store.recorded(names)).values() if image.layers_only]
    await store.layers.sync(await store.walk(lambda read, check: set(_layers(images, read))))
    unpacked = await store.unpacked()
    spared = await store.walk(lambda read, check: _spared(images, unpacked))
    plan = await store.plan_gc(Retention())
    items = tuple(item for item in plan.items if item.kind == "blob" and item.name in spared)
    with suppress(StoreBusyError):
        return await store.gc(replace(plan, items=items))
    return ()


def _spared(images: Collection[StoredImage], unpacked: Unpacked) -> set[str]:
    return {blob for image in images for blob in unpacked.spared(image)}


def _layers(images: Collection[StoredImage], read: Read) -> Iterator[Digest]:
    """The diff_ids of images, as far as their documents are there."""
    for manifest in (Link.of(each) for image in images for each in image.images.values()):
        data = read(manifest)
        with suppress(FormatError):
            named = () if data is None else links(data, manifest.media_type)
            config = read(named[0]) if named else None
            for text in () if config is None else diff_ids(config):
                with suppress(FormatError, UnsupportedError):
                    yield document.digest(text, what="diff_id")
