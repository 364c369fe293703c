"""What references reach, by descriptors, without reading any blob but documents: for df, verify, repair and gc.

The walk is ``image.graph``'s; here documents are read from the store, lightly, for walks over all references.
``Marks`` is the first half of mark and sweep. What it costs is bounded by what the store holds, whatever the documents
say: each is read once, none beyond the limit, and below an index only what is present is remembered, by the size that
it has. Its digests are raw bytes, 32 or 64 of them: a million as text would take twice the memory.
Synchronous, for threads. Spec: docs/store-format.md 6 and 8.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

from fastoci import files
from fastoci.directory import Directory
from fastoci.errors import FormatError, StoreError
from fastoci.image import document
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import HEX_DIGITS
from fastoci.image.graph import tops_of, walk
from fastoci.image.links import Link, links
from fastoci.image.mediatype import INDEXES, MANIFESTS
from fastoci.image.stored_image import StoredImage
from fastoci.limits import DOCUMENT
from fastoci.store.layout import StoreLayout
from fastoci.threads import Check, go_on

_OTHERS: Final = 100_000  # what one reference may lead to beside what it needs
_HEX: Final = "0123456789abcdef"

Read = Callable[[Link], bytes | None]


def reader(places: Sequence[StoreLayout], *, limit: int = DOCUMENT, check: Check = go_on) -> Read:
    """Reads documents from the first of these stores that has one of the right size; None when none has.

    Args:
        limit: bytes of one document: of a larger one is said no more than that it is absent.
        check: called before each; what it raises ends the work.
    """

    def read(link: Link) -> bytes | None:
        check()
        algorithm, _, name = link.digest.partition(":")
        if len(name) != HEX_DIGITS.get(algorithm) or not name.isalnum():
            return None
        for place in places:
            try:
                data = files.read_small(place.blobs(algorithm), name, limit)
            except (StoreError, OSError):  # of a document that cannot be read is said no more than that it is absent
                continue
            if data is not None and len(data) == link.size:
                return data
        return None

    return read


def needed_by(tops: Sequence[Link], read: Read) -> Iterator[Link]:
    """Each blob that an image needs, once: what its manifests name, and the document that its name leads to."""

    def children(link: Link, top: bool) -> Sequence[Link] | None:
        data = read(link) if link.media_type in MANIFESTS else None
        return None if data is None else _children(data, link)

    seen: set[str] = set()
    for link, _ in walk(tops, children, lambda link: None):
        if link.digest not in seen:
            seen.add(link.digest)
            yield link


def reached(tops: Sequence[Link], read: Read, holds: Callable[[Link], bool]) -> Iterator[tuple[Link, bool]]:
    """Each blob that an image reaches, once, and whether the image needs it; first what it needs.

    Args:
        holds: whether a blob is there that the image does not need.
    Raises:
        FormatError: that leads to more than is followed; what came before is right.
    """
    left = _OTHERS

    def children(link: Link, top: bool) -> Sequence[Link] | None:
        nonlocal left
        data = read(link)
        found = () if data is None else _children(data, link)
        if not top or link.media_type in INDEXES:
            left -= len(found)
            if left < 0:
                raise FormatError(f"leads to more than {_OTHERS} blobs that it does not need")
        return found

    seen: set[str] = set()
    for link, needed in walk(tops, children, lambda link: link if holds(link) else None):
        if link.digest not in seen:
            seen.add(link.digest)
            yield link, needed


def _children(data: bytes, link: Link) -> tuple[Link, ...]:
    with suppress(FormatError):  # whoever hashes it finds out
        return links(data, link.media_type)
    return ()


def size_of(image: StoredImage, read: Read) -> int:
    """Bytes of the configs and layers of an image's manifests, as far as these are there."""
    sizes: dict[str, int] = {}
    for manifest in map(Link.of, image.images.values()):
        if (data := read(manifest)) is not None:
            sizes.update((link.digest, link.size) for link in _children(data, manifest))
    return sum(sizes.values())


def descriptor(link: Link) -> Descriptor:
    """The link as a descriptor.

    Raises:
        FormatError, UnsupportedError: its digest is none, or cannot be verified.
    """
    return Descriptor(link.media_type, document.digest(link.digest, what="digest"), link.size)


