"""Undo the compression of a layer: gzip by ISA-L, zstd by libzstd, a plain tar as it is.

What the bytes are is read from the bytes: media types are sometimes wrong. The decoders are called through the symbols
that the wheels of ``isal`` and ``zstandard`` export, or through the system's libraries, without the GIL. Where no such
symbols are found or they fail their test, gzip goes through python-isal's own API, in bounded pieces; zstd is refused.
Spec: image-spec v1.1 layer.md (``+gzip``, ``+zstd``); RFC 1952, RFC 8878: all members, all frames, the end demanded.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Final

from fastoci import _inflate
from fastoci._core import Buffer
from fastoci.errors import FormatError, UnsupportedError
from fastoci.image.mediatype import Compression

_LIBRARIES = {"gzip": ("isal.igzip_lib", "libisal.so.2"), "zstd": ("zstandard._cffi", "libzstd.so.1")}
_BOUND = {"gzip": "isa-l", "zstd": "libzstd"}
_REFUSED = {b"BZh": "bzip2", b"\xfd7z": "xz", b"PK\x03": "zip"}


def bind_decoders() -> dict[str, str]:
    """Find the decoders of both formats: what decodes each, "isa-l", "python-isal", "libzstd" or "none"."""
    return {
        name: tier if _bind(name) else "python-isal" if _deflate_of(name) else "none" for name, tier in _BOUND.items()
    }


def _bind(compression: str) -> bool:
    if _inflate.bound(compression):
        return True
    module, library = _LIBRARIES[compression]
    spec = importlib.util.find_spec(module)
    return any(_inflate.bind(compression, path) for path in (spec and spec.origin, library) if path)


def _deflate_of(compression: str) -> Callable[[], _inflate.Deflate] | None:
    """The stand-in for a decoder that cannot be bound."""
    if compression != "gzip" or importlib.util.find_spec("isal") is None:
        return None
    from fastoci.stream.deflate import Deflate  # imported where it is needed: hardly ever

    return Deflate


HEAD: Final = 4  # bytes by which a compression is known


def sniff(head: bytes) -> Compression:
    """What a layer is compressed with, from its first four bytes.

    Raises:
        UnsupportedError: bzip2, xz or zip, which no layer may be.
    """
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:4] == b"\x28\xb5\x2f\xfd" or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return "zstd"  # a frame, or a skippable frame before the first
    if name := _REFUSED.get(head[:3]):
        raise UnsupportedError(f"the layer is a {name} file; layers are tar, gzip or zstd")
    return "none"


class Inflate:
    """Decompresses one stream: ``take`` a buffer, ``fill`` others from it until it is used up, ``finish``, ``close``.

    Belongs to one thread at a time; owns no buffer.

    A zstd frame may demand more than ``window``. Then ``fill`` returns early, ``demanded`` is that many bytes, and
    whoever has the memory calls ``allow(demanded)`` and fills on; else the next ``fill`` raises. The memory is that of
    the decoder (and ``_inflate.WINDOW_OVERHEAD``) until ``close``, so it is set aside from the pool for that long.

    Args:
        window: bytes that a zstd frame may demand without being asked for.
        deflate: decodes gzip's content in place of ISA-L's symbols, also where these are bound.
    """

    def __init__(self, *, window: int, deflate: Callable[[], _inflate.Deflate] | None = None) -> None:
        self._window = window
        self._deflate = deflate
        self._stream: _inflate.Inflate | None = None
        self._compression: Compression | None = None
        self._source: Buffer | None = None
        self._start = 0

    @property
    def demanded(self) -> int:
        """Bytes of window that the next zstd frame demands, when that is more than is allowed; else 0."""
        return self._stream.demanded if self._stream is not None else 0

    def allow(self, window: int) -> None:
        """Allow frames a window of ``window`` bytes from now on."""
        assert self._stream is not None
        self._window = max(window, self._window)
        self._stream.allow(window)

    def take(self, source: Buffer) -> bool:
        """Go on with ``source``, until ``fill`` says that it is used up; False for a plain tar, to be used as it is.

        The first buffer holds at least four bytes, unless the stream is shorter.

        Raises:
            UnsupportedError: a compression that no layer may have, or no decoder on this machine.
        """
        if self._compression is None:
            self._begin(bytes(memoryview(source)[:4]))
        self._source, self._start = source, 0
        return self._stream is not None

    def fill(self, out: Buffer) -> bool:
        """Append to ``out`` until it is full, the source is used up (then False), or a frame demands a larger window.

        Raises:
            FormatError: the compressed bytes are damaged, or a frame demands a window that was not allowed; the message
                has their offset.
        """
        assert self._stream is not None
        assert self._source is not None
        while out.room:
            before = len(out)
            consumed = self._stream.run(self._source, self._start, out)
            if consumed < 0:
                raise self._error(self._stream)
            self._start += consumed
            if self._stream.demanded:
                return True
            if self._start == len(self._source) and len(out) - before < _inflate.WINDOW_SIZE and out.room:
                self._source = None
                return False
        return True

    def finish(self) -> None:
        """Demand that the compressed stream ends here. One of no bytes is a tar of no entries, as docker has written.

        Raises:
            FormatError: it is cut.
        """
        if self._stream is not None and self._stream.finish():
            raise self._error(self._stream)

    def close(self) -> None:
        """Free the decoder's memory, in whatever state it is. Idempotent."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _begin(self, head: bytes) -> None:
        self._compression = sniff(head)
        if self._compression == "none":
            return
        deflate = self._deflate if self._compression == "gzip" else None
        if deflate is None and not _bind(self._compression):
            deflate = _deflate_of(self._compression)
            if deflate is None:
                raise UnsupportedError(f"no {self._compression} decoder on this machine: reinstall isal and zstandard")
        self._stream = _inflate.Inflate(self._compression, window=self._window, deflate=deflate)

    def _error(self, stream: _inflate.Inflate) -> FormatError:
        reason = _inflate.INFLATE_CODES[stream.code]
        if stream.demanded:
            reason = f"a zstd frame demands a window of {stream.demanded} bytes, {self._window} are allowed"
        return FormatError(f"{reason} (at byte {stream.consumed} of the compressed layer)")
