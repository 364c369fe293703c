"""Which references stay, by age, number and size: the least recently used go first, pinned ones never.

Spec: docs/store-format.md 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from fastoci.errors import StoreError
from fastoci.image.stored_image import StoredImage
from fastoci.store.graph import Marks
from fastoci.store.refs import Stamp


class Retention(msgspec.Struct, frozen=True):
    """How much stays. None, and the default of all, is no bound. Sizes are bytes, times seconds."""

    max_age_s: float | None = None  # since the last use
    max_count: int | None = None  # references, the pinned among them
    max_size: int | None = None  # of all blobs together; beyond it, references go until ``low_size`` is reached
    low_size: int | None = None  # nine tenths of ``max_size``

    def __post_init__(self) -> None:
        if self.low_size is not None and (self.max_size is None or self.low_size > self.max_size):
            raise ValueError("low_size is at most max_size")

    @property
    def target(self) -> int | None:
        """Bytes that stay when there were too many."""
        return self.max_size * 9 // 10 if self.low_size is None and self.max_size is not None else self.low_size


class Root(msgspec.Struct, frozen=True):
    """A reference as gc sees it: an image with its file and its last use."""

    image: StoredImage
    path: str
    stamp: Stamp
    used: float  # POSIX time


def divide(
    roots: Sequence[Root], marks: Marks, retention: Retention, now: float
) -> tuple[list[tuple[Root, str]], dict[bytes, int]]:
    """Tell which references go, each with the reason, and mark what the others reach.

    Returns:
        them, and the sizes of what they alone reach.
    """
    line = sorted(roots, key=lambda root: (not root.image.pinned, -root.used, root.image.name))
    staying: list[Root] = []
    going: list[tuple[Root, str]] = []
    for number, root in enumerate(line):
        if root.image.pinned:
            staying.append(root)
        elif retention.max_age_s is not None and now - root.used > retention.max_age_s:
            going.append((root, f"not used for {retention.max_age_s:.0f} s"))
        elif retention.max_count is not None and number >= retention.max_count:
            going.append((root, f"{retention.max_count} used later"))
        else:
            staying.append(root)
    boundary = len(marks.sizes)
    fits = 0  # references that leave space enough
    for number, root in enumerate(staying):
        marks.follow_image(root.image)
        if number == fits and (root.image.pinned or retention.target is None or marks.total <= retention.target):
            fits, boundary = number + 1, len(marks.sizes)
    dropped: dict[bytes, int] = {}
    if retention.max_size is not None and marks.total > retention.max_size:
        dropped = marks.drop_after(boundary)
        going += [(root, f"the store has more than {retention.max_size} bytes") for root in staying[fits:]]
    before = len(marks.sizes)
    for root, _ in going:
        with suppress(StoreError):  # broken, and not needed
            marks.follow_image(root.image)
    return going, dropped | marks.drop_after(before)