def names(paths: StoreLayout) -> list[str]:
    """The digests of all blobs that are there, by name alone, in order; foreign files are left out."""
    found: list[str] = []
    for algorithm, digits in HEX_DIGITS.items():
        with files.translated("list", f"{paths.root}/blobs/{algorithm}"), suppress(FileNotFoundError):
            entries = paths.blobs(algorithm).names()
            found += [f"{algorithm}:{name}" for name in entries if len(name) == digits and not name.strip(_HEX)]
    found.sort()
    return found


class UnpackedLayers(Protocol):
    """What a store has unpacked, as far as a walk asks for it."""

    def reached(self, manifest: bytes, found: Sequence[Link]) -> Iterator[tuple[bytes, int]]:
        """What of it a manifest reaches: keys that are no digests, and sizes. ``found`` is what the manifest names."""

    def needed(self, found: Sequence[Link]) -> tuple[Link, ...]:
        """What the manifest needs all the same: not the layers that can be had from a layer file."""


class Marks:
    """The digests that were reached so far, in that order, with their sizes as descriptors say; ``total`` of them.

    Args:
        counted: the digests that ``total`` counts, when not all.
        unpacked: what is unpacked and reached is among them, by its keys.
        limit: bytes of one document.
        check: called now and then; what it raises ends the work.
    """

    def __init__(
        self,
        paths: StoreLayout,
        counted: Collection[bytes] | None = None,
        *,
        unpacked: UnpackedLayers | None = None,
        limit: int = DOCUMENT,
        check: Check = go_on,
    ) -> None:
        self._counted = counted
        self._unpacked = unpacked
        self.sizes: dict[bytes, int] = {}
        self.total = 0
        self._followed: set[tuple[bytes, bool]] = set()  # and whether without the layers that are unpacked
        self._paths = paths
        self._limit = limit
        self._check = check

    def follow_image(self, image: StoredImage) -> None:
        """``follow`` of an image, ``thin`` when it is kept unpacked only."""
        self.follow(tops_of(image), thin=image.layers_only)

    def follow(self, tops: Iterable[Link], *, strict: bool = False, thin: bool = False) -> None:
        """Mark these and all that can be reached from them, as far as it is present.

        Nobody may stop gc, or hide what another image needs, by lying about the types of what an index names.

        Args:
            strict: what the indexes name counts as ``tops`` do: nobody has said which of it is needed.
            thin: without the layers that can be had from layer files.
        Raises:
            StoreError: one of ``tops`` is present and cannot be read, so that nobody knows what it needs.
        """
        children = partial(self._children, strict, thin and self._unpacked is not None)
        for link, _ in walk(tops, children, self._present, strict=strict):
            self._mark(_raw(link), link.size)

    def drop_after(self, count: int) -> dict[bytes, int]:
        """Forget all but the first ``count`` that were reached; the others, with their sizes."""
        dropped = dict(list(self.sizes.items())[count:])
        for digest in dropped:
            size = self.sizes.pop(digest)
            self.total -= size if self._counts(digest) else 0
            self._followed -= {(digest, False), (digest, True)}
        return dropped

    def _counts(self, digest: bytes) -> bool:
        return self._counted is None or digest in self._counted

    def _mark(self, digest: bytes | None, size: int) -> None:
        if digest is not None and digest not in self.sizes:
            self.sizes[digest] = size
            self.total += size if self._counts(digest) else 0

    def _children(self, strict: bool, thin: bool, link: Link, top: bool) -> tuple[Link, ...] | None:
        digest = _raw(link)
        if digest is None or (digest, thin) in self._followed:
            return None
        found = self._links(link, digest, top, whole=strict)
        if found is None:
            return None
        self._followed.add((digest, thin))
        if self._unpacked is not None and link.media_type in MANIFESTS:
            for key, size in self._unpacked.reached(digest, found):
                self._mark(key, size)
            if thin:
                return self._unpacked.needed(found)
        return found

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
        with files.translated("stat", self._paths.root), suppress(FileNotFoundError):
            return self._paths.blobs(link.digest.partition(":")[0])
        return None

    def _links(self, link: Link, digest: bytes, top: bool, *, whole: bool) -> tuple[Link, ...] | None:
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
            return links(data, link.media_type, whole=whole)
        except FormatError as error:
            if not top or hashlib.new(link.digest.partition(":")[0], data).digest() != digest:
                return None  # a damaged blob is as good as absent: the image has to be fetched again in any case
            path = directory.at(name)
            raise StoreError(f"{path}: what it needs is unknown: {error}", path=path) from error

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
