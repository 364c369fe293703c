"""A file that a user names for the results of a job: new content at once, and known beforehand to be possible.

The directory is held from the beginning on, and reached as ``path_walk`` says: no symbolic link of another user leads
the results elsewhere.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from fastoci import files, path_walk
from fastoci.errors import StoreError

_RANDOM = 8  # bytes of a temporary name


class OutputFile:
    """One such file, whether it is there yet or not.

    Args:
        path: whose directory is there.
        mode: of the file; by default what the umask leaves.
    Raises:
        StoreError: no file can be made in the directory, or something else than a file has the name.
    """

    def __init__(self, path: Path, *, mode: int | None = None) -> None:
        self.path = path_walk.absolute(path)
        with self._translated():
            self._directory, self._name = path_walk.open_parent(self.path, follow=True)
        try:
            with self._translated():
                self._demand_file()
                usual = self._try()
        except BaseException:
            os.close(self._directory)
            raise
        self._mode = usual if mode is None else mode

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        files.close(self._directory)

    def old(self, limit: int) -> bytes:
        """What the file holds, up to ``limit`` bytes; nothing when it is not there.

        Raises:
            StoreError: the disk refused.
        """
        with self._translated():
            try:
                fd = files.open_file_at(self._directory, self._name)
            except FileNotFoundError:
                return b""
            try:
                return files.read_all(fd, limit)
            finally:
                os.close(fd)

    def write(self, data: bytes) -> None:
        """Give the file this content; whoever opens it has the old one or this.

        Raises:
            StoreError: the disk refused; the old file is as it was.
        """
        with self._translated():
            self._demand_file()
            files.replace_at(self._directory, self._name, data, temporary=self._temporary(), mode=self._mode)

    @contextmanager
    def replaced(self) -> Iterator[BinaryIO]:
        """A file to fill, which gets the name at the end of the block.

        Raises:
            StoreError: the disk refused; the old file is as it was, and after any other error, too.
        """
        name = self._temporary()
        with self._translated():
            fd = os.open(name, files.CREATE, 0o600, dir_fd=self._directory)
            try:
                with open(fd, "wb") as file:
                    yield file
                    file.flush()
                    os.fchmod(fd, self._mode)
                    os.fsync(fd)
                self._demand_file()
                os.rename(name, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            except BaseException:
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._directory)
                raise
            files.sync_directory(self._directory)

    def _demand_file(self) -> None:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(self._name, dir_fd=self._directory, follow_symlinks=False).st_mode):
                raise StoreError(f"cannot write {self.path}: it is not a regular file", path=str(self.path))

    def _try(self) -> int:
        """Make a file beside it and remove that; the mode that it had."""
        name = self._temporary()
        fd = os.open(name, files.CREATE, 0o666, dir_fd=self._directory)
        try:
            return stat.S_IMODE(os.fstat(fd).st_mode)
        finally:
            os.close(fd)
            os.unlink(name, dir_fd=self._directory)

    def _temporary(self) -> str:
        """No collector of ``*.prom`` takes it for its own."""
        return f".{files.fitted(self._name, 2 * _RANDOM + 6)}-{secrets.token_hex(_RANDOM)}.tmp"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        with files.translated("write", str(self.path)):
            yield
