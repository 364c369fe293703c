"""A tee on a blob that is being fetched: its buffers once more, for a reader that uses them while they arrive.

The flight feeds it and waits while it is full; it never fails the flight. A tee that the flight did not use, because
the blob was there, or was resumed, or belongs to another's flight, says so: then the blob is read from the store.
So does one whose bytes turned out wrong while the flight goes on with others: what was made of them is thrown away.
Knows no digests: whether the bytes are right is the flight's to say.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from fastoci._core import Buffer

_DEPTH = 2  # buffers that may wait: the flight and the reader alternate on one loop


class SpoiledError(Exception):
    """The bytes of a tee were not the blob's; the blob came from somewhere else, and is in the store."""


class Tee:
    """A queue of buffers from one flight to one reader. Used on one event loop."""

    def __init__(self) -> None:
        self._buffers: deque[Buffer] = deque()
        self._changed = asyncio.Event()
        self.closed = False
        self.used = False  # by the flight
        self.spoiled = False  # the bytes that came this way were wrong, and the flight goes on with others
        self._ended = False

    async def feed(self, buffer: Buffer) -> None:
        """Of the flight: hand over a buffer with its reference; waits while the reader is behind."""
        self.used = True
        if self.closed:
            buffer.release()
            return
        self._buffers.append(buffer)
        self._changed.set()
        while len(self._buffers) >= _DEPTH and not self.closed:
            await self._change()

    def end(self) -> None:
        """Of the flight: nothing more comes, for whatever reason."""
        self._ended = True
        self._changed.set()

    def spoil(self) -> None:
        """Of the flight: what was fed was wrong; the blob comes from somewhere else, and not this way."""
        self.spoiled = True
        self.end()

    async def begins(self) -> bool:
        """Of the reader: whether the blob comes this way; False when it must be read from the store."""
        while not (self.used or self._ended):
            await self._change()
        return self.used and not self.spoiled

    async def buffers(self) -> AsyncGenerator[Buffer, None]:
        """Of the reader: all buffers, each with its reference, until the flight ended: well or not, its task says."""
        while True:
            while self._buffers and not self.spoiled:
                buffer = self._buffers.popleft()
                self._changed.set()
                yield buffer
            if self._ended:
                return
            await self._change()

    def close(self) -> None:
        """Of the reader: want no more. Idempotent."""
        self.closed = True
        while self._buffers:
            self._buffers.popleft().release()
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
