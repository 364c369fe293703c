"""A directory that something is, or will be, mounted on: held by the directory that it is in.

So a mount goes where the walk along the path ended, whatever becomes of the path; and nothing that is held here is in
the mount itself, which could not be taken away then.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from fastoci import _mount, files, path_walk
from fastoci.mountinfo import Mount, mount_id, mounts

_HELD: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MADE: Final = 0o755  # what is missing on the way


class Point:
    """A mount point. ``parent`` passes to it; ``path`` is for people. Raises ``OSError``, translates none."""

    def __init__(self, parent: int, name: str, path: str) -> None:
        self._parent = parent
        self._name = name
        self.path = path

    @classmethod
    def at(cls, path: Path, *, make: bool) -> Point:
        """The point at a path of a user's.

        Args:
            make: the directory, and what is missing on the way.
        Raises:
            OSError: it is not there, or cannot be made.
            StoreError: a symbolic link on the way is another user's.
        """
        parent, name = path_walk.open_parent(path, make=_MADE if make else None)
        try:
            if make:
                files.make_directory_at(parent, name, _MADE, exact=False)
            real = os.readlink(f"/proc/self/fd/{parent}")
        except BaseException:
            os.close(parent)
            raise
        return cls(parent, name, f"{real.rstrip('/')}/{name}")

    def __enter__(self) -> Point:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self._parent >= 0:
            files.close(self._parent)
            self._parent = -1

    @property
    def proc_path(self) -> str:
        """A path of it that nobody can lead elsewhere, in this process and in those that inherit ``parent``."""
        return f"/proc/self/fd/{self._parent}/{self._name}"

    def open(self) -> int:
        """The directory, or the root of what is mounted on it; the caller closes it."""
        return os.open(self._name, _HELD, dir_fd=self._parent)

    def names(self) -> list[str]:
        """What is in it."""
        fd = files.open_directory_at(self._parent, self._name)
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def mounted(self) -> Mount | None:
        """What is mounted on it, on top; None when nothing is."""
        fd = self.open()
        try:
            number = mount_id(fd)
        finally:
            os.close(fd)
        if number == mount_id(self._parent):
            return None
        return next((each for each in mounts() if each.id == number), None)

    def attach(self, mount: int) -> None:
        """Put a mount here that is nowhere yet; its descriptor is closed, also on error."""
        try:
            target = self.open()
            try:
                _mount.move(mount, target)
            finally:
                os.close(target)
        finally:
            os.close(mount)

    def bind(self, directory: int) -> None:
        """Show here what a directory of another mount is. What is mounted below it later is seen only here."""
        mount = _mount.clone(directory)
        try:
            _mount.set_private(mount)
        except BaseException:
            os.close(mount)
            raise
        self.attach(mount)

    def unmount(self) -> None:
        """Take away what is mounted on top. ``EBUSY``: it is in use, and stays."""
        _mount.unmount(self.proc_path)
