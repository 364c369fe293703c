"""What is in a store, and layouts of it for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fastoci.errors import StoreError
from fastoci.image.graph import tops_of
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage
from fastoci.interfaces import WholeImage
from fastoci.jobs.stored import Mending, Stored
from fastoci.jobs.verify import sound
from fastoci.layouts.oci_layout import OciLayout
from fastoci.store.graph import Read, descriptor, needed_by, size_of
from fastoci.store.store import Store
from fastoci.threads import Check


async def images(store: Store) -> tuple[tuple[StoredImage, ...], tuple[StoreError, ...]]:
    """All images by name, with their sizes, and what is wrong with the files that are not references.

    Raises:
        StoreError: the disk refused.
    """

    def work(read: Read, check: Check) -> tuple[tuple[StoredImage, ...], tuple[StoreError, ...]]:
        found, broken = store.refs.list(check=check)
        return tuple(replace(image, size=size_of(image, read)) for image in found), broken

    return await store.walk(work)


async def export(store: Store, stored: Stored, directory: Path, references: Sequence[str]) -> int:
    """Add images, all without ``references``, to an OCI layout; how many there are.

    Raises: as ``Engine.export``.
    """

    def work(read: Read, check: Check) -> list[WholeImage]:
        if references:
            refs = [store.refs.get(str(Reference.parse(each))) for each in dict.fromkeys(references)]
        else:
            refs = list(store.refs.list(check=check)[0])
        return [_whole_image(ref, sound(read)) for ref in refs]

    found = await store.walk(work)
    await stored.put(OciLayout(directory, stored.run_hashing), found, Mending("", None))
    return len(found)


async def named_images(store: Store, references: Sequence[str]) -> Sequence[StoredImage]:
    """The images that are named, all without ``references``.

    Raises:
        BlobNotFoundError: the store has no such reference.
    """
    if not references:
        return (await store.walk(lambda _, check: store.refs.list(check=check)))[0]
    names = dict.fromkeys(str(Reference.parse(each)) for each in references)
    return [await store.image(name) for name in names]


def _whole_image(ref: StoredImage, read: Read) -> WholeImage:
    """As in ``index.json``: of one platform its manifest, which every tool can read, of several what was named."""
    only = next(iter(ref.images.values())) if len(ref.images) == 1 else None
    top = ref.descriptor if only is None else only
    blobs = [descriptor(link) for link in needed_by(tops_of(replace(ref, descriptor=top)), read)]
    return WholeImage(ref.name, top, blobs)
