"""What of unpacked layers can be hashed again: the tar in a layer file, the rest of it, and merged metadata.

The tar part has the layer's diff_id; of the rest the record has the digest, as it was written. So damage anywhere in a
file shows. A layer directory has no digest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial

import msgspec

from fastoci.image.digest import Digest
from fastoci.image.layer_file import LayerInfo, ranges_beside
from fastoci.jobs.rehash import Range, Target, What
from fastoci.store.layers.unpacked import Item, Unpacked, open_item
from fastoci.store.layout import StoreLayout

Key = tuple[str, str]  # what it is of, and the digest that it goes by


class Part(msgspec.Struct, frozen=True):
    """A part of a file, and what it must hash to. ``name`` says which: behind all digests of blobs, in order."""

    name: str
    item: Item
    what: What
    digest: Digest
    ranges: tuple[Range, ...]

    @property
    def key(self) -> Key:
        """What of it is named in a result."""
        return self.item.kind, str(self.item.digest)

    def target(self, number: int, paths: StoreLayout) -> Target:
        """What ``Rehash`` takes."""
        assert self.item.info is not None
        return Target(
            number,
            self.item.info.path,
            self.digest,
            self.item.info.size,
            partial(open_item, paths, self.item),
            self.ranges,
            self.what,
            self.item.digest,
        )


def parts(unpacked: Unpacked, wanted: Collection[Key] | None = None) -> dict[str, Part]:
    """By name, in order; all, or those that are wanted."""
    found = (part for item in unpacked.items for part in _parts(item) if wanted is None or part.key in wanted)
    return {part.name: part for part in sorted(found, key=lambda part: part.name)}


def _parts(item: Item) -> Iterator[Part]:
    info = item.info
    if info is None:
        return
    name = f"unpacked:{item.place}/{item.digest.hex}"
    if not isinstance(info, LayerInfo):
        yield Part(name, item, "merged", info.digest, ((0, info.size),))
        return
    yield Part(name, item, "layer", info.digest, tuple(ranges_beside(info)))
    if info.tar_part is not None:
        yield Part(f"{name}:tar", item, "tar", info.diff_id, (info.tar_part,))
