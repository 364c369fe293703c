"""The way from a path to an archive that is read: a file whose members are found, or what goes by once.

A regular file that is a tar is read where it is. All else is spooled: pipes (``/dev/stdin``, ``/dev/fd/3``, a FIFO),
and archives that are compressed as a whole.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Final

from fastoci import files
from fastoci._core import Buffer
from fastoci.errors import StoreError
from fastoci.interfaces import BufferSource
from fastoci.layouts.archive import Archive, index_members
from fastoci.layouts.archive_spool import MakeFile, Spool
from fastoci.layouts.archive_target import given
from fastoci.layouts.byte_stream import ByteStream, compression_of
from fastoci.layouts.open_file import opening
from fastoci.limits import Limits
from fastoci.threads import Threads

_HEAD: Final = 4


@asynccontextmanager
async def open_archive(
    path: Path, make_file: MakeFile, buffers: BufferSource, limits: Limits
) -> AsyncIterator[Archive]:
    """Open an archive, and take all of it when it goes by once.

    Args:
        path: absolute.
        make_file: an unnamed file on the store's disk.
    Raises:
        FormatError, UnsupportedError: it is no tar, or one that is refused, or is damaged.
        EndNotFoundError: it is not there. StoreError: it cannot be read, or the store's disk refused.
    """
    threads = Threads()
    owned: list[int] = []
    try:
        fd, cancelled = await threads.run_to_end(partial(_open, path))
        owned.append(fd)
        if cancelled:
            raise asyncio.CancelledError
        if await threads.run(partial(_is_tar_file, str(path), fd)):
            members = await threads.run(partial(index_members, str(path), fd, limits))
        else:
            with ExitStack() as held:
                source, out = await _taken(buffers, held), await _taken(buffers, held)
                stream = held.enter_context(closing(ByteStream(str(path), fd, source, out)))
                spool = Spool(stream, make_file, threads, buffers, owned)
                members = await spool.run(str(path), limits)
        yield Archive(members, threads, buffers)
    finally:
        threads.close()
        for each in owned:
            files.close(each)


async def _taken(buffers: BufferSource, held: ExitStack) -> Buffer:
    buffer = await buffers.take()
    held.callback(buffer.release)
    return buffer


def _open(path: Path) -> int:
    """Open a file without waiting: a FIFO may have no writer for ever."""
    descriptor = given(path)
    with opening(str(path)):
        if descriptor is not None:
            return os.dup(descriptor)
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _is_tar_file(path: str, fd: int) -> bool:
    with files.translated("read", path):
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise StoreError(f"{path} is a directory: oci: and dir: read those", path=path)
        return stat.S_ISREG(mode) and compression_of(path, os.pread(fd, _HEAD, 0)) == "none"
