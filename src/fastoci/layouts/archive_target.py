"""Where an archive is written: a file that has its name when it is whole, or a stream.

What is there and is no regular file is a stream: a pipe, a terminal, ``/dev/null``; so is a descriptor that this
process was given, by whatever name: ``/dev/stdout``, ``/dev/fd/3``. All else is written under no name, beside what is
there, and takes its place at the end. Spec: docs/archives.md.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import select
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastoci import files, path_walk
from fastoci.errors import StoreBusyError, StoreError
from fastoci.threads import check

_GIVEN: Final = re.compile(r"/dev/fd/(\d+)|/proc/self/fd/(\d+)")
_STANDARD: Final = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_PIECE: Final = select.PIPE_BUF  # bytes of one write to a pipe: so many never wait, once there is room
_WAIT_MS: Final = 100.0
_MODE: Final = 0o666  # as the umask leaves it


def given(path: Path) -> int | None:
    """The descriptor that a path is another name of; None for all other paths."""
    match = _GIVEN.fullmatch(str(path))
    return int(match[1] or match[2]) if match else _STANDARD.get(str(path))


class ArchiveTarget:
    """An open archive. Its methods block; ``write_at`` may be called on several threads, ``write`` on one at a time.

    Args:
        path: absolute.
    Raises:
        StoreError: nothing can be written there.
        StoreBusyError: it is a FIFO that nobody reads by now.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._directory = -1
        self._name = self._temporary = ""  # the last is of a file system where all files have names
        with files.translated("write", self.path):
            self.fd = self._open(path)
            self.seeks = self._directory >= 0
            self._ready = select.poll()
            self._ready.register(self.fd, select.POLLOUT)

    def _open(self, path: Path) -> int:
        descriptor = given(path)
        if descriptor is not None:
            return os.dup(descriptor)
        with suppress(FileNotFoundError):
            mode = os.stat(path).st_mode
            if stat.S_ISDIR(mode):
                raise StoreError(f"{path} is a directory", path=self.path)
            if not stat.S_ISREG(mode):
                return _open_stream(path, stat.S_ISFIFO(mode))
        self._directory, self._name = path_walk.open_parent(path, follow=True)
        try:
            return self._open_file()
        except BaseException:
            files.close(self._directory)
            raise

    def _open_file(self) -> int:
        try:
            return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, _MODE, dir_fd=self._directory)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
        self._temporary = self._hidden()
        return os.open(self._temporary, files.CREATE, _MODE, dir_fd=self._directory)

    def _hidden(self) -> str:
        return f".{files.fitted(self._name, 18)}.{secrets.token_hex(8)}"

    def write(self, data: bytes | memoryview) -> None:
        """Write what comes next in a stream, while somebody takes it."""
        with memoryview(data) as view:
            offset = 0
            while offset < len(view):
                check()
                if self._ready.poll(_WAIT_MS):
                    with files.translated("write", self.path):
                        offset += os.write(self.fd, view[offset : offset + _PIECE])

    def write_at(self, offset: int, data: bytes) -> None:
        """Write a part of a file."""
        with files.translated("write", self.path), memoryview(data) as view:
            done = 0
            while done < len(view):
                done += os.pwrite(self.fd, view[done:], offset + done)

    def commit(self) -> None:
        """All is written: let a file have its name, durably, in place of what had it."""
        if not self.seeks:
            return
        with files.translated("write", self.path):
            os.fsync(self.fd)
            if not self._temporary:
                temporary = self._hidden()
                files.link_open_at(self.fd, self._directory, temporary)
                self._temporary = temporary
            os.rename(self._temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            self._temporary = ""
            files.sync_directory(self._directory)

    def close(self) -> None:
        """Let go of it. What was not committed is gone."""
        if self._temporary:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._directory)
        files.close(self.fd)
        if self.seeks:
            files.close(self._directory)


def _open_stream(path: Path, is_fifo: bool) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if is_fifo and error.errno == errno.ENXIO:
            raise StoreBusyError(f"nobody reads {path}", path=str(path)) from error
        raise
