"""The stream that progress is written to. Knows no events."""

from __future__ import annotations

import contextlib
import io
from typing import TextIO


class BestEffortStream(io.TextIOBase):
    """A stream that may have no reader: what cannot be written is dropped, and the job goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        """Write and flush."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
        return len(text)

    def fileno(self) -> int:
        """The descriptor behind it."""
        return self._stream.fileno()

    def line(self, text: str) -> None:
        """Write one line."""
        self.write(f"{text}\n")
