"""What sinks ask of an engine, without one: threads and buffers of their own for each blob."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

from fastoci import _core
from fastoci._core import Buffer
from fastoci.errors import IntegrityError
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import BlobSource, HashPoint
from fastoci.jobs.rehash import find_corrupt
from fastoci.layouts.blob_files import FindCorrupt
from fastoci.limits import Limits
from fastoci.stream.sink import Sink
from fastoci.stream.verify import Verified
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.streaming import Streams
from fastoci.transfer.workers import WorkerPool


class OwnStreams:
    """``Streaming`` that opens an engine's parts for each blob."""

    async def into(self, blob: Descriptor, source: BlobSource, sink: Sink) -> Verified:
        async with streams() as own:
            return await own.into(blob, source, sink)

    async def verified(
        self, blob: Descriptor, source: BlobSource, *, points: list[HashPoint] | None = None
    ) -> AsyncGenerator[Buffer, None]:
        async with streams() as own, aclosing(own.verified(blob, source, points=points)) as buffers:
            async for buffer in buffers:
                yield buffer


@asynccontextmanager
async def streams() -> AsyncIterator[Streams]:
    """``Streaming`` over one thread and 8 MiB, which are all given back at the end."""
    workers, pool = WorkerPool(1), _core.Pool(8 << 20, poison=True)
    try:
        yield Streams(workers, Buffers(pool), Limits(), lambda event: None)
    finally:
        workers.close()
        assert pool.in_use == 0


async def run_hashing(work: Callable[[FindCorrupt, Callable[[], None]], None]) -> None:
    """On a thread, with a buffer."""

    def find(files: Sequence[tuple[Descriptor, int]]) -> list[IntegrityError]:
        buffer = _core.Pool(1 << 20).take()
        assert buffer is not None
        try:
            return find_corrupt(files, [buffer], threading.Event())
        finally:
            buffer.release()

    await asyncio.to_thread(work, find, lambda: None)
