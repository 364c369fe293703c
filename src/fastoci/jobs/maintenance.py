"""What is in a store, and layouts of it for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from fastoci.errors import BlobNotFoundError, StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.image.graph import tops_of
from fastoci.image.stored_image import StoredImage
from fastoci.image_interfaces import WholeImage
from fastoci.jobs.pull import PullContext
from fastoci.jobs.stored import Mending
from fastoci.store.graph import Read, descriptor, needed_by, size_of
from fastoci.store.lookup import find_all, find_names
from fastoci.store.store import Store
from fastoci.threads import Check


async def images(
    store: Store, references: Sequence[str] = ()
) -> tuple[tuple[StoredImage, ...], tuple[StoreError, ...]]:
    """Images, all by default, with their sizes, and what is wrong with the files that are not references.

    Raises:
        BlobNotFoundError: the store has no such reference.
        StoreError: the disk refused.
    """

    asked = tuple(await find_all(store, references))

    def work(read: Read, check: Check) -> tuple[tuple[StoredImage, ...], tuple[StoreError, ...]]:
        found, broken = (asked, ()) if references else store.refs.list(check=check)
        return tuple(replace(image, size=size_of(image, read)) for image in found), broken

    return await store.walk(work)


async def export(store: Store, context: PullContext, directory: Path, references: Sequence[str]) -> int:
    """Add images, all without ``references``, to an OCI layout; how many there are.

    Raises: as ``Engine.export``.
    """
    from fastoci.jobs.verify import sound

    refs = await named_images(store, references)
    found = await store.walk(lambda read, check: [_whole_image(ref, sound(read)) for ref in refs])
    await context.stored.put(context.layout(directory), found, Mending("", None))
    return len(found)


async def needed(store: Store, image: StoredImage) -> list[Descriptor]:
    """What an image has in the store: each document and blob once."""
    return await store.walk(lambda read, check: list(map(descriptor, needed_by(tops_of(image), read))))


async def named_images(store: Store, references: Sequence[str]) -> Sequence[StoredImage]:
    """The images that are named, all without ``references``.

    Raises:
        BlobNotFoundError: the store has no such reference.
        AmbiguousReferenceError: a digest's first digits are those of several images.
    """
    if not references:
        return (await store.walk(lambda _, check: store.refs.list(check=check)))[0]
    return await find_all(store, references)


async def remove(store: Store, reference: str) -> None:
    """Forget an image by its name, or all its names in one repository by its digest.

    Raises:
        BlobNotFoundError: the store has no such reference.
        AmbiguousReferenceError: the digest has names in several repositories.
    """
    gone = [await store.forget(name) for name in await find_names(store, reference)]
    if not any(gone):
        raise BlobNotFoundError(f"the store has no reference {reference}", path=str(store.path))
    await store.update_index()


async def pin(store: Store, reference: str, pinned: bool) -> None:
    """Pin, or no longer, what ``remove`` would forget.

    Raises:
        BlobNotFoundError, AmbiguousReferenceError: as ``remove``.
    """
    for name in await find_names(store, reference):
        await store.pin(name, pinned)


def _whole_image(ref: StoredImage, read: Read) -> WholeImage:
    """As in ``index.json``: of one platform its manifest, which every tool can read, of several what was named."""
    only = next(iter(ref.images.values())) if len(ref.images) == 1 else None
    top = ref.descriptor if only is None else only
    blobs = [descriptor(link) for link in needed_by(tops_of(replace(ref, descriptor=top)), read)]
    return WholeImage(ref.name, top, blobs)
