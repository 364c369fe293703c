"""A request's body that is sent in pieces, made anew each time that the request is sent. Knows no registry.

While pieces go out, the server may be silent: what counts is the time since it took the last one.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import msgspec


class Upload(msgspec.Struct, frozen=True):
    """``size`` bytes, in the pieces that ``begin`` gives each time from the first one on."""

    size: int
    begin: Callable[[], AsyncIterator[bytes]]

    @classmethod
    def of(cls, data: bytes) -> Upload:
        """A body that is in memory."""

        async def whole() -> AsyncIterator[bytes]:
            yield data

        return cls(len(data), whole)


class Sending:
    """One body on its way; ``done`` when all of it has been taken."""

    def __init__(self, upload: Upload) -> None:
        self.done = False
        self._pieces = upload.begin()
        self._last = time.monotonic()

    def __aiter__(self) -> Sending:
        return self

    async def __anext__(self) -> bytes:
        self._last = time.monotonic()  # the piece before has been taken
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            self.done = True
            raise

    def idle_s(self) -> float:
        """Seconds since a piece was taken."""
        return time.monotonic() - self._last
