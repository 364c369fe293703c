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
from fastoci.errors import FormatError
from fastoci.image import mediatype
from fastoci.image.attachments import Attachment, cosign_tags, is_signature, subject_of
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import AttachmentSource
from fastoci.jobs.resolve import check_size
from fastoci.limits import Limits

_DOCUMENTS: Final = mediatype.MANIFESTS | mediatype.INDEXES
_AT_ONCE: Final = 4  # documents whose attachments are looked for at a time


class Wanted(msgspec.Struct, frozen=True):
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
    wanted: Wanted,
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
    search = _Search(source, wanted, limits, warn)
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

    def __init__(self, source: AttachmentSource, wanted: Wanted, limits: Limits, warn: Callable[[str], object]) -> None:
        self.found: list[Attachment] = []
        self.seen: set[Digest] = set()
        self._source = source
        self._wanted = wanted
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
            return [*await self._referrers(subject), *(await self._tagged(subject) if self._wanted.signatures else ())]

    async def _referrers(self, subject: Digest) -> list[Attachment]:
        found = []
        for entry in await self._source.referrers(subject):
            if entry.digest in self.seen or not self._wanted.takes(entry.artifact_type):
                continue
            if entry.media_type not in _DOCUMENTS:
                self._warn(f"{entry.digest} is listed as a referrer, and is {entry.media_type!r}: it is left out")
                continue
            self._count(entry)
            data = await self._source.manifest(entry)
            if subject_of(data) != subject:
                self._warn(f"{entry.digest} is listed as a referrer of {subject}, and is none: it is left out")
                continue
            found.append(Attachment(entry, data, subject))
        return found

    async def _tagged(self, subject: Digest) -> list[Attachment]:
        found = []
        for tag in cosign_tags(subject):
            top = await self._source.tagged(tag)
            if top is not None:
                self._count(top[0])
                found.append(Attachment(*top, subject, tag))
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
