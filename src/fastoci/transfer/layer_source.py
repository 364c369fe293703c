"""The tar of a layer, inflated a buffer at a time on a thread: from a file, or from buffers as they arrive.

Reads and inflates only: digests, limits and files belong to others. Spec: image-spec v1.1 layer.md (media types).
"""

from __future__ import annotations

import errno
import os
from collections import deque
from contextlib import suppress

from fastoci._core import Buffer
from fastoci.errors import StoreError, UnpackError
from fastoci.stream.inflate import Inflate


class FileTar:
    """The tar of a layer's file. A ``BufferMaker``; owns ``fd`` and ``source`` until ``close``."""

    def __init__(self, fd: int, source: Buffer, inflate: Inflate) -> None:
        self.ended = False
        self.offset = 0  # compressed bytes read
        self._fd = fd
        self._source = source
        self._inflate = inflate
        self._left = False  # the source has bytes that are not inflated yet
        self._compressed = True

    @property
    def demanded(self) -> int:
        """Bytes of window that must be allowed before more is made; else 0."""
        return self._inflate.demanded

    def ready(self) -> bool:
        """There is more of the file."""
        return not self.ended and not self.demanded

    def hungry(self) -> bool:
        """Never: it reads for itself."""
        return False

    def make(self, out: Buffer) -> Buffer | None:
        """Fill ``out``; None at the very end, and when a larger window is demanded.

        Raises:
            FormatError, UnsupportedError: these are not compressed bytes, or damaged ones, or not all.
            UnpackError: it is not a file. StoreError: the disk refused to read it.
        """
        while out.room and not self.ended:
            if self._left:
                self._left = self._inflate.fill(out)
                if self.demanded:
                    return None
            elif not self._read(self._source if self._compressed else out):
                self._inflate.finish()
                self.ended = True
        return out if len(out) else None

    def allow(self, window: int) -> None:
        """Allow frames a window of so many bytes."""
        self._inflate.allow(window)

    def close(self) -> None:
        """Give back what it owns."""
        self._inflate.close()
        self._source.release()
        with suppress(OSError):  # it was only read
            os.close(self._fd)

    def _read(self, buffer: Buffer) -> bool:
        """The next bytes of the file; a plain tar goes straight to where it belongs, but for its first buffer."""
        if buffer is self._source:
            buffer.clear()
        count = buffer.pread(self._fd, self.offset)
        if count < 0:
            reason = f"cannot read the layer: {os.strerror(-count)}"
            if -count == errno.EISDIR:
                raise UnpackError(reason)
            raise StoreError(reason, path=os.readlink(f"/proc/self/fd/{self._fd}"))
        if buffer is self._source and count:
            self._left = self._compressed = self._inflate.take(buffer)
            if not self._compressed:
                return True  # a plain tar: these bytes are read again, into ``out``
        self.offset += count
        return count > 0


class TarPart:
    """A plain tar that is a part of a file. A ``BufferMaker``; owns ``fd`` and ``source`` until ``close``.

    Args:
        source: is not used: a layer that is read has it, whatever it is read from.
        compressed: bytes of the layer's blob, of which ``offset`` counts.
    """

    demanded = 0

    def __init__(self, fd: int, source: Buffer | None, offset: int, size: int, *, compressed: int) -> None:
        self.ended = False
        self._read = 0
        self._compressed = compressed
        self._fd = fd
        self._source = source
        self._begin = offset
        self._size = size

    @property
    def offset(self) -> int:
        """Compressed bytes that have become what was read, about."""
        return self._compressed * self._read // max(1, self._size)

    def ready(self) -> bool:
        """There is more of it."""
        return not self.ended

    def hungry(self) -> bool:
        """Never: it reads for itself."""
        return False

    def make(self, out: Buffer) -> Buffer | None:
        """Fill ``out``; None at the very end.

        Raises:
            StoreError: the disk refused to read it, or the file is too short.
        """
        while (room := min(out.room, self._size - self._read)) > 0:
            try:
                count = os.preadv(self._fd, [out.reserve(room)], self._begin + self._read)
            except OSError as error:
                raise self._failed(error.strerror) from error
            if not count:
                raise self._failed("it is cut short")
            out.advance(count)
            self._read += count
        self.ended = self._read == self._size
        return out if len(out) else None

    def allow(self, window: int) -> None:
        """Nothing is compressed."""

    def close(self) -> None:
        """Give back what it owns."""
        if self._source is not None:
            self._source.release()
        with suppress(OSError):  # it was only read
            os.close(self._fd)

    def _failed(self, reason: str | None) -> StoreError:
        return StoreError(f"cannot read the layer: {reason}", path=os.readlink(f"/proc/self/fd/{self._fd}"))


class ArrivingTar:
    """The tar of a layer whose buffers come one by one. A ``BufferMaker``; owns the buffers until ``close``."""

    _DEPTH = 2  # buffers that may wait

    def __init__(self, inflate: Inflate) -> None:
        self.ended = False
        self.offset = 0  # compressed bytes taken
        self._inflate = inflate
        self._waiting: deque[Buffer] = deque()
        self._current: Buffer | None = None
        self._complete = False  # no more will come

    @property
    def demanded(self) -> int:
        """Bytes of window that must be allowed before more is made; else 0."""
        return self._inflate.demanded

    def put(self, buffer: Buffer | None) -> None:
        """On the loop: the next buffer with its reference, None at the end."""
        if buffer is None:
            self._complete = True
        else:
            self._waiting.append(buffer)

    def ready(self) -> bool:
        """There are bytes, or the end was reached."""
        if self.ended or self.demanded:
            return False
        return self._current is not None or bool(self._waiting) or self._complete

    def hungry(self) -> bool:
        """Another buffer can be put."""
        return not self._complete and len(self._waiting) < self._DEPTH

    def make(self, out: Buffer) -> Buffer | None:
        """Append to ``out`` what there is; a plain tar's buffers come out as they are.

        Raises:
            FormatError, UnsupportedError: these are not compressed bytes, or damaged ones, or not all.
        """
        while out.room:
            if self._current is not None:
                if self._inflate.fill(out):
                    if self.demanded:
                        return None
                    continue
                self._current.release()
                self._current = None
            elif self._waiting:
                buffer = self._waiting.popleft()
                self._current = buffer
                self.offset += len(buffer)
                if not self._inflate.take(buffer):
                    self._current = None
                    return buffer
            elif self._complete:
                self._inflate.finish()
                self.ended = True
                return out if len(out) else None
            else:
                return None
        return out

    def allow(self, window: int) -> None:
        """Allow frames a window of so many bytes."""
        self._inflate.allow(window)

    def close(self) -> None:
        """Give back what it owns."""
        self._inflate.close()
        if self._current is not None:
            self._current.release()
            self._current = None
        while self._waiting:
            self._waiting.popleft().release()
