"""The bytes of a file or pipe in their order, decompressed where all of it is compressed.

No thread waits for a pipe longer than a moment: whoever reads waits on the event loop, and can be cancelled there.
Spec: RFC 1952, RFC 8878.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from fastoci import files
from fastoci._core import Buffer
from fastoci.errors import FormatError, UnsupportedError
from fastoci.image.mediatype import Compression
from fastoci.stream.inflate import Inflate, sniff
from fastoci.threads import check

_MOMENT_MS: Final = 20.0
_PIPE: Final = 1 << 20  # bytes that a pipe may hold, where the system grants them
_HEAD: Final = 4
_WINDOW: Final = 8 << 20  # bytes of a zstd frame's window: what zstd makes without an option


def compression_of(name: str, head: bytes) -> Compression:
    """What an archive is compressed with, from its first four bytes.

    Raises:
        UnsupportedError: a compression that is not read here.
    """
    try:
        return sniff(head)
    except UnsupportedError as error:
        text = f"{name}: the archive is compressed, and not by gzip or zstd: decompress it before"
        raise UnsupportedError(text) from error


class ByteStream:
    """``read`` on a thread; after it was ``starved``, ``readable`` on the loop. ``close`` frees the decoder.

    Args:
        name: for messages.
        fd: stays the caller's. A file is read from its start, whatever its cursor.
        source, out: what is read, and what becomes of it; the caller's.
    """

    def __init__(self, name: str, fd: int, source: Buffer, out: Buffer) -> None:
        self.ended = False
        self.starved = False
        self._name = name
        self._fd = fd
        self._source = source
        self._out = out
        self._taken = 0  # bytes of ``out`` that were handed on
        self._offset = 0 if stat.S_ISREG(os.fstat(fd).st_mode) else None
        self._inflate = Inflate(window=_WINDOW)
        self._plain: bool | None = None
        self._filling = False  # the decoder is not done with ``source``
        self._over = False  # the file has no more bytes
        self._ready = select.poll()
        self._ready.register(fd, select.POLLIN)
        with suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE)

    def close(self) -> None:
        """Free the decoder. Idempotent."""
        self._inflate.close()

    async def readable(self) -> None:
        """Wait until there is more to read, or the other end is closed."""
        ready = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._fd, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._fd)

    def read(self, buffer: Buffer, size: int) -> None:
        """Append what is there, ``size`` bytes at most, and say whether the stream has ``ended`` or is ``starved``.

        Raises:
            FormatError: the compressed bytes are damaged. UnsupportedError: by a program that is not supported.
            StoreError: it cannot be read.
        """
        self.starved = False
        while size and not self.ended and not self.starved:
            check()
            if self._plain and self._taken == len(self._out):
                size -= self._receive(buffer, size)
                self.ended = self._over
            elif self._taken < len(self._out):
                size -= self._hand_on(buffer, size)
            else:
                self._decode()

    def _hand_on(self, buffer: Buffer, size: int) -> int:
        with memoryview(self._out) as view, view[self._taken : self._taken + size] as piece:
            count = buffer.append(piece)
        self._taken += count
        return count

    def _decode(self) -> None:
        """Have bytes in ``out``, unless starved or at the end."""
        self._out.clear()
        self._taken = 0
        if not self._filling and not self._feed():
            return
        if self._plain:
            with memoryview(self._source) as view:
                self._out.append(view)
        else:
            with self._named():
                self._filling = self._inflate.fill(self._out)
            if self._inflate.demanded:  # the next call would refuse it
                self._filling = True

    def _feed(self) -> bool:
        """Give the decoder the next bytes of the file; False when there are none by now."""
        if self._plain is not None:
            self._source.clear()
        while not self._over and not self.starved and len(self._source) < (_HEAD if self._plain is None else 1):
            self._receive(self._source, self._source.room)
        if self.starved:
            return False
        if self._over and not len(self._source):
            with self._named():
                self._inflate.finish()
            self.ended = True
            return False
        if self._plain is None:
            compression_of(self._name, bytes(memoryview(self._source)[:_HEAD]))
        self._plain = not self._inflate.take(self._source)
        return True

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except FormatError as error:
            raise FormatError(f"{self._name}: {error.message}") from error

    def _receive(self, buffer: Buffer, size: int) -> int:
        """Append what the file or pipe has by now."""
        if not self._ready.poll(_MOMENT_MS):
            self.starved = True
            return 0
        with buffer.reserve(size) as view, files.translated("read", self._name):
            if self._offset is None:
                count = os.readv(self._fd, [view])
            else:
                count = os.preadv(self._fd, [view], self._offset)
                self._offset += count
        buffer.advance(count)
        self._over = not count
        return count
