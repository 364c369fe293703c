"""A tar that is written once, to a file or a pipe, out of small documents and blobs of a store.

Nothing waits for a reader of the pipe without asking now and then whether it shall go on. Spec: POSIX pax.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable
from typing import Final

from fastoci import files
from fastoci.image.descriptor import Descriptor
from fastoci.stream.tar_headers import END, TarEntry, header, padding

_PIECE: Final = 8 << 20  # bytes of one write to a file
_PIPE: Final = select.PIPE_BUF  # of one to a pipe: so many never wait, once there is room
_WAIT_MS: Final = 100.0
_MODE: Final = 0o444


class ArchiveStream:
    """The tar. All methods raise ``StoreError`` when it cannot be written.

    Args:
        fd: stays the caller's.
        check: called now and then; what it raises ends the work.
    """

    def __init__(self, fd: int, check: Callable[[], None]) -> None:
        self._fd = fd
        self._check = check
        self._piece = _PIECE if stat.S_ISREG(os.fstat(fd).st_mode) else _PIPE
        self._ready = select.poll()
        self._ready.register(fd, select.POLLOUT)

    def add(self, name: str, data: bytes) -> None:
        """One more file."""
        self._write(header(TarEntry(name.encode(), "file", mode=_MODE, size=len(data))))
        self._write(data + bytes(padding(len(data))))

    def add_blob(self, name: str, blob: Descriptor, source: int) -> None:
        """One more file, with the content of an open one."""
        self._write(header(TarEntry(name.encode(), "file", mode=_MODE, size=blob.size)))
        offset = 0
        while offset < blob.size:
            self._wait()
            with files.translated("write", "the archive"):
                copied = os.sendfile(self._fd, source, offset, min(self._piece, blob.size - offset))
                if not copied:
                    raise OSError(errno.EIO, f"{blob.digest} ends after {offset} of {blob.size} bytes")
            offset += copied
        self._write(bytes(padding(blob.size)))

    def end(self) -> None:
        """Nothing more comes."""
        self._write(END)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._wait()
            with files.translated("write", "the archive"):
                view = view[os.write(self._fd, view[: self._piece]) :]

    def _wait(self) -> None:
        self._check()
        while not self._ready.poll(_WAIT_MS):
            self._check()
