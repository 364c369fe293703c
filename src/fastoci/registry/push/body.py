"""The bytes of one blob as an upload sends them: from any offset on, again when they have to be, verified on the way.

What was sent and did not arrive is had from its source again, not kept: hashing goes on at the last point before it.
The last piece comes when all bytes are proven, so that no registry gets the whole of a blob that is not its digest's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress

from fastoci._core import Buffer
from fastoci.aio import wait_to_end
from fastoci.errors import IntegrityError
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import BlobSource, HashPoint, Streaming
from fastoci.registry.http.upload import Upload


class Body:
    """One blob's bytes. Belongs to one task; ``close`` it.

    ``error`` is why they ended, when their source is to blame. ``points``: how far they are hashed, in order;
    ``on_points`` is called when there are more.
    """

    on_points: Callable[[], Awaitable[None]] | None = None

    def __init__(self, blob: Descriptor, source: BlobSource, streaming: Streaming) -> None:
        self.error: BaseException | None = None
        self.points: list[HashPoint] = []
        self._blob = blob
        self._source = source
        self._streaming = streaming
        self._given: Sequence[HashPoint] = ()
        self._stream: AsyncGenerator[Buffer, None] | None = None
        self._buffer: Buffer | None = None
        self._start = 0  # of the buffer, in the blob
        self._told = 0  # points of which ``on_points`` heard
        self._reading: asyncio.Task[memoryview] | None = None

    def continue_from(self, points: Sequence[HashPoint]) -> None:
        """An earlier process came so far."""
        self.points, self._given = list(points), points

    def part(self, start: int, size: int) -> Upload:
        """The request that carries ``size`` of the bytes, from ``start`` on."""
        return Upload(size, lambda: _Part(self, start, size))

    async def read(self, at: int, most: int) -> memoryview:
        """Some bytes from an offset on, at most so many. A piece that is held holds the memory.

        Raises: as ``Streaming.verified``; ``error`` is it, too.
        """
        self._reading = asyncio.create_task(self._read(at, most))
        return await self._reading

    async def rest(self) -> None:
        """Let go of the source and the memory; ``read`` begins anew."""
        if self._reading is not None:
            self._reading.cancel()
            _, cancelled = await wait_to_end(asyncio.wait([self._reading]))
            if not self._reading.cancelled() and self._reading.exception() is None:
                with suppress(BufferError):  # the connection has it yet
                    self._reading.result().release()
            self._reading = None
            if cancelled:
                await self._close()
                raise asyncio.CancelledError
        await self._close()

    def forget(self) -> bool:
        """After an ``error``: whether it may be that of an earlier process, which counts no more from now on."""
        suspected = bool(self._given) and isinstance(self.error, (IntegrityError, ValueError))
        if suspected:
            self.error, self.points, self._given = None, [], ()
        return suspected

    async def _read(self, at: int, most: int) -> memoryview:
        try:
            while self._buffer is None or not self._start <= at < self._start + len(self._buffer):
                await self._advance(at)
        except Exception as error:
            self.error = error
            raise
        skipped = at - self._start
        return memoryview(self._buffer)[skipped : skipped + most]

    async def _advance(self, at: int) -> None:
        """Have the next buffer, or the one from which to come to an offset that is behind."""
        if self._stream is None or at < self._start:
            await self._close()
            while self.points and self.points[-1].offset > at:
                self.points.pop()
            self._start = self.points[-1].offset if self.points else 0
            self._stream = self._streaming.verified(self._blob, self._source, points=self.points)
        if self._buffer is not None:
            self._start += len(self._buffer)
            self._let_go()
        self._buffer = await anext(self._stream)
        if self.on_points is not None and len(self.points) > self._told:
            await self.on_points()
        self._told = len(self.points)

    def _let_go(self) -> None:
        if self._buffer is not None:
            self._buffer.release()
            self._buffer = None

    async def _close(self) -> None:
        self._let_go()
        if self._stream is not None:
            stream, self._stream = self._stream, None
            with suppress(Exception):  # of a source that is not read to its end
                await stream.aclose()


class _Part:
    """The pieces of one request."""

    def __init__(self, body: Body, start: int, size: int) -> None:
        self._body = body
        self._at = start
        self._end = start + size

    def __aiter__(self) -> _Part:
        return self

    async def __anext__(self) -> memoryview:
        if self._at >= self._end:
            raise StopAsyncIteration
        piece = await self._body.read(self._at, self._end - self._at)
        self._at += len(piece)
        return piece
