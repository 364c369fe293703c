"""Which references go so that a job fits: those used least recently, and none whose going frees nothing that is needed.

Pure but for the documents that ``marks`` reads. Spec: docs/store-format.md 8.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import islice

import msgspec

from fastoci.errors import StoreError
from fastoci.image.digest import Digest
from fastoci.store.gc.retention import Root
from fastoci.store.graph import Marks


class Shortage(msgspec.Struct, frozen=True):
    """What a job lacks.

    Args:
        size: bytes of disk that have to become free.
        names: references that the job is of: they stay.
        blobs: that the job needs: what was begun of them stays.
        given_up: references that go after the job in any case: they go first, pinned or not.
    """

    size: int
    names: frozenset[str] = frozenset()
    blobs: frozenset[Digest] = frozenset()
    given_up: frozenset[str] = frozenset()


def evict(
    roots: Sequence[Root],
    marks: Marks,
    allocated: Mapping[bytes, int],
    shortage: Shortage,
    *,
    may_go: Collection[str],
    freed: int,
) -> tuple[list[Root], dict[bytes, int], int]:
    """Choose the references that go, and mark what the others reach; all that may go when that is not enough.

    A reference stays when what the others leave free suffices, the one used last first. So each that goes is needed,
    also when images share blobs.

    Args:
        allocated: bytes of disk that the deletion of each blob frees; those that are kept in any case are left out.
        may_go: names of references that can go; pinned ones stay all the same, unless they are given up.
        freed: bytes that become free in any case.
    Returns:
        them, the sizes of what they alone reach, and the bytes that become free.
    """
    rest: list[Root] = []
    for root in roots:
        if root.image.name in may_go and _is_free(root, shortage):
            rest.append(root)
        else:
            marks.follow_image(root.image)
    rest.sort(key=lambda root: (root.image.name in shortage.given_up, -root.used, root.image.name))
    freed += sum(allocated.values()) - sum(allocated.get(digest, 0) for digest in marks.sizes)
    going: list[Root] = []
    for root in rest:
        before = len(marks.sizes)
        marks.follow_image(root.image)
        more = sum(allocated.get(digest, 0) for digest in islice(reversed(marks.sizes), len(marks.sizes) - before))
        if freed - more < shortage.size:
            marks.drop_after(before)
            going.append(root)
        else:
            freed -= more
    before = len(marks.sizes)
    for root in going:
        with suppress(StoreError):  # broken, and not needed
            marks.follow_image(root.image)
    return going, marks.drop_after(before), freed


def _is_free(root: Root, shortage: Shortage) -> bool:
    name = root.image.name
    return name not in shortage.names and (not root.image.pinned or name in shortage.given_up)
