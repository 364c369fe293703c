"""Which images of a store somebody means: by name, by ``NAME@DIGEST``, by digest, or by the first digits of one.

A name that the store has is that image, whatever else it could be. Otherwise a digest is looked for among those that
names lead to, which are printed by a pull and by ``ls``, and among the manifests of their platforms. Spelled alike
everywhere: this is the one place that reads it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from fastoci.arguments import expect
from fastoci.errors import AmbiguousReferenceError, BlobNotFoundError, ReferenceSyntaxError, StoreError
from fastoci.image.digest import HEX_DIGITS, Digest
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage
from fastoci.store.store import Store

_SHORTEST: Final = 4  # digits
_DIGEST: Final = re.compile(rf"(?:({'|'.join(HEX_DIGITS)}):)?([0-9a-f]{{{_SHORTEST},128}})")
_NAMED: Final = 8  # candidates in a message


class _Meant(msgspec.Struct, frozen=True):
    """What a text may mean: the full name, and a digest by its first digits, of one repository or of any."""

    name: str = ""
    repository: str = ""
    tag: str | None = None
    algorithm: str = ""
    digits: str = ""

    @classmethod
    def parse(cls, text: str) -> _Meant:
        """Read a text.

        Raises:
            ReferenceSyntaxError: it is neither a reference nor the beginning of a digest.
        """
        expect(str, text, "reference")
        before, at, after = text.rpartition("@")
        match = _DIGEST.fullmatch(after)
        algorithm, digits = match.groups(default="") if match is not None else ("", "")
        if at and match is not None:
            _, colon, _ = before.rpartition("/")[2].partition(":")
            parsed = Reference.parse(before)
            meant = cls("", parsed.name, parsed.tag if colon else None, algorithm, digits)
        else:
            meant = cls(algorithm=algorithm, digits=digits)
        try:
            return msgspec.structs.replace(meant, name=str(Reference.parse(text)))
        except ReferenceSyntaxError:
            if match is None:
                raise
            return meant

    def has(self, digest: Digest) -> bool:
        """Whether the digest begins with what was typed."""
        return digest.hex.startswith(self.digits) and self.algorithm in ("", digest.algorithm)

    def of(self, image: StoredImage) -> bool:
        """Whether the image's name has the repository and tag, where these were typed."""
        if not self.repository:
            return True
        reference = Reference.parse(image.name)
        return reference.name == self.repository and self.tag in (None, reference.tag)


async def find(store: Store, text: str) -> tuple[StoredImage, ...]:
    """All names of the one image that a text means, by name; of a platform's digest with that platform alone.

    Raises:
        ReferenceSyntaxError: it is neither a reference nor the beginning of a digest.
        AmbiguousReferenceError: several images have a digest that begins so.
        BlobNotFoundError: the store has none.
    """
    meant = _Meant.parse(text)
    if meant.name:
        try:
            return (await store.image(meant.name),)
        except BlobNotFoundError:
            if not meant.digits:
                raise
    images, _ = await store.walk(lambda _, check: store.refs.list(check=check))
    hits: dict[Digest, list[StoredImage]] = {}
    for image in images:
        manifests = (manifest.digest for manifest in image.images.values())
        for digest in dict.fromkeys((image.descriptor.digest, *manifests)):
            if meant.has(digest) and meant.of(image):
                hits.setdefault(digest, []).append(_only(image, digest))
    if len(hits) > 1:
        raise _ambiguous(text, [f"{digest} ({found[0].name})" for digest, found in hits.items()])
    if not hits:
        raise BlobNotFoundError(f"the store has no image {text[:300]}", path=str(store.path))
    return tuple(next(iter(hits.values())))


async def find_one(store: Store, text: str) -> StoredImage:
    """The image that a text means, with the platforms of all its names.

    Raises:
        ReferenceSyntaxError, AmbiguousReferenceError, BlobNotFoundError: as ``find``.
    """
    found = await find(store, text)
    return replace(found[0], images={name: manifest for each in found for name, manifest in each.images.items()})


def means_platform(text: str, image: StoredImage) -> bool:
    """Whether a text that meant this image means one of its platforms, by the digest of that, and not its name."""
    meant = _Meant.parse(text)
    return bool(meant.digits) and meant.name != image.name and not meant.has(image.descriptor.digest)


async def find_all(store: Store, texts: Sequence[str]) -> list[StoredImage]:
    """The images that these texts mean, each name once.

    Raises:
        ReferenceSyntaxError, AmbiguousReferenceError, BlobNotFoundError: as ``find``.
    """
    return list({image.name: image for text in texts for image in await find(store, text)}.values())


async def find_names(store: Store, text: str) -> tuple[str, ...]:
    """The names that a text means, to change them: those of one image in one repository.

    The reference's file may be broken when it is named in full.

    Raises:
        ReferenceSyntaxError, AmbiguousReferenceError, BlobNotFoundError: as ``find``; ambiguous is a digest in several
            repositories, too.
    """
    try:
        found = await find(store, text)
    except BlobNotFoundError:
        raise
    except StoreError:
        return (str(Reference.parse(text)),)
    names = tuple(image.name for image in found)
    if len({Reference.parse(name).name for name in names}) > 1:
        raise _ambiguous(text, names)
    return names


def _only(image: StoredImage, digest: Digest) -> StoredImage:
    """The image as its digest names it: all of it, or one of its platforms."""
    if digest == image.descriptor.digest:
        return image
    return replace(image, images={name: each for name, each in image.images.items() if each.digest == digest})


def _ambiguous(text: str, candidates: Sequence[str]) -> AmbiguousReferenceError:
    more = f" and {len(candidates) - _NAMED} more" if len(candidates) > _NAMED else ""
    listed = ", ".join(candidates[:_NAMED])
    return AmbiguousReferenceError(f"{text[:300]} may be each of {listed}{more}", candidates=tuple(candidates))
