"""What references reach: the blobs that each needs, by descriptors, without a look at any blob but documents.

Reads references and documents lightly, for walks over all of them; ``refs`` and ``image.manifest`` read one strictly.
Synchronous, for threads. Spec: docs/store-format.md 6.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from fastoci.errors import FormatError, StoreError
from fastoci.image import document
from fastoci.image.descriptor import Descriptor
from fastoci.image.links import Link, has_links, links
from fastoci.image.mediatype import INDEXES
from fastoci.store import disk
from fastoci.store.paths import Paths
from fastoci.store.refs import Ref

_SIZE: Final = 4 << 20  # bytes of a document or reference that is read
_DIGITS: Final = {"sha256": 64, "sha512": 128}  # of digests, by algorithm
_HEX: Final = "0123456789abcdef"

Read = Callable[[Link], bytes | None]


@dataclass(frozen=True, slots=True)
class Listed:
    """A reference as its file has it; ``pulled_at`` is RFC 3339."""

    name: str
    descriptor: Link
    images: dict[str, Link] = field(default_factory=dict)
    pulled_at: str = ""
    pinned: bool = False


def listed(paths: Paths) -> tuple[list[Listed], list[StoreError]]:
    """All references by name, and what is wrong with the files that are none."""
    found: list[Listed] = []
    broken: list[StoreError] = []
    for path, key in _files(paths):
        try:
            data = disk.read_small(path, _SIZE)
            if data is None:
                continue
            ref = document.peek(data, Listed, what="reference")
            if paths.ref(ref.name)[1] != key:
                raise StoreError(f"{path} is the file of another reference than {ref.name}", path=path)
            found.append(ref)
        except FormatError as error:
            broken.append(StoreError(f"{path} is no reference: {error}", path=path))
        except StoreError as error:
            broken.append(error)
    found.sort(key=lambda ref: ref.name)
    return found, broken


def _files(paths: Paths) -> Iterator[tuple[str, str]]:
    with disk.translated("list", paths.refs):
        for prefix in os.listdir(paths.refs):
            with suppress(NotADirectoryError):
                for key in os.listdir(f"{paths.refs}/{prefix}"):
                    if not key.startswith("."):
                        yield f"{paths.refs}/{prefix}/{key}", key


def listed_as(ref: Ref) -> Listed:
    """A reference that was read strictly, for the same walks."""
    images = {platform: Link.of(image) for platform, image in ref.images.items()}
    return Listed(ref.name, Link.of(ref.descriptor), images, ref.pulled_at, ref.pinned)


def reader(places: Sequence[Paths]) -> Read:
    """Reads documents from the first of these stores that has one of the right size; None when none has."""

    def read(link: Link) -> bytes | None:
        algorithm, _, name = link.digest.partition(":")
        if len(name) != _DIGITS.get(algorithm) or not name.isalnum():
            return None
        for place in places:
            try:
                data = disk.read_small(f"{place.root}/blobs/{algorithm}/{name}", _SIZE)
            except StoreError:  # of a document that cannot be read is said no more than that it is absent
                continue
            if data is not None and len(data) == link.size:
                return data
        return None

    return read


def reached(ref: Listed, read: Read) -> Iterator[tuple[Link, bool]]:
    """Each blob that a reference reaches, once, and whether the reference needs it.

    It needs what its images need, and the document that its name leads to. What else an index names belongs to
    platforms that were not asked for, and is reached as far as its documents are there.
    """
    seen: set[str] = set()
    stack = [(ref.descriptor, True), *((link, True) for link in ref.images.values())]  # from the end: images first
    while stack:
        link, needed = stack.pop()
        if link.digest in seen:
            continue
        seen.add(link.digest)
        if not has_links(link.media_type):
            yield link, needed
            continue
        data = read(link)
        if data is None and not needed:
            continue
        yield link, needed
        if data is not None:
            below = needed and link.media_type not in INDEXES
            with suppress(FormatError):  # whoever hashes it finds out
                stack += [(child, below) for child in links(data, link.media_type)]


def size_of(ref: Listed, read: Read) -> int:
    """Bytes of the configs and layers of a reference's images, as far as their manifests are there."""
    sizes: dict[str, int] = {}
    for image in ref.images.values():
        with suppress(FormatError):
            if (data := read(image)) is not None:
                sizes.update((link.digest, link.size) for link in links(data, image.media_type))
    return sum(sizes.values())


def descriptor(link: Link) -> Descriptor:
    """The link as a descriptor.

    Raises:
        FormatError, UnsupportedError: its digest is none, or cannot be verified.
    """
    return Descriptor(link.media_type, document.digest(link.digest, what="digest"), link.size)


def names(paths: Paths) -> list[str]:
    """The digests of all blobs that are there, by name alone, in order; foreign files are left out."""
    found: list[str] = []
    for algorithm, digits in _DIGITS.items():
        with disk.translated("list", f"{paths.root}/blobs/{algorithm}"), suppress(FileNotFoundError):
            entries = os.listdir(f"{paths.root}/blobs/{algorithm}")
            found += [f"{algorithm}:{name}" for name in entries if len(name) == digits and not name.strip(_HEX)]
    found.sort()
    return found
