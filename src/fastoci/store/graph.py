"""What references reach: the blobs that each needs, by descriptors, without a look at any blob but documents.

Reads references and documents lightly, for walks over all of them; ``refs`` and ``image.manifest`` read one strictly.
Synchronous, for threads. Spec: docs/store-format.md 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from fastoci import files
from fastoci.errors import FormatError, StoreError
from fastoci.image import document
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import HEX_DIGITS
from fastoci.image.links import Link, has_links, links
from fastoci.image.mediatype import INDEXES, MANIFESTS
from fastoci.image.stored_image import StoredImage
from fastoci.limits import DOCUMENT
from fastoci.store.layout import Paths
from fastoci.store.refs import REF_SIZE, ref_files
from fastoci.threads import Check, go_on

_OTHERS: Final = 100_000  # what one reference may lead to beside what it needs
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


def listed(paths: Paths, *, check: Check = go_on) -> tuple[list[Listed], list[StoreError]]:
    """All references by name, and what is wrong with the files that are none; ``check`` is called now and then."""
    found: list[Listed] = []
    broken: list[StoreError] = []
    for directory, key in ref_files(paths):
        path = directory.at(key)
        try:
            check()
            data = files.read_small(directory, key, REF_SIZE)
            if data is None:
                continue
            ref = document.peek(data, Listed, what="reference")
            if paths.ref(ref.name)[1] != key:
                raise StoreError(f"{path} is the file of another reference than {ref.name}", path=path)
            found.append(ref)
        except FormatError as error:
            broken.append(StoreError(f"{path} is not a reference: {error}", path=path))
        except StoreError as error:
            broken.append(error)
    found.sort(key=lambda ref: ref.name)
    return found, broken


def listed_as(ref: StoredImage) -> Listed:
    """A reference that was read strictly, for the same walks."""
    images = {platform: Link.of(image) for platform, image in ref.images.items()}
    return Listed(ref.name, Link.of(ref.descriptor), images, ref.pulled_at, ref.pinned)


def reader(places: Sequence[Paths], *, limit: int = DOCUMENT, check: Check = go_on) -> Read:
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


def needed_by(ref: Listed, read: Read) -> Iterator[Link]:
    """Each blob that a reference needs, once: what its images need, and the document that its name leads to.

    What a manifest names are a config and layers, whatever types it gives them.
    """
    seen: set[str] = set()
    for top in (*ref.images.values(), ref.descriptor):
        if top.digest in seen:
            continue
        seen.add(top.digest)
        yield top
        data = read(top) if top.media_type in MANIFESTS else None
        for child in _children(data, top) if data is not None else ():
            if child.digest not in seen:
                seen.add(child.digest)
                yield child


def reached(ref: Listed, read: Read) -> Iterator[tuple[Link, bool]]:
    """Each blob that a reference reaches, once, and whether the reference needs it; first what it needs.

    What else its indexes name belongs to platforms that were not asked for, and is reached as far as its documents are
    there.

    Raises:
        FormatError: that leads to more than is looked at; what came before is right.
    """
    seen: set[str] = set()
    for link in needed_by(ref, read):
        seen.add(link.digest)
        yield link, True
    left = _OTHERS
    stack = [link for link in (*ref.images.values(), ref.descriptor) if link.media_type in INDEXES]
    read_as: set[tuple[str, str]] = set()  # a document may be called several things, and one of them is right
    while stack:
        link = stack.pop()
        data = None if (link.digest, link.media_type) in read_as else read(link)
        read_as.add((link.digest, link.media_type))
        if data is None:
            continue
        if link.digest not in seen:
            seen.add(link.digest)
            yield link, False
        children = _children(data, link)
        left -= len(children)
        if left < 0:
            raise FormatError(f"{ref.name} leads to more than {_OTHERS} blobs that it does not need")
        for child in children:
            if child.digest in seen:
                continue
            if link.media_type in INDEXES and has_links(child.media_type):
                stack.append(child)
            else:
                seen.add(child.digest)
                yield child, False


def _children(data: bytes, link: Link) -> tuple[Link, ...]:
    with suppress(FormatError):  # whoever hashes it finds out
        return links(data, link.media_type)
    return ()


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
    for algorithm, digits in HEX_DIGITS.items():
        with files.translated("list", f"{paths.root}/blobs/{algorithm}"), suppress(FileNotFoundError):
            entries = paths.blobs(algorithm).names()
            found += [f"{algorithm}:{name}" for name in entries if len(name) == digits and not name.strip(_HEX)]
    found.sort()
    return found
