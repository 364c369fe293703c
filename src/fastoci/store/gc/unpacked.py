"""Unpacked layers in a collection: which go, and how.

Spec: docs/store-format.md 8 and 9.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from typing import Final

from fastoci import files
from fastoci.image.layer_file import MergedInfo
from fastoci.store.gc.in_use import names_in_use
from fastoci.store.ingest.ingest import hold
from fastoci.store.layers import places
from fastoci.store.layers.unpacked import Item, Kind, Unpacked, entered, key
from fastoci.store.layout import StoreLayout

_KINDS: Final[dict[str, Kind]] = {places.IMAGES: "merged", places.ROOTS: "rootfs", places.TREES: "directory"}
_TREES: Final = {places.ROOTS: "rootfs", places.TREES: "overlay"}  # and the beginning of an ingest's name


def held(paths: StoreLayout, unpacked: Unpacked) -> set[bytes]:
    """The keys of what is in use.

    Raises:
        StoreError: it cannot be found out.
    """
    found: set[bytes] = set()
    if unpacked:
        names = names_in_use(paths)
        for item in unpacked.items:
            if item.digest.hex in names:
                found.add(item.key)
                if isinstance(item.info, MergedInfo):
                    found.update(key("layer", bytes.fromhex(device.hex)) for device in item.info.devices)
    return found


def unneeded(
    unpacked: Unpacked, needed: Collection[bytes], dropped: Collection[bytes], leased: Collection[bytes]
) -> Iterator[tuple[Item, str]]:
    """What goes, and why.

    Args:
        needed: keys that images reach, or that are in use.
        dropped: keys that only images reach that go.
        leased: digests.
    """
    for item in unpacked.items:
        if is_free(item.key, needed, leased):
            yield item, item.why or ("only of images that go" if item.key in dropped else "of no image")


def allocated(paths: StoreLayout, unpacked: Unpacked, leased: Collection[bytes]) -> dict[bytes, int]:
    """The bytes of disk that the deletion of each frees, by key; none of what is leased, or in use."""
    in_use = held(paths, unpacked)
    return {item.key: item.allocated for item in unpacked.items if is_free(item.key, in_use, leased)}


def is_free(name: bytes, needed: Collection[bytes], leased: Collection[bytes]) -> bool:
    """Whether nothing needs what has this key."""
    return name not in needed and name[:-1] not in leased


def key_of(name: str) -> bytes:
    """The key of what ``name_of`` named."""
    place, _, digits = name.rpartition("/")
    return key(_KINDS.get(place, "layer"), bytes.fromhex(digits))


def name_of(item: Item) -> str:
    """Where it is in the store, without the endings of files."""
    return f"{item.place}/{item.digest.hex}"


def delete(paths: StoreLayout, name: str, freed: ExitStack) -> bool:
    """Delete what has this name, unless somebody makes it; whether it was there.

    Args:
        freed: ends what takes long: the blocks of large files, and trees.
    """
    place, _, digits = name.rpartition("/")
    with files.translated("delete", f"{paths.root}/{name}"), suppress(FileNotFoundError):
        if place in _TREES:
            return _delete_tree(paths, place, digits, freed)
        with entered(paths, place) as directory:
            return places.delete_file(directory, digits, freed)
    return False


def _delete_tree(paths: StoreLayout, place: str, digits: str, freed: ExitStack) -> bool:
    """Move it into its ingest, where it is deleted later: also by another collection, when this one is killed."""
    held = hold(paths, f"{_TREES[place]}-{digits}")
    if held is None:
        return False
    freed.callback(held.close)
    freed.callback(places.clear, held)
    places.empty(held)
    directory, found = paths.directory(place), False
    with suppress(FileNotFoundError):
        directory.unlink(f"{digits}.json")
        found = True
    with suppress(FileNotFoundError):
        directory.rename(digits, held.directory, "gone")
        found = True
    return found
