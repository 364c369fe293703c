"""The bytes of a file that is open, as a source yields them."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial

from fastoci._core import Buffer
from fastoci.errors import StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import BufferSource


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
