"""What references reach: the first half of mark and sweep. Reads documents in the store, changes nothing.

Digests are raw bytes here, 32 or 64 of them: a million as text would take twice the memory.
Spec: docs/store-format.md 6 and 8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from fastoci.errors import FormatError, StoreError
from fastoci.image.links import Link, has_links, links
from fastoci.store import disk
from fastoci.store.paths import Paths

_SIZE: Final = 64 << 20  # bytes of one document


class Marks:
    """The digests that were reached so far, in that order, with their sizes as descriptors say; ``total`` of them."""

    def __init__(self, paths: Paths) -> None:
        self.sizes: dict[bytes, int] = {}
        self.total = 0
        self._followed: set[bytes] = set()
        self._paths = paths

    def follow(self, tops: Iterable[Link]) -> None:
        """Mark these and all that can be reached from them, as far as it is present.

        Raises:
            StoreError: a document that is present cannot be read, so that nobody knows what it needs.
        """
        left = list(tops)
        while left:
            link = left.pop()
            algorithm, _, digits = link.digest.partition(":")
            try:
                digest = bytes.fromhex(digits)
            except ValueError:  # of an algorithm that no blob here is named by
                continue
            if digest not in self.sizes:
                self.sizes[digest] = link.size
                self.total += link.size
            if has_links(link.media_type) and digest not in self._followed:
                self._followed.add(digest)
                left += self._links(link, algorithm, digest)

    def drop_after(self, count: int) -> dict[bytes, int]:
        """Forget all but the first ``count`` that were reached; the others, with their sizes."""
        dropped = dict(list(self.sizes.items())[count:])
        for digest in dropped:
            self.total -= self.sizes.pop(digest)
            self._followed.discard(digest)
        return dropped

    def _links(self, link: Link, algorithm: str, digest: bytes) -> tuple[Link, ...]:
        if algorithm not in ("sha256", "sha512"):
            return ()
        path = f"{self._paths.root}/blobs/{algorithm}/{digest.hex()}"
        data = disk.read(path, _SIZE)
        if data is None:
            return ()
        try:
            return links(data, link.media_type)
        except FormatError as error:
            if hashlib.new(algorithm, data).digest() != digest:
                return ()  # a damaged blob is as good as absent: the image has to be fetched again in any case
            raise StoreError(f"{path}: what it needs cannot be told: {error}", path=path) from error
