"""The native inflater: gzip and zstd streams, from buffer to buffer. It returns codes and raises nothing typed."""

from collections.abc import Callable
from typing import Protocol, Self, final, type_check_only

from fastoci._core import Buffer

WINDOW_SIZE: int  # bytes that one Inflate.run appends at most
WINDOW_OVERHEAD: int  # bytes that libzstd takes at most beside the windows of its frames

@type_check_only
class Deflate(Protocol):
    """A decoder of one member's raw deflate data, written in Python.

    ``run`` raises ValueError when the data is damaged; anything else that it raises comes out of ``Inflate.run``.
    """

    crc: int  # CRC-32 of what was made
    ended: bool  # the deflate data is over

    def run(self, source: bytes, room: int, /) -> tuple[bytes, int]:
        """At most ``room`` bytes of content, and how many of the source were consumed; neither: it needs more.

        Negative: so many more than it took are handed back, of the last 16 that earlier calls consumed.
        """

@final
class Inflate:
    """One gzip or zstd stream, all members or frames, to its demanded end. One thread at a time.

    ``format`` is "gzip" or "zstd", bound before. ``run`` consumes from ``source[start:]`` and appends to ``out`` at
    most ``WINDOW_SIZE``; it returns the bytes consumed, or -1 with ``code`` set. The source is used up when all of it
    is consumed and less than ``WINDOW_SIZE`` (and than the room) was made. ``finish`` returns 0 when the input ended
    where a member ends, else a code. ``window``: bytes of a window that a zstd frame may demand.

    When ``demanded`` is not 0 after a ``run``, a zstd frame waits for ``allow`` of as much; without it the next
    ``run`` fails. Of the window, no more than what is allowed is ever allocated, beside ``WINDOW_OVERHEAD``; it is
    freed by ``close``.

    ``deflate`` makes a decoder for each gzip member, in place of the one that is bound; it is called with the GIL.
    """

    def __new__(cls, format: str, /, *, window: int, deflate: Callable[[], Deflate] | None = None) -> Self: ...
    def run(self, source: Buffer, start: int, out: Buffer, /) -> int: ...
    @property
    def demanded(self) -> int:
        """Bytes of window that the next frame demands, when that is more than is allowed; else 0."""
    def allow(self, window: int, /) -> None:
        """Let frames demand ``window`` bytes from now on; it never shrinks, and 2 GiB are the most."""
    def finish(self) -> int: ...
    def close(self) -> None:
        """Free the decoder; idempotent. Facts may still be read, but ``demanded``."""
    @property
    def code(self) -> int:
        """0, or one of ``INFLATE_*``."""
    @property
    def consumed(self) -> int:
        """Bytes of input used so far: where an error is."""
    @property
    def produced(self) -> int: ...

def bind(format: str, path: str, /) -> bool:
    """Look the decoder of "gzip" or "zstd" up in the shared object at ``path`` and try it; whether it can be used."""

def bound(format: str, /) -> bool:
    """Whether that decoder can be used."""

INFLATE_CODES: dict[int, str]  # code -> one sentence
