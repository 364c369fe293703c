"""Blobs on their way through: out of a source, hashed, into a sink or on to whoever sends them.

No whole blob is anywhere here: buffers of the budget go by, and what waits for its turn is bounded by the queue. Where
the budget has more than streams need, those that go on to somewhere else let buffers wait, to be hashed side by side.
Spec: docs/architecture.md, "One hasher".
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Final

from fastoci import files
from fastoci._core import BUFFER_SIZE, Buffer
from fastoci.errors import UnsupportedError
from fastoci.events import BlobProgress, Observer, Warned
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import BlobSource, FileSource, HashPoint
from fastoci.limits import Limits
from fastoci.stream.inflate import sniff
from fastoci.stream.sink import Sink
from fastoci.stream.verify import Verified, Verifier
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.file_pipeline import FilePipeline
from fastoci.transfer.pipeline import PushPipeline
from fastoci.transfer.scheduler import arriving
from fastoci.transfer.workers import WorkerPool

_APART: Final = 16 << 20  # bytes between two points
_HELD: Final = 3  # buffers of a stream while the next one comes: one is hashed, the others may wait to be


class Streams:
    """``Streaming`` of one engine."""

    def __init__(self, workers: WorkerPool, buffers: Buffers, limits: Limits, observer: Observer) -> None:
        self._workers = workers
        self._buffers = buffers
        self._depth = limits.buffer_queue
        self._observe = observer

    async def into(self, blob: Descriptor, source: BlobSource, sink: Sink) -> Verified:
        """Give a blob's bytes to a sink, hashed: ``Streaming.into``."""
        pipeline = self._pipeline(blob, sink, Verifier(blob.digest, blob.size), self._depth)
        fed = 0
        try:
            async with aclosing(arriving(source, blob, 0, self._buffers)) as buffers:
                async for buffer in buffers:
                    if not fed:
                        self._notice(blob, buffer)
                    fed += len(buffer)
                    await pipeline.feed(buffer)
            await pipeline.finish()
        except BaseException:
            await pipeline.abort()
            raise
        assert pipeline.proof is not None
        return pipeline.proof

    async def verified(
        self, blob: Descriptor, source: BlobSource, *, points: list[HashPoint] | None = None
    ) -> AsyncGenerator[Buffer, None]:
        """Yield a blob's bytes, hashed: ``Streaming.verified``."""
        start = points[-1] if points else HashPoint(0, b"")
        verifier = Verifier(blob.digest, blob.size, offset=start.offset, state=start.state)
        through, kept = _Through(verifier, points), deque[Buffer]()
        fed, taken = start.offset, 0
        async with self._feeding(blob, source, through, verifier) as (pipeline, given):
            with self._buffers.hold_ahead(_HELD) as held:
                try:
                    pipeline.let_wait(_HELD - 1 if held else 0)
                    async with aclosing(given) as buffers:
                        async for buffer in buffers:
                            kept.append(buffer.retain())
                            fed += len(buffer) or min(BUFFER_SIZE, blob.size - fed)
                            await pipeline.feed(buffer)
                            if not held:
                                await pipeline.used()
                            while taken < through.count and (len(kept) > 1 or fed < blob.size):
                                yield self._hashed(blob, kept, start.offset + taken)
                                taken += 1
                    await pipeline.finish()
                    while kept:
                        yield self._hashed(blob, kept, start.offset + taken)
                        taken += 1
                finally:
                    for buffer in kept:
                        buffer.release()
                    await pipeline.abort()

    @asynccontextmanager
    async def _feeding(
        self, blob: Descriptor, source: BlobSource, sink: Sink, verifier: Verifier
    ) -> AsyncIterator[tuple[PushPipeline, AsyncGenerator[Buffer, None]]]:
        """What hashes a blob, and the buffers to feed it: of a file empty ones."""
        if not isinstance(source, FileSource):
            given = arriving(source, blob, verifier.offset, self._buffers)
            yield self._pipeline(blob, sink, verifier, 1), given
            return
        fd = await source.open_file(blob)
        try:
            progressed = self._progressed(blob, verifier.offset)
            pipeline = FilePipeline(self._workers, sink, verifier, fd=fd, depth=1, progressed=progressed)
            yield pipeline, self._empty(blob.size - verifier.offset)
        finally:
            files.close(fd)

    async def _empty(self, size: int) -> AsyncGenerator[Buffer, None]:
        """As many buffers as bytes need."""
        for _ in range(0, size, BUFFER_SIZE):
            yield await self._buffers.take()

    def _hashed(self, blob: Descriptor, kept: deque[Buffer], number: int) -> Buffer:
        """The first of those that were kept, which may be the first of all."""
        buffer = kept.popleft()
        if not number:
            self._notice(blob, buffer)
        return buffer

    def _notice(self, blob: Descriptor, first: Buffer) -> None:
        """Say so when a layer is not what its media type says, by its first bytes."""
        if blob.media_type in mediatype.COMPRESSIONS:
            with suppress(UnsupportedError), memoryview(first) as view:
                if text := mediatype.lie_of(blob.media_type, sniff(bytes(view[:4]))):
                    self._observe(Warned("", f"layer {blob.digest} {text}"))

    def _pipeline(self, blob: Descriptor, sink: Sink, verifier: Verifier, depth: int) -> PushPipeline:
        progressed = self._progressed(blob, verifier.offset)
        return PushPipeline(self._workers, sink, verifier, depth=depth, progressed=progressed)

    def _progressed(self, blob: Descriptor, offset: int) -> Callable[[int], None]:
        def progressed(size: int) -> None:
            nonlocal offset
            offset += size
            self._observe(BlobProgress(str(blob.digest), offset))

        return progressed


class _Through:
    """``Sink`` that counts the buffers that were hashed: who made the pipeline has them, too.

    Args:
        points: where the states of the hash go, now and then.
    """

    def __init__(self, verifier: Verifier, points: list[HashPoint] | None) -> None:
        self.count = 0
        self._verifier = verifier
        self._points = points
        self._noted = verifier.offset

    def feed(self, buffer: Buffer) -> None:
        """One more, which has just been hashed."""
        self.count += 1
        offset = self._verifier.offset
        if self._points is not None and offset - self._noted >= _APART and (state := self._verifier.state()):
            self._noted = offset
            self._points.append(HashPoint(offset, state))

    def finish(self) -> None:
        """The last one was fed."""

    def abort(self) -> None:
        """Nothing is open."""
