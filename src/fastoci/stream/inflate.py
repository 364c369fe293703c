"""Undo the compression of a layer: gzip by ISA-L, zstd by libzstd, a plain tar as it is.

What the bytes are is read from the bytes: media types are sometimes wrong. The decoders are called through the symbols
that the wheels of ``isal`` and ``zstandard`` export, or through the system's libraries, without the GIL.
Spec: image-spec v1.1 layer.md (``+gzip``, ``+zstd``); RFC 1952, RFC 8878: all members, all frames, the end demanded.
"""

from __future__ import annotations

import importlib.util
from typing import Literal

from fastoci import _core
from fastoci._core import Span
from fastoci.errors import FormatError, UnsupportedError

Compression = Literal["gzip", "zstd", "none"]

_LIBRARIES = {"gzip": ("isal.igzip_lib", "libisal.so.2"), "zstd": ("zstandard._cffi", "libzstd.so.1")}
_REFUSED = {b"BZh": "bzip2", b"\xfd7z": "xz", b"PK\x03": "zip"}


def bind_decoders() -> dict[str, str]:
    """Find the decoders of both formats; which tier each has (``_core.info``)."""
    for compression in _LIBRARIES:
        _bind(compression)
    return _core.info()


def _bind(compression: str) -> bool:
    if _core.info()[compression] != "none":
        return True
    module, library = _LIBRARIES[compression]
    spec = importlib.util.find_spec(module)
    return any(_core.bind(compression, path) for path in (spec and spec.origin, library) if path)


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
    """Decompresses one stream: ``take`` a span, ``fill`` others from it until it is used up, ``finish``.

    Belongs to one thread at a time; owns no span.

    Args:
        history: bytes that a zstd frame may demand.
    """

    def __init__(self, *, history: int) -> None:
        self._history = history
        self._stream: _core.Inflate | None = None
        self._compression: Compression | None = None
        self._source: Span | None = None
        self._start = 0

    def take(self, source: Span) -> bool:
        """Go on with ``source``, until ``fill`` says that it is used up; False for a plain tar, to be used as it is.

        The first span holds at least four bytes, unless the stream is shorter.

        Raises:
            UnsupportedError: a compression that no layer may have, or no decoder on this machine.
        """
        if self._compression is None:
            self._begin(bytes(memoryview(source)[:4]))
        self._source, self._start = source, 0
        return self._stream is not None

    def fill(self, out: Span) -> bool:
        """Append to ``out`` until it is full, or the source is used up: then False.

        Raises:
            FormatError: the compressed bytes are damaged; the message has their offset.
        """
        assert self._stream is not None
        assert self._source is not None
        while out.room:
            before = len(out)
            consumed = self._stream.run(self._source, self._start, out)
            if consumed < 0:
                raise self._error(self._stream)
            self._start += consumed
            if self._start == len(self._source) and len(out) - before < _core.WINDOW_SIZE and out.room:
                self._source = None
                return False
        return True

    def finish(self) -> None:
        """Demand that the compressed stream ends here.

        Raises:
            FormatError: it is cut, or empty.
        """
        if self._compression is None:
            raise FormatError("the layer is empty: not even the end of a tar")
        if self._stream is not None and self._stream.finish():
            raise self._error(self._stream)

    def _begin(self, head: bytes) -> None:
        self._compression = sniff(head)
        if self._compression == "none":
            return
        if not _bind(self._compression):
            raise UnsupportedError(f"no {self._compression} decoder on this machine: reinstall isal and zstandard")
        self._stream = _core.Inflate(self._compression, window=self._history)

    def _error(self, stream: _core.Inflate) -> FormatError:
        return FormatError(f"{_core.INFLATE_CODES[stream.code]} (at byte {stream.consumed} of the compressed layer)")
