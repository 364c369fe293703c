"""An archive of images that goes by once: a pipe, or a file that is compressed as a whole.

What its members are for is known when its documents have come, which are often the last: so each is hashed while it
passes, and kept in a file without a name, on the store's disk. A large one has its own, which becomes the blob of a
store without a copy; small ones, and those beyond so many, share one. The next piece is read while the last one is
hashed and written. When the process ends, however it ends, nothing of it is left. Spec: docs/archives.md.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from fastoci import files
from fastoci._core import Buffer
from fastoci._extract import TarEntry
from fastoci.aio import wait_to_end
from fastoci.errors import FormatError
from fastoci.interfaces import BufferSource
from fastoci.layouts.archive_members import Headers, Member, Members
from fastoci.layouts.byte_stream import ByteStream
from fastoci.limits import Limits
from fastoci.stream.verify import Meter, hash_buffers
from fastoci.threads import Threads

MakeFile = Callable[[], Awaitable[int]]  # an unnamed file on the store's disk, which the caller closes

_LARGE: Final = 1 << 20  # bytes of a member that has a file of its own
_FILES: Final = 128  # of these
_PADDING: Final = 64 << 20  # bytes behind the end of an archive: the records of tape drives have some


class Spool:
    """The pass over one archive.

    Args:
        stream: the bytes of the archive.
        make_file: makes the files; they go to ``owned`` and are the caller's, whatever happens.
    """

    def __init__(
        self, stream: ByteStream, make_file: MakeFile, threads: Threads, buffers: BufferSource, owned: list[int]
    ) -> None:
        self._owned = owned
        self._own = 0  # files of large members
        self._stream = stream
        self._make_file = make_file
        self._threads = threads
        self._buffers = buffers
        self._shared = -1  # the file of small members
        self._end = 0  # and where it ends

    async def run(self, name: str, limits: Limits) -> Members:
        """Take all of the archive, to its last byte: whoever writes to the pipe is not cut off.

        Args:
            name: of the archive, in messages.
        Raises:
            FormatError, UnsupportedError: it is no tar, or one that is refused, or is damaged.
            StoreError: the disk refused.
        """
        members = Members(name, limits)
        headers = Headers(members)
        block = await self._buffers.take()
        try:
            while headers.wanted:
                block.clear()
                if not await self._read(block, headers.wanted):
                    break
                if found := headers.feed(bytes(block)):
                    await self._keep(members, *found[:2])
            headers.end()
            await self._drain(name, block)
        finally:
            block.release()
        return members

    async def _drain(self, name: str, block: Buffer) -> None:
        """Take what pads the archive: whoever writes it comes to an end.

        Raises:
            FormatError: it goes on, perhaps for ever.
        """
        left = _PADDING
        while count := await self._read(block, block.room):
            block.clear()
            left -= count
            if left < 0:
                raise FormatError(f"{name} goes on behind the end of the archive, for more than {_PADDING} bytes")

    async def _keep(self, members: Members, label: str | None, entry: TarEntry) -> None:
        """Keep what follows the header of a member."""
        if label is None:
            return
        link = members.target(entry, label)
        fd, offset = await self._place(0 if link else entry.size)
        meter = Meter()
        if link is None and await self._copy(entry.size, fd, offset, meter) != entry.size:
            raise FormatError(f"{members.archive} ends within the member {label!r}, after {meter.offset} of its bytes")
        digest = meter.proof().digest
        members.add(Member(label, meter.offset, fd, offset, link, digest, meter.state(), fd != self._shared))

    async def _place(self, size: int) -> tuple[int, int]:
        """A file for so many bytes, and where in it they begin."""
        if size >= _LARGE and self._own < _FILES:
            self._own += 1
            self._owned.append(fd := await self._make_file())
            return fd, 0
        if self._shared < 0:
            self._owned.append(fd := await self._make_file())
            self._shared = fd
        offset, self._end = self._end, self._end + size
        return self._shared, offset

    async def _copy(self, size: int, fd: int, offset: int, meter: Meter) -> int:
        """Hash and write the next ``size`` bytes, or as many as there are: how many."""
        read = 0
        kept: asyncio.Task[None] | None = None
        try:
            while read < size:
                buffer = await self._buffers.take()
                try:
                    count = await self._read(buffer, size - read)
                    if kept is not None:
                        await kept
                except BaseException:
                    buffer.release()
                    raise
                kept = asyncio.create_task(self._put(buffer, fd, offset, meter))
                read += count
                if not count:
                    break
            if kept is not None:
                await kept
        finally:
            if kept is not None:
                await wait_to_end(asyncio.wait([kept]))
                if not kept.cancelled():
                    kept.exception()  # seen
        return read

    async def _put(self, buffer: Buffer, fd: int, offset: int, meter: Meter) -> None:
        try:
            await self._threads.run(partial(_hash_and_write, buffer, fd, offset, meter))
        finally:
            buffer.release()

    async def _read(self, buffer: Buffer, size: int) -> int:
        """Append the next ``size`` bytes, as far as there is room for them and the archive has them."""
        before = len(buffer)
        end = before + min(size, buffer.room)
        while len(buffer) < end and not self._stream.ended:
            await self._threads.run(partial(self._stream.read, buffer, end - len(buffer)))
            if self._stream.starved:
                await self._stream.readable()
        return len(buffer) - before


def _hash_and_write(buffer: Buffer, fd: int, offset: int, meter: Meter) -> None:
    offset += meter.offset
    hash_buffers([(meter, buffer)])
    if code := buffer.pwrite(fd, offset):
        cause = OSError(-code, os.strerror(-code))
        raise files.failure(cause, "write", os.readlink(f"/proc/self/fd/{fd}")) from cause
