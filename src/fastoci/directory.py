"""A directory that is held open: what is in it is reached by its descriptor, whatever becomes of its path.

So whoever may rename a directory above it cannot lead elsewhere what is done here. All names are of one component.
Knows no names of the store and translates no errors, but says in full which file they are of.
Spec: docs/store-format.md 2.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final

# O_PATH: also of a directory that may be passed through and not be listed, as ``leases`` is for other users.
_HELD: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LISTED: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Directory:
    """An open directory. Used from any thread until ``close``, from then on every call fails. Raises ``OSError``.

    Args:
        fd: passes to it. ``path`` is for people.
    """

    __slots__ = ("fd", "path")

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path

    def __enter__(self) -> Directory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Let go. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)

    def at(self, name: str) -> str:
        """The path of what is in it, for people."""
        return f"{self.path}/{name}"

    def enter(self, name: str) -> Directory:
        """A directory in it, never through a symbolic link: that is not a directory."""
        return Directory(self.open(name, _HELD), self.at(name))

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        """``os.open`` in it; never through a symbolic link."""
        with _Naming(self.at(name)):
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=self.fd)

    def stat(self, name: str) -> os.stat_result:
        """``os.lstat`` in it."""
        try:  # not as the others do it: called for each of very many blobs
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except OSError as cause:
            cause.filename = self.at(name)
            raise

    def has(self, name: str) -> bool:
        """Whether anything has this name, as ``os.path.lexists`` says."""
        try:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def names(self) -> list[str]:
        """``os.listdir``."""
        fd = self._listed()
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    @contextmanager
    def scan(self) -> Iterator[Iterator[os.DirEntry[str]]]:
        """``os.scandir``: for very many names. Of an entry only the name means anything later."""
        fd = self._listed()
        try:
            with os.scandir(fd) as entries:
                yield entries
        finally:
            os.close(fd)

    def is_writable(self) -> bool:
        """Whether this process may make and delete names in it."""
        return os.access(".", os.W_OK | os.X_OK, dir_fd=self.fd)

    def mkdir(self, name: str, mode: int) -> None:
        """``os.mkdir`` in it."""
        with _Naming(self.at(name)):
            os.mkdir(name, mode, dir_fd=self.fd)

    def unlink(self, name: str) -> None:
        """``os.unlink`` in it."""
        with _Naming(self.at(name)):
            os.unlink(name, dir_fd=self.fd)

    def rmdir(self, name: str) -> None:
        """``os.rmdir`` in it."""
        with _Naming(self.at(name)):
            os.rmdir(name, dir_fd=self.fd)

    def rename(self, name: str, target: Directory, new: str) -> None:
        """``os.rename`` of what is in it to a name in ``target``."""
        with _Naming(target.at(new)):
            os.rename(name, new, src_dir_fd=self.fd, dst_dir_fd=target.fd)

    def touch(self, name: str) -> None:
        """``os.utime`` in it: access and modification are now."""
        with _Naming(self.at(name)):
            os.utime(name, dir_fd=self.fd, follow_symlinks=False)

    def retouch(self, name: str) -> None:
        """Change the ctime of what is in it, and nothing else."""
        info = self.stat(name)
        with _Naming(self.at(name)):
            os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=self.fd, follow_symlinks=False)

    def sync(self) -> None:
        """Make the names in it durable."""
        fd = self._listed()
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _listed(self) -> int:
        """A descriptor that may be listed and synced: one with ``O_PATH`` may not."""
        with _Naming(self.path):
            return os.open(".", _LISTED, dir_fd=self.fd)


class _Naming:
    """Says in an ``OSError`` of its body which file it is of: the system call had only a part of the path."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            error.filename = self._path
