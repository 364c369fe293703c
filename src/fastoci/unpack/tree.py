"""A tree of an image, looked into as its containers see it: its own links are followed, and none leads out of it.

Whoever made the image, or may write to the tree, chooses what is there: files are opened by descriptors, one name at a
time, and nothing that is not a file or a directory is opened at all. Spec: openat(2), path_resolution(7).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fastoci import files
from fastoci.errors import UnsupportedError

_FOUND: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS: Final = 40  # in one walk, as in the kernel


class Tree:
    """A directory that is the root for what is in it. ``fd`` stays the caller's; ``path`` is for people."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path

    def read(self, path: str, limit: int) -> bytes:
        """The content of a file; nothing when there is no file.

        Raises:
            UnsupportedError: it is larger than ``limit`` bytes.
            StoreError: the disk refused.
        """
        with files.translated("read", self._path + path), self._walk(path) as walk:
            if walk.ahead or not stat.S_ISREG(os.fstat(walk.fd).st_mode):
                return b""
            fd = os.open(f"/proc/self/fd/{walk.fd}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                size = os.fstat(fd).st_size
                if size > limit:
                    raise UnsupportedError(f"the image's {path} has {size} bytes, more than {limit}")
                return files.read_all(fd, size)
            finally:
                files.close(fd)

    def stat(self, path: str) -> os.stat_result | None:
        """What is at ``path``; None when nothing is.

        Raises:
            StoreError: the disk refused.
        """
        with files.translated("look at", self._path + path), self._walk(path) as walk:
            return None if walk.ahead else os.fstat(walk.fd)

    def resolve(self, path: str) -> str:
        """Where a path leads, by the links that there are; what is not there is as written.

        Raises:
            StoreError: the disk refused.
        """
        with files.translated("look at", self._path + path), self._walk(path) as walk:
            return "/" + "/".join([*walk.names, *reversed(walk.ahead)])

    @contextmanager
    def _walk(self, path: str) -> Iterator[_Walk]:
        walk = _Walk(self._fd, path)
        try:
            walk.go()
            yield walk
        finally:
            walk.close()


class _Walk:
    """A way from the root; ``ahead`` is what is left of it, the next name last, when something is not there."""

    def __init__(self, root: int, path: str) -> None:
        self._root = root
        self._links = 0
        self._way: list[tuple[int, str]] = []
        self.ahead = _parts(path)

    @property
    def fd(self) -> int:
        """What was reached."""
        return self._way[-1][0] if self._way else self._root

    @property
    def names(self) -> list[str]:
        """The way to it."""
        return [name for _, name in self._way]

    def close(self) -> None:
        """Let go of all that is on the way."""
        while self._way:
            os.close(self._way.pop()[0])

    def go(self) -> None:
        """Go as far as there is anything."""
        while self.ahead:
            name = self.ahead.pop()
            if name == "..":
                if self._way:
                    os.close(self._way.pop()[0])
                continue
            try:
                fd = os.open(name, _FOUND, dir_fd=self.fd)
            except (FileNotFoundError, NotADirectoryError):
                self.ahead.append(name)
                return
            self._way.append((fd, name))
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                self._follow()

    def _follow(self) -> None:
        """Go on by the text of the link that was reached."""
        fd, name = self._way.pop()
        try:
            text = os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)
        self._links += 1
        if self._links > _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        if text.startswith("/"):
            self.close()
        self.ahead += _parts(text)


def _parts(path: str) -> list[str]:
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]
