"""What hangs on images, found: referrers, what hangs on these in turn, and what cosign keeps under tags.

Whoever may write to a place chooses what hangs on an image there. So each document is read once, held against the
subject that it is listed for, and counted and weighed against ``Limits``; a circle ends where it began.

Spec: distribution-spec v1.1, "Listing Referrers"; image-spec v1.1 manifest.md ("subject").
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Final

import msgspec

from fastoci.aio import all_or_first
from fastoci.errors import BlobNotFoundError, FormatError, IntegrityError, UnsupportedError
from fastoci.image import mediatype
from fastoci.image.attachments import (
    Attachment,
    cosign_tags,
    is_signature,
    parse_referrers,
    referrer_of,
    referrers_tag,
    subject_of,
)
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image_interfaces import AttachmentSource, ImageCollection
from fastoci.jobs.resolve import check_size
from fastoci.limits import Limits

_DOCUMENTS: Final = mediatype.MANIFESTS | mediatype.INDEXES
_AT_ONCE: Final = 4  # documents whose attachments are looked for at a time


class Attached(msgspec.Struct, frozen=True):
    """Which of what hangs on an image is wanted: all ``referrers``, and ``signatures`` as referrers and by tags."""

    referrers: bool = False
    signatures: bool = False

    def __bool__(self) -> bool:
        return self.referrers or self.signatures

    def takes(self, artifact_type: str) -> bool:
        """Whether a referrer of this type is wanted."""
        return self.referrers or (self.signatures and is_signature(artifact_type))


async def find_attachments(
    subjects: Collection[Digest],
    source: AttachmentSource,
    attached: Attached,
    limits: Limits,
    warn: Callable[[str], object],
) -> tuple[Attachment, ...]:
    """What hangs on documents, and on what hangs on them: each behind what it hangs on.

    Args:
        subjects: manifests and indexes of one image.
        warn: is told of what is left out, because it is not what the place says of it.
    Raises:
        FormatError: there is more than the limits allow, or it hangs deeper.
        FastociError: the place does not say what hangs on a document, or does not give it.
    """
    search = _Search(source, attached, limits, warn)
    level = list(dict.fromkeys(subjects))
    search.seen.update(level)
    for _ in range(limits.index_depth):
        if not level:
            break
        level = await search.below(level)
    if level and await search.below(level):
        raise FormatError(f"what hangs on the image hangs more than {limits.index_depth} deep")
    return tuple(search.found)


class _Search:
    """One search: what was found so far. ``seen`` are the documents that are not looked at again."""

    def __init__(
        self, source: AttachmentSource, attached: Attached, limits: Limits, warn: Callable[[str], object]
    ) -> None:
        self.found: list[Attachment] = []
        self.seen: set[Digest] = set()
        self._source = source
        self._attached = attached
        self._limits = limits
        self._warn = warn
        self._number = self._size = 0
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def below(self, level: Iterable[Digest]) -> list[Digest]:
        """Find what hangs on these documents, in their order."""
        tasks = [asyncio.create_task(self._of(subject)) for subject in level]
        await all_or_first(tasks)
        following = []
        for each in tasks:
            for attachment in each.result():
                self.found.append(attachment)
                if attachment.descriptor.digest not in self.seen:
                    self.seen.add(attachment.descriptor.digest)
                    following.append(attachment.descriptor.digest)
        return following

    async def _of(self, subject: Digest) -> list[Attachment]:
        async with self._turns:
            return [
                *await self._referrers(subject),
                *(await self._tagged(subject) if self._attached.signatures else ()),
            ]

    async def _referrers(self, subject: Digest) -> list[Attachment]:
        found = []
        for entry in await self._source.referrers(subject):
            if entry.digest in self.seen or (entry.artifact_type and not self._attached.takes(entry.artifact_type)):
                continue
            if entry.media_type not in _DOCUMENTS:
                self._warn(f"{entry.digest} is listed as a referrer, and is {entry.media_type!r}: it is left out")
                continue
            self._count(entry)
            data = await self._source.manifest(entry)
            try:
                says, attachment = subject_of(data), _attachment(entry, data, subject)
            except (FormatError, UnsupportedError) as error:
                self._warn(f"{entry.digest} is listed as a referrer, and is left out: {error.message}")
                continue
            if says != subject:
                self._warn(f"{entry.digest} is listed as a referrer of {subject}, and is none: it is left out")
            elif self._attached.takes(attachment.descriptor.artifact_type):
                found.append(attachment)
        return found

    async def _tagged(self, subject: Digest) -> list[Attachment]:
        found = []
        for tag in cosign_tags(subject):
            top = await self._source.tagged(tag)
            if top is not None:
                self._count(top[0])
                found.append(_attachment(*top, subject, tag))
        return found

    def _count(self, descriptor: Descriptor) -> None:
        """Before a document is read: whether that is one, or some bytes, too many."""
        check_size(descriptor, self._limits)
        self._number += 1
        self._size += descriptor.size
        if self._number > self._limits.attachments:
            raise FormatError(f"more than {self._limits.attachments} documents hang on the image")
        if self._size > self._limits.documents_size:
            raise FormatError(f"more than {self._limits.documents_size} bytes of documents hang on the image")


def _attachment(descriptor: Descriptor, data: bytes, subject: Digest, tag: str = "") -> Attachment:
    """An attachment with a descriptor by its own words: an annotation in a list could give it a name in a layout.

    Raises:
        FormatError, UnsupportedError: it is no document.
    """
    kind = referrer_of(descriptor, data).artifact_type
    own = Descriptor(descriptor.media_type, descriptor.digest, descriptor.size, artifact_type=kind)
    return Attachment(own, data, subject, tag)


class CollectionAttachments:
    """``AttachmentSource`` of a place that lists its images: what of them hangs on another is read once.

    A list of referrers under their tag counts, too: not all who write one name its referrers in ``index.json``.
    """

    def __init__(self, collection: ImageCollection, limits: Limits) -> None:
        self._collection = collection
        self._limits = limits
        self._referrers: dict[Digest, dict[Digest, Descriptor]] | None = None
        self._tagged: dict[str, Descriptor] = {}

    async def referrers(self, subject: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """What says of itself that it hangs on the document, in the order of the place; then what its tag lists.

        Raises:
            FormatError, UnsupportedError, IntegrityError, StoreError: the place is damaged.
        """
        if self._referrers is None:
            self._referrers = await self._read()
        found = dict(self._referrers.get(subject, {}))
        listed = await self.tagged(referrers_tag(subject))
        if listed is not None and listed[0].media_type in mediatype.INDEXES:
            found = {**{entry.digest: entry for entry in parse_referrers(listed[1])}, **found}
        return tuple(entry for entry in found.values() if artifact_type in ("", entry.artifact_type))

    async def tagged(self, tag: str) -> tuple[Descriptor, bytes] | None:
        """The image under a tag, alone or behind a repository. Raises: as ``referrers``."""
        if self._referrers is None:
            self._referrers = await self._read()
        top = self._tagged.get(tag)
        return None if top is None else (top, await self.manifest(top))

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """The bytes of a document. Raises: as ``referrers``."""
        check_size(descriptor, self._limits)
        return await self._collection.manifest(descriptor)

    async def _read(self) -> dict[Digest, dict[Digest, Descriptor]]:
        found: dict[Digest, dict[Digest, Descriptor]] = {}
        for image in await self._collection.names():
            top = image.top
            self._tagged.setdefault(image.name.rpartition(":")[2], top)
            if top.media_type not in _DOCUMENTS:
                continue
            try:
                data = await self.manifest(top)
                subject, entry = subject_of(data), referrer_of(top, data)
            except (FormatError, UnsupportedError, IntegrityError, BlobNotFoundError):
                continue  # of another image than the one that is asked for
            if subject is not None:
                found.setdefault(subject, {})[top.digest] = entry
        return found
