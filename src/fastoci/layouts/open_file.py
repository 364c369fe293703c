"""What is the user's and is read: opened, and the bytes of an open file as a source yields them."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

from fastoci import files
from fastoci._core import Buffer
from fastoci.errors import EndNotFoundError, StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import BufferSource


@contextmanager
def opening(path: str) -> Iterator[None]:
    """Give the disk's errors the name of a place that is opened.

    Raises:
        EndNotFoundError: nothing is there. StoreError: the disk refused.
    """
    try:
        with files.translated("read", path):
            yield
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise EndNotFoundError(f"{path} is not there", path=path) from error
        raise


async def buffers_of(
    fd: int,
    blob: Descriptor,
    offset: int,
    buffers: BufferSource,
    *,
    run: Callable[[Callable[[], int]], Awaitable[int]],
    path: str,
) -> AsyncGenerator[Buffer, None]:
    """Yield the blob's bytes from ``offset`` on, of a file that has as many as the blob.

    Args:
        run: runs a function on a thread.
        path: of the file, for messages.
    Raises:
        StoreError: the disk refused, or the file became shorter.
    """
    while offset < blob.size:
        buffer = await buffers.take()
        read: Callable[[], int] = partial(buffer.pread, fd, offset)
        try:
            count = await run(read)
            if count <= 0:
                what = os.strerror(-count) if count else f"it ends after {offset} of {blob.size} bytes"
                raise StoreError(f"cannot read {path}: {what}", path=path)
        except BaseException:
            buffer.release()
            raise
        offset += count
        yield buffer
