"""Raw deflate data through python-isal's own API, for a machine where its symbols cannot be bound.

Holds the GIL's side of one gzip member. Knows no framing, which is csrc's for both tiers; no file and no limit but the
size that it is given. Spec: RFC 1951.
"""

from __future__ import annotations

from isal import isal_zlib


class Deflate:
    """A ``_inflate.Deflate``: what a call does not make is not held, but for ISA-L's own state of 90 KB."""

    def __init__(self) -> None:
        self.crc = 0
        self.ended = False
        self._stream = isal_zlib.decompressobj(wbits=-15)

    def run(self, source: bytes, size: int) -> tuple[bytes, int]:
        """Decompress at most ``size`` bytes.

        Raises:
            ValueError: the data is damaged.
        """
        try:
            made = self._stream.decompress(source, size)
        except isal_zlib.error as error:  # type: ignore[misc]  # its stub calls the class an instance
            raise ValueError("the deflate data is damaged") from error
        self.crc = isal_zlib.crc32(made, self.crc)
        self.ended = self._stream.eof
        left = self._stream.unused_data if self.ended else self._stream.unconsumed_tail
        return made, len(source) - len(left)  # negative when ISA-L had read more of them ahead, in an earlier call
