"""The one way from a path that a user named to a directory that is held open.

A path is read by the kernel anew in each call, and whoever can write to a directory on it can lead the next call
elsewhere: to another user's files, with this process's rights. So:

1. ``open_directory`` and ``open_parent`` are the only ways from a path to a directory that is written to. What they
   return is held, and nothing below it is ever named by a path again.
2. They walk by ``O_NOFOLLOW``, one name at a time. A symbolic link is followed when only root or this user could have
   put it there; others are refused. ``..`` is the directory that the walk came through, wherever its child is by now.

Paths are absolute: threads of this process may have another working directory. Failures of the disk are ``OSError``,
for the caller to translate. Spec: openat(2), path_resolution(7).
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from fastoci import files
from fastoci.errors import StoreError

_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # O_DIRECTORY: automounts are mounted
_LINK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS: Final = 40  # in one walk, as in the kernel


def absolute(path: str | os.PathLike[str]) -> Path:
    """The path from the root, by the working directory of now and of this thread; ``..`` and links stay in it.

    To be called where a path comes in, before it goes to another thread.

    Raises:
        StoreError: it has a zero byte, or what no file name can have; or it is relative, and the working directory
            has been removed.
    """
    try:
        if b"\0" in os.fsencode(path):
            raise StoreError(f"{path!r} is not a path: it has a zero byte", path=repr(path))
    except UnicodeEncodeError as error:
        raise StoreError(f"{path!r} is not a path: {error.reason}", path=repr(path)) from error
    try:
        return Path(path).absolute()
    except FileNotFoundError as error:
        raise StoreError(f"{path}: the working directory has been removed", path=str(path)) from error


def is_within(path: Path, directory: Path) -> bool:
    """Whether a path leads to a directory or into it, through links, ``..`` and mounts; either may not be there yet."""
    with suppress(OSError):
        found = os.stat(directory)
        for each in (real := Path(os.path.realpath(path)), *real.parents):
            with suppress(OSError):
                if os.path.samestat(os.stat(each), found):
                    return True
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))


def home(environ: Mapping[str, str]) -> Path | None:
    """The user's home directory: ``HOME``, else what the user database says; None where neither says any."""
    if environ.get("HOME"):
        return Path(environ["HOME"])
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def open_directory(path: Path, *, make: int | None = None, exact: bool = False) -> int:
    """Open a directory for reading, and for all that is done in it.

    Args:
        path: absolute.
        make: the mode of what is missing on the way, each made durable; None makes nothing.
        exact: that mode whatever the umask.
    Raises:
        OSError: it is not there, or is not a directory; the disk refused.
        StoreError: a symbolic link on the way is another user's.
    """
    with closing(_Walk(path, make, exact)) as walk:
        walk.go()
        return os.open(".", files.DIRECTORY, dir_fd=walk.fd)


def open_parent(path: Path, *, make: int | None = None, exact: bool = False, follow: bool = False) -> tuple[int, str]:
    """Open the directory that a path's last name is in, whether there is such a name or not; both.

    A directory that may not be listed is opened by ``O_PATH``.

    Args:
        path, make, exact: as in ``open_directory``; the last name is not made.
        follow: when the last name is a symbolic link, go on to what it leads to.
    Raises:
        OSError: a directory is not there, or the path ends in no name; the disk refused.
        StoreError: a symbolic link on the way is another user's.
    """
    with closing(_Walk(path, make, exact)) as walk:
        name = walk.go_to_last(follow)
        try:
            return os.open(".", files.DIRECTORY, dir_fd=walk.fd), name
        except PermissionError:  # may be passed through, and not listed
            return os.open(".", _STEP, dir_fd=walk.fd), name


class _Walk:
    """A way from the root to a directory. Holds every directory on it, for ``..``."""

    def __init__(self, path: Path, make: int | None, exact: bool) -> None:
        if not path.is_absolute():
            raise ValueError(f"{path} is relative")
        self._path = path
        self._make = make
        self._exact = exact
        self._ahead = list(reversed(path.parts[1:]))
        self._links = 0
        self._way: list[tuple[int, str]] = [(os.open("/", _STEP), "")]

    @property
    def fd(self) -> int:
        """The directory that was reached."""
        return self._way[-1][0]

    def close(self) -> None:
        """Let go of every directory."""
        while self._way:
            os.close(self._way.pop()[0])

    def go(self) -> None:
        """Go to the end."""
        while self._ahead:
            self._step(self._ahead.pop())

    def go_to_last(self, follow: bool) -> str:
        """Go to where the last name is; the name. Raises OSError: the path ends in no name."""
        while self._ahead:
            name = self._ahead.pop()
            if self._ahead or name == "..":
                self._step(name)
            elif not (follow and self._is_link(name)):
                return name
            else:
                self._follow(name)
        raise OSError(errno.EINVAL, "ends in no name", str(self._path))

    def _step(self, name: str) -> None:
        if name == "..":
            if len(self._way) > 1:
                os.close(self._way.pop()[0])
            else:  # of the root, which is its own; or of where the kernel led
                self._jump(os.open("..", _STEP, dir_fd=self.fd), "..")
            return
        try:
            self._enter(name)
        except FileNotFoundError:
            if self._make is None:
                raise
            files.make_directory_at(self.fd, name, self._make, exact=self._exact)
            self._enter(name)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP) or not self._is_link(name):
                raise
            self._follow(name)

    def _enter(self, name: str) -> None:
        self._way.append((os.open(name, _STEP, dir_fd=self.fd), name))

    def _jump(self, fd: int, name: str) -> None:
        self.close()
        self._way = [(fd, name)]

    def _is_link(self, name: str) -> bool:
        try:
            return stat.S_ISLNK(os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False

    def _follow(self, name: str) -> None:
        self._links += 1
        if self._links > _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(self._path))
        link = os.open(name, _LINK, dir_fd=self.fd)
        try:
            info = os.fstat(link)
            self._demand_own(info, name)
            if _is_in_proc(info):  # /proc/1/root has a text that means another directory
                self._jump(os.open(name, _STEP & ~os.O_NOFOLLOW, dir_fd=self.fd), name)
                return
            text = os.readlink("", dir_fd=link)
        finally:
            os.close(link)
        if text.startswith("/"):
            self._jump(os.open("/", _STEP), "")
        self._ahead += reversed([part for part in text.split("/") if part not in ("", ".")])

    def _demand_own(self, link: os.stat_result, name: str) -> None:
        """Refuse a symbolic link that another user made, or could have moved here.

        In directories that a group may write to, also one with several names: some systems let users add names to
        links of others. The owner of the root directory counts as root, who in a user namespace has another number.
        """
        directory = os.fstat(self.fd)
        own = {0, os.geteuid(), os.stat("/").st_uid}
        shared = directory.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if link.st_uid not in own:
            who = f"belongs to user {link.st_uid}"
        elif directory.st_uid not in own:
            who = f"is in a directory of user {directory.st_uid}"
        elif directory.st_mode & stat.S_IWOTH and not directory.st_mode & stat.S_ISVTX:
            who = "is in a directory that everyone can write to"
        elif shared and link.st_nlink > 1:
            who = "has several names, and is in a directory that others can write to"
        else:
            return
        path = "/".join([*(name for _, name in self._way), name]) or "/"
        real = os.path.realpath(self._path)
        raise StoreError(f"{path}: this symbolic link {who}, it is not followed: give the real path, {real}", path=path)


def _is_in_proc(info: os.stat_result) -> bool:
    try:
        return os.stat("/proc/self").st_dev == info.st_dev
    except FileNotFoundError:
        return False
