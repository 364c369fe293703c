"""The directory that a tree is for, held by descriptors: what has the name by now, and where the tree is made.

A tree is made beside its final name, in the directory that the name is in, and gets the name when it is finished.
Where a directory cannot be replaced, it is made in it: a mount point, one whose parent this user cannot write to, or
one with a ``lost+found``, which new file systems have. Then nothing is written to the parent.
Spec: docs/store-format.md 10.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastoci import _extract, files, path_walk
from fastoci.errors import RootfsOccupiedError, StoreBusyError
from fastoci.unpack import marker, staging
from fastoci.unpack.marker import Contents, Marker
from fastoci.unpack.staging import Staging

_REPORT: Final = ".lost.jsonl"


class Target:
    """Where a tree goes.

    Attributes:
        parent: the directory that ``name`` is in.
        fd: the directory of that name; -1 when there is none.
        is_inside: the tree is made in that directory.
    """

    def __init__(self, path: Path, parent: int, name: str, stop: _extract.Stop | None = None) -> None:
        self.path = path
        self.parent = parent
        self.name = name
        self.fd = -1
        self.is_inside = False
        self._stop = stop

    @classmethod
    def open(cls, path: Path, *, stop: _extract.Stop | None = None, make: int | None = None) -> Target:
        """Hold it, and remove what killed processes left.

        Args:
            path: absolute.
            make: the mode of directories that are missing on the way.
        Raises:
            OSError: what has the name is not a directory; the disk refused.
            StoreError: a symbolic link on the way is another user's.
        """
        parent, name = path_walk.open_parent(path, make=make)
        target = cls(path, parent, name, stop)
        try:
            target.look()
            target._remove_abandoned()
            target.is_inside = target._must_stay()
        except BaseException:
            target.close()
            raise
        return target

    def close(self) -> None:
        """Let go of it. Idempotent."""
        for fd in (self.fd, self.parent):
            if fd >= 0:
                files.close(fd)
        self.fd = self.parent = -1

    def look(self) -> None:
        """Hold the directory that has the name now."""
        if self.fd >= 0:
            files.close(self.fd)
            self.fd = -1
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.stat(self.name, dir_fd=self.parent, follow_symlinks=False).st_mode):
                raise FileExistsError(errno.EEXIST, "exists and is not a directory", self.name)
            self.fd = files.open_directory_at(self.parent, self.name)

    @property
    def area(self) -> int:
        """The directory that the tree is made in."""
        return self.fd if self.is_inside else self.parent

    def names(self) -> set[str]:
        """What is in the directory, but for ``lost+found`` and what is being unpacked there."""
        if self.fd < 0:
            return set()
        return set(os.listdir(self.fd)) - {files.LOST_AND_FOUND} - set(staging.names(self.fd, self.name))

    def held(self, contents: Contents | None) -> Marker | None:
        """The marker of a finished tree with these contents; None when nothing is there.

        Raises:
            RootfsOccupiedError: anything else is there.
        """
        if not self.names():
            return None
        held = marker.read(self.fd)
        if held is None or contents is None:
            raise occupied(self.path)
        if not held.contents.is_as(contents):
            text = f"{self.path} holds {held.contents}, not {contents}: remove it or choose another"
            raise RootfsOccupiedError(text, path=str(self.path), held=str(held.contents.manifest))
        return held

    def demand_alone(self, own: Staging | None = None) -> None:
        """Refuse to unpack into a directory that another process unpacks into.

        Raises:
            StoreBusyError: there is such a process. Of two that begin at once, perhaps each is told so.
        """
        for name in staging.names(self.fd, self.name) if self.is_inside else ():
            if own is not None and name == own.name:
                continue
            left = Staging.abandoned(self.fd, name)
            if left is None:
                raise StoreBusyError(f"{self.path}: another process unpacks into it", path=str(self.path))
            left.remove(stop=self._stop)

    def undo_move(self, left: Staging) -> None:
        """Remove from the directory what was being moved there; when some of it stays, the next unpack goes on."""
        if not (names := left.moving()):
            return
        marker.clear(self.fd)
        if not any([_extract.remove_tree(self.fd, os.fsencode(name), stop=self._stop) for name in names]):
            left.end_move()

    def _remove_abandoned(self) -> None:
        """Remove the private directories of unpacks whose process is gone, in the directory and beside it."""
        if self.fd >= 0:
            for left in staging.abandoned(self.fd, self.name):
                try:
                    self.undo_move(left)
                finally:
                    left.remove(stop=self._stop)
        with suppress(OSError):  # a directory that may not be listed
            for left in staging.abandoned(self.parent, self.name):
                left.remove(stop=self._stop)

    def _must_stay(self) -> bool:
        """Whether the directory cannot be replaced by another."""
        if self.fd < 0:
            return False
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=self.parent, effective_ids=True):
            return True
        return files.LOST_AND_FOUND in os.listdir(self.fd) or _extract.is_mount_point(
            self.parent, os.fsencode(self.name)
        )


def report_name(name: str) -> str:
    """The name of the report on what the tree of that name lost, beside it."""
    return f".{files.fitted(name, len(_REPORT) + 1)}{_REPORT}"


def occupied(path: Path) -> RootfsOccupiedError:
    """The error for a target that something unknown is in."""
    link = "a symbolic link" if path.is_symlink() else "not an empty directory"
    text = f"{path}: exists and is {link}: remove it or choose another"
    return RootfsOccupiedError(text, path=str(path))
