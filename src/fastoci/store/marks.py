"""What references reach: the first half of mark and sweep. Reads documents in the store, changes nothing.

Digests are raw bytes here, 32 or 64 of them: a million as text would take twice the memory.
Spec: docs/store-format.md 6 and 8.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final

from fastoci.errors import FormatError, StoreError
from fastoci.image.links import Link, has_links, links
from fastoci.image.mediatype import INDEXES
from fastoci.store import disk
from fastoci.store.paths import Paths

_SIZE: Final = 64 << 20  # bytes of one document


class Marks:
    """The digests that were reached so far, in that order, with their sizes as descriptors say; ``total`` of them.

    Args:
        counted: the digests that ``total`` counts, when not all.
    """

    def __init__(self, paths: Paths, counted: Collection[bytes] | None = None) -> None:
        self._counted = counted
        self.sizes: dict[bytes, int] = {}
        self.total = 0
        self._followed: set[bytes] = set()
        self._paths = paths

    def follow(self, tops: Iterable[Link]) -> None:
        """Mark these and all that can be reached from them, as far as it is present.

        What a manifest names are a config and layers, whatever types it gives them, and the types in an index are
        claims of whoever made it: nobody may stop gc, or hide what another image needs, by lying about them.

        Raises:
            StoreError: one of ``tops`` is present and cannot be read, so that nobody knows what it needs.
        """
        left = [(link, True) for link in tops]
        while left:
            link, top = left.pop()
            digest = self._mark(link)
            if digest is None or not has_links(link.media_type) or digest in self._followed:
                continue
            found = self._links(link, digest, top)
            if found is None:
                continue
            self._followed.add(digest)
            if link.media_type in INDEXES:
                left += [(child, False) for child in found]
            else:
                for child in found:
                    self._mark(child)

    def drop_after(self, count: int) -> dict[bytes, int]:
        """Forget all but the first ``count`` that were reached; the others, with their sizes."""
        dropped = dict(list(self.sizes.items())[count:])
        for digest in dropped:
            size = self.sizes.pop(digest)
            self.total -= size if self._counts(digest) else 0
            self._followed.discard(digest)
        return dropped

    def _counts(self, digest: bytes) -> bool:
        return self._counted is None or digest in self._counted

    def _mark(self, link: Link) -> bytes | None:
        try:
            digest = bytes.fromhex(link.digest.partition(":")[2])
        except ValueError:  # of an algorithm that no blob here is named by
            return None
        if digest not in self.sizes:
            self.sizes[digest] = link.size
            self.total += link.size if self._counts(digest) else 0
        return digest

    def _links(self, link: Link, digest: bytes, top: bool) -> tuple[Link, ...] | None:
        """What a document names; None when it is no such document."""
        algorithm = link.digest.partition(":")[0]
        if algorithm not in ("sha256", "sha512"):
            return ()
        path = f"{self._paths.root}/blobs/{algorithm}/{digest.hex()}"
        try:
            data = disk.read(path, _SIZE)
        except StoreError:
            if _may_be_document(path, top):
                raise
            return None
        if data is None:
            return None
        try:
            return links(data, link.media_type)
        except FormatError as error:
            if not top or hashlib.new(algorithm, data).digest() != digest:
                return None  # a damaged blob is as good as absent: the image has to be fetched again in any case
            raise StoreError(f"{path}: what it needs cannot be told: {error}", path=path) from error


def _may_be_document(path: str, top: bool) -> bool:
    """Of a file that could not be read: a link or device counts as absent, and only an image's own may be so large."""
    with suppress(OSError):
        info = os.lstat(path)
        return stat.S_ISREG(info.st_mode) and (top or info.st_size <= _SIZE)
    return True
