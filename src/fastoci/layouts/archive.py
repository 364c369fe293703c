"""An archive of images that is read: its members once, and then their bytes from where they are.

Of a file these are found by their headers, and nothing else is read before it is wanted. What cannot seek, and what is
compressed as a whole, goes by once (``archive_spool``), and its members are then in files that have no names.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Final

import msgspec

from fastoci import files
from fastoci._core import Buffer
from fastoci.errors import DigestMismatchError, EndNotFoundError, FormatError, SizeMismatchError, StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import BufferSource
from fastoci.layouts.archive_members import Headers, Member, Members
from fastoci.limits import Limits
from fastoci.stream.verify import Meter, hash_buffers
from fastoci.threads import Threads, check

_HEAD: Final = 4  # bytes that tell a compression


class Archive:
    """The members of an archive and their bytes, verified by whoever has a digest for them.

    Args:
        threads: stay the caller's, as do the files that members are in.
        buffers: for what is hashed here.
    """

    def __init__(self, members: Members, threads: Threads, buffers: BufferSource) -> None:
        self.name = members.archive
        self.members = members
        self._threads = threads
        self._buffers = buffers

    async def read(self, member: Member, limit: int) -> bytes:
        """All bytes of a document.

        Raises:
            FormatError: there are more than ``limit``.
            StoreError: the disk refused.
        """
        if member.size > limit:
            raise FormatError(f"{self.name}: {member.name!r} has {member.size} bytes, more than {limit}")
        return await self._threads.run(partial(self._pread, member, member.size))

    async def head(self, member: Member) -> bytes:
        """The first bytes of a layer, by which ``stream.inflate.sniff`` knows how it is compressed.

        Raises:
            StoreError: the disk refused.
        """
        return await self._threads.run(partial(self._pread, member, min(member.size, _HEAD)))

    async def hashed(self, member: Member) -> tuple[Member, Digest]:
        """A member and its digest: one that did not pass by is read, once.

        Raises:
            StoreError: the disk refused.
        """
        if member.digest is not None:
            return member, member.digest
        meter, buffer = Meter(), await self._buffers.take()
        try:
            while meter.offset < member.size:
                await self._threads.run(partial(self._hash_some, member, meter, buffer))
        finally:
            buffer.release()
        digest = meter.proof().digest
        found = msgspec.structs.replace(member, digest=digest, hash_state=meter.state())
        self.members.add(found)
        return found, digest

    async def fetch(self, member: Member, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield a member's bytes from ``offset`` on, as ``BlobSource.fetch``.

        Raises:
            StoreError: the disk refused.
        """
        while offset < member.size:
            buffer = await buffers.take()
            try:
                await self._threads.run(partial(self._fill, member, offset, buffer))
            except BaseException:
                buffer.release()
                raise
            offset += len(buffer)
            yield buffer

    def _pread(self, member: Member, size: int) -> bytes:
        with files.translated("read", self.name):
            data = os.pread(member.fd, size, member.offset) if size else b""
        if len(data) != size:
            raise self._ended(member)
        return data

    def _hash_some(self, member: Member, meter: Meter, buffer: Buffer) -> None:
        check()
        buffer.clear()
        self._fill(member, meter.offset, buffer)
        hash_buffers([(meter, buffer)])

    def _fill(self, member: Member, offset: int, buffer: Buffer) -> None:
        with buffer.reserve(member.size - offset) as view, files.translated("read", self.name):
            count = os.preadv(member.fd, [view], member.offset + offset)
        if not count:
            raise self._ended(member)
        buffer.advance(count)

    def _ended(self, member: Member) -> StoreError:
        return StoreError(f"{self.name} became shorter: {member.name!r} is not there any more", path=self.name)


class ArchiveBlobs:
    """The blobs and documents of an archive by their digests: ``BlobSource``.

    They are where a layout has them, unless ``blobs`` has another member, or bytes, for them.
    """

    def __init__(self, archive: Archive) -> None:
        self.name = archive.name
        self.blobs: dict[Digest, Member | bytes] = {}
        self._archive = archive

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield a blob's bytes: ``BlobSource.fetch``.

        Raises:
            EndNotFoundError: no image of the archive has such a blob. SizeMismatchError: it has another size.
            StoreError: the disk refused.
        """
        found = self._find(blob)
        if isinstance(found, Member):
            async with aclosing(self._archive.fetch(found, offset, buffers)) as given:
                async for buffer in given:
                    yield buffer
            return
        while offset < len(found):
            buffer = await buffers.take()
            offset += buffer.append(found, offset)
            yield buffer

    def spooled(self, blob: Descriptor) -> tuple[int, bytes] | None:
        """The file that has just this blob: ``SpoolingSource.spooled``."""
        found = self._find(blob)
        if isinstance(found, bytes) or not found.alone or found.digest != blob.digest:
            return None
        return found.fd, found.hash_state

    async def document(self, descriptor: Descriptor, limit: int) -> bytes:
        """The bytes of a manifest or index, verified.

        Raises:
            EndNotFoundError, SizeMismatchError, StoreError: as ``fetch``.
            FormatError: there are more than ``limit``. DigestMismatchError: they are others.
        """
        found = self._find(descriptor)
        if isinstance(found, bytes):
            return found
        data = await self._archive.read(found, limit)
        actual = Digest.of(data, descriptor.digest.algorithm)
        if actual != descriptor.digest:
            raise mismatch(self.name, found, descriptor.digest, str(actual))
        return data

    def _find(self, blob: Descriptor) -> Member | bytes:
        found = self.blobs.get(blob.digest) or self._archive.members.files.get(path_of(blob.digest))
        if found is None or (isinstance(found, Member) and found.link is not None):
            raise EndNotFoundError(f"{self.name} has no blob {blob.digest}", path=self.name, subject=str(blob.digest))
        size = found.size if isinstance(found, Member) else len(found)
        if size != blob.size:
            raise SizeMismatchError(
                f"{self.name}: {size} bytes are there of {blob.digest}, and {blob.size} are promised",
                subject=str(blob.digest),
                expected=blob.size,
                actual=size,
            )
        return found


def mismatch(archive: str, member: Member, expected: Digest | str, actual: str) -> DigestMismatchError:
    """A member that is not what its name, or another, says."""
    return DigestMismatchError(
        f"{archive}: the {member.size} bytes of {member.name!r} are {actual}",
        subject=str(expected),
        expected=str(expected),
        actual=actual,
    )


def path_of(digest: Digest) -> str:
    """Where a layout has a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def index_members(name: str, fd: int, limits: Limits) -> Members:
    """On a thread: find the members of a file by their headers; bodies are not read.

    Args:
        name: for messages. fd: of the file, which members will be read from.
    Raises:
        FormatError, UnsupportedError: it is no tar, or one that is refused.
        StoreError: the disk refused.
    """
    members = Members(name, limits)
    headers = Headers(members)
    with files.translated("read", name):
        size = os.fstat(fd).st_size
        while headers.wanted:
            check()
            data = os.pread(fd, headers.wanted, headers.position)
            if not data:
                break
            if (found := headers.feed(data)) is None:
                continue
            label, entry, body = found
            if headers.position > size:
                raise FormatError(f"{name} ends after {size} bytes, within the member {label!r}")
            if label is not None:
                link = members.target(entry, label)
                members.add(Member(label, 0 if link else entry.size, fd, body, link))
        headers.end()
    return members
