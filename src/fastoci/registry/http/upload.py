"""A request's body that is sent in pieces, made anew each time that the request is sent. Knows no registry.

While pieces go out, the server may be silent: what counts is the time since it took the last one. The time in which the
next one is made is not the server's.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter

Piece = bytes | memoryview  # of a buffer: it is released when it was sent


class Upload(msgspec.Struct, frozen=True):
    """``size`` bytes, in the pieces that ``begin`` gives each time from the first one on."""

    size: int
    begin: Callable[[], AsyncIterator[Piece]]

    @classmethod
    def of(cls, data: bytes) -> Upload:
        """A body that is in memory."""

        async def whole() -> AsyncIterator[bytes]:
            yield data

        return cls(len(data), whole)


class Sending(aiohttp.Payload):
    """One body on its way; ``done`` when all of it has been taken."""

    _autoclose = True  # nothing is open

    def __init__(self, upload: Upload) -> None:
        super().__init__(None)
        self.done = False
        self._upload = upload
        self._making = False
        self._last = time.monotonic()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """It is no text."""
        raise TypeError("a body that is sent in pieces")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send all pieces; aiohttp calls it."""
        self._consumed = True  # aiohttp sends nothing again of its own accord
        pieces = self._upload.begin()
        while (piece := await self._next(pieces)) is not None:
            try:
                await writer.write(piece)
            finally:
                if isinstance(piece, memoryview):  # an error's traceback, too, may hold it for longer than it is ours
                    with suppress(BufferError):  # the connection has it yet, and lets go of it itself
                        piece.release()
        self.done = True

    async def _next(self, pieces: AsyncIterator[Piece]) -> Piece | None:
        self._making = True  # the piece before has been taken
        try:
            return await anext(pieces, None)
        finally:
            self._making = False
            self._last = time.monotonic()

    def idle_s(self) -> float:
        """Seconds for which the server has taken nothing of what there was."""
        return 0.0 if self._making else time.monotonic() - self._last
