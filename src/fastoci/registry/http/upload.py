"""A request's body that is sent in pieces, made anew each time that the request is sent. Knows no registry.

While pieces go out, the server may be silent: what counts is the time since it took the last one. The time in which the
next one is made, or waits for the bandwidth, is not the server's.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter

from fastoci.registry.http.pace import Pace

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
    """One body on its way; ``done`` when all of it has been taken.

    ``bandwidth``: what it shares with others that are sent; None where nothing limits them.
    """

    _autoclose = True  # nothing is open

    def __init__(self, upload: Upload, bandwidth: Pace | None) -> None:
        super().__init__(None)
        self.done = False
        self._upload = upload
        self._bandwidth = bandwidth
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
            with _lent(piece):
                await self._send(piece, writer)
        self.done = True

    async def _next(self, pieces: AsyncIterator[Piece]) -> Piece | None:
        with self._ours():  # the piece before has been taken
            return await anext(pieces, None)

    async def _send(self, piece: Piece, writer: AbstractStreamWriter) -> None:
        if self._bandwidth is None:
            await writer.write(piece)
            return
        for start in range(0, len(piece), self._bandwidth.piece):
            with _lent(piece[start : start + self._bandwidth.piece]) as part:
                with self._ours():
                    await self._bandwidth.use(len(part))
                await writer.write(part)

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """Time that is not the server's."""
        self._making = True
        try:
            yield
        finally:
            self._making = False
            self._last = time.monotonic()

    def idle_s(self) -> float:
        """Seconds for which the server has taken nothing of what there was."""
        return 0.0 if self._making else time.monotonic() - self._last


@contextmanager
def _lent(piece: Piece) -> Iterator[Piece]:
    try:
        yield piece
    finally:
        if isinstance(piece, memoryview):  # an error's traceback, too, may hold it for longer than it is ours
            with suppress(BufferError):  # the connection has it yet, and lets go of it itself
                piece.release()
