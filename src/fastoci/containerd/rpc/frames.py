"""Where frames of HTTP/2 begin: how many come, and whether one is longer than allowed, before it is all there.

h2 keeps the bytes of a frame until it is complete, and asks for its length then: 16 MiB a connection, for a few bytes
of a peer that lies, or of one that speaks HTTP/1.

Spec: RFC 9113, 4.1 "Frame Format", 4.2 "Frame Size".
"""

from __future__ import annotations

from typing import Final

_HEAD: Final = 9  # bytes before the payload
_LONGEST: Final = 16384  # bytes of a payload, unless settings say otherwise: ours do not


class FrameCounter:
    """Counts frames in the bytes of a connection. ``skip`` bytes come before the first one."""

    def __init__(self, skip: int) -> None:
        self._skip = skip
        self._head = b""

    def feed(self, data: bytes) -> int:
        """Take the next bytes; how many frames begin in them, a frame by the end of its head.

        Raises:
            ValueError: a frame is too long.
        """
        found, at, end = 0, self._skip, len(data)
        while at < end:
            head = self._head + data[at : at + _HEAD - len(self._head)]
            at += len(head) - len(self._head)
            if len(head) < _HEAD:
                self._head = head
                break
            size = head[0] << 16 | head[1] << 8 | head[2]
            if size > _LONGEST:
                raise ValueError(f"a frame of {size} bytes")
            found, at, self._head = found + 1, at + size, b""
        self._skip = max(0, at - end)
        return found
