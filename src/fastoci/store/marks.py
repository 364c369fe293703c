"""What references reach: the first half of mark and sweep. Reads documents in the store, changes nothing.

What it costs is bounded by what the store holds, whatever the documents say: each is read once, none beyond the limit,
and below an index only what is present is remembered, by the size that it has.

Digests are raw bytes here, 32 or 64 of them: a million as text would take twice the memory.
Spec: docs/store-format.md 6 and 8.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress

from fastoci import files
from fastoci.directory import Directory
from fastoci.errors import FormatError, StoreError
from fastoci.image.digest import HEX_DIGITS
from fastoci.image.links import Link, has_links, links
from fastoci.image.mediatype import INDEXES
from fastoci.limits import DOCUMENT
from fastoci.store.layout import Paths
from fastoci.threads import Check, go_on


class Marks:
    """The digests that were reached so far, in that order, with their sizes as descriptors say; ``total`` of them.

    Args:
        counted: the digests that ``total`` counts, when not all.
        limit: bytes of one document.
        check: called now and then; what it raises ends the work.
    """

    def __init__(
        self,
        paths: Paths,
        counted: Collection[bytes] | None = None,
        *,
        limit: int = DOCUMENT,
        check: Check = go_on,
    ) -> None:
        self._counted = counted
        self.sizes: dict[bytes, int] = {}
        self.total = 0
        self._followed: set[bytes] = set()
        self._paths = paths
        self._limit = limit
        self._check = check

    def follow(self, tops: Iterable[Link], *, strict: bool = False) -> None:
        """Mark these and all that can be reached from them, as far as it is present.

        What a manifest names are a config and layers, whatever types it gives them, and the types in an index are
        claims of whoever made it: nobody may stop gc, or hide what another image needs, by lying about them.

        Args:
            strict: what the indexes name counts as ``tops`` do: nobody has said which of it is needed.
        Raises:
            StoreError: one of ``tops`` is present and cannot be read, so that nobody knows what it needs.
        """
        left = [(link, True) for link in tops]
        queued: set[tuple[str, str]] = set()  # a document may be called several things, and one of them is right
        while left:
            link, top = left.pop()
            digest = self._mark(link)
            if digest is None or not has_links(link.media_type) or digest in self._followed:
                continue
            found = self._links(link, digest, top)
            if found is None:
                continue
            self._followed.add(digest)
            is_index = link.media_type in INDEXES
            for child in found:
                if top and not is_index:
                    self._mark(child)
                elif (there := self._present(child)) is not None:
                    self._mark(there)
                    if is_index and has_links(there.media_type) and (there.digest, there.media_type) not in queued:
                        queued.add((there.digest, there.media_type))
                        left.append((there, strict))

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
        digest = _raw(link)
        if digest is not None and digest not in self.sizes:
            self.sizes[digest] = link.size
            self.total += link.size if self._counts(digest) else 0
        return digest

    def _present(self, link: Link) -> Link | None:
        """The link with the size of what has its name in the store: an index may claim any."""
        digest = _raw(link)
        with suppress(OSError):
            if digest is not None:
                directory = self._paths.blobs(link.digest.partition(":")[0])
                return Link(link.media_type, link.digest, directory.stat(digest.hex()).st_size)
        return None

    def _blobs(self, link: Link) -> Directory | None:
        """Where the blobs of its algorithm are; None when there are none."""
        with files.translated("look at", self._paths.root), suppress(FileNotFoundError):
            return self._paths.blobs(link.digest.partition(":")[0])
        return None

    def _links(self, link: Link, digest: bytes, top: bool) -> tuple[Link, ...] | None:
        """What a document names; None when it is no such document."""
        self._check()
        directory, name = self._blobs(link), digest.hex()
        if directory is None:
            return None
        try:
            data = files.read(directory, name, self._limit)
        except StoreError:
            if self._may_be_document(directory, name, top):
                raise
            return None
        if data is None:
            return None
        try:
            return links(data, link.media_type)
        except FormatError as error:
            if not top or hashlib.new(link.digest.partition(":")[0], data).digest() != digest:
                return None  # a damaged blob is as good as absent: the image has to be fetched again in any case
            path = directory.at(name)
            raise StoreError(f"{path}: what it needs cannot be told: {error}", path=path) from error

    def _may_be_document(self, directory: Directory, name: str, top: bool) -> bool:
        """Of a file that could not be read: a link or device counts as absent, and only a top may be too large."""
        with suppress(OSError):
            info = directory.stat(name)
            return stat.S_ISREG(info.st_mode) and (top or info.st_size <= self._limit)
        return True


def _raw(link: Link) -> bytes | None:
    """The digest as bytes; None for one that no blob here is named by."""
    algorithm, _, digits = link.digest.partition(":")
    with suppress(ValueError):
        return bytes.fromhex(digits) if algorithm in HEX_DIGITS else None
    return None
