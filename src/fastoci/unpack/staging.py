"""A private directory beside the target of an unpack, or in it: held, locked, and removed with all that is in it.

The directory that it is in may belong to another user, and so may what is in that. All is done by descriptors. What a
killed process left is found by its name, and known by its owner, its mode and its lock, which is free.
Spec: rename(2), openat(2); docs/store-format.md 10.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from typing import Final

from fastoci import _extract, files, locks

PRIVATE: Final = 0o700
_LOCK: Final = "lock"  # in the private directory: only its owner may open it
_MOVING: Final = "moving"  # in it, too: the names that are being moved to the directory that it is in
_SUFFIX: Final = ".fastoci"
_ADDED: Final = len(f"..{'0' * 16}{_SUFFIX}")  # to the target's name
_TRIES: Final = 64  # to make one that nobody takes away meanwhile
_ACLS: Final = ("system.posix_acl_access", "system.posix_acl_default")
_NO_ACL: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP})


class Staging:
    """A private directory, held and locked: 0700, this user's, and the lock says that its process lives.

    Only that user has ever been able to write to it, so names below it mean what they meant a moment ago. Its own name
    may be anything by now. ``parent``, the directory that it is in, stays the caller's.
    """

    def __init__(self, parent: int, name: str, fd: int, lock: int) -> None:
        self.parent = parent
        self.name = name
        self.fd = fd
        self.lock = lock

    @classmethod
    def make(cls, parent: int, target: str) -> Staging:
        """Make one for an unpack to ``target``.

        An unpack that comes between two steps may take it for abandoned and remove it, and the owner of the parent may
        put something else there: then another is made.

        Raises:
            OSError: the disk refused, or what is made is taken away again and again.
        """
        for _ in range(_TRIES):
            name = f"{_prefix(target)}{secrets.token_hex(8)}{_SUFFIX}"
            os.mkdir(name, PRIVATE, dir_fd=parent)
            made = cls._made(parent, name)
            if made is not None:
                return made
            with suppress(OSError):
                os.rmdir(name, dir_fd=parent)
        raise OSError(errno.EAGAIN, "what is made beside it is taken away, or belongs to another user")

    @classmethod
    def _made(cls, parent: int, name: str) -> Staging | None:
        """Hold what was just made, if that is what has the name."""
        with ExitStack() as undo:
            fd = _open_directory(parent, name)
            if fd is None:
                return None
            undo.callback(files.close, fd)
            if os.fstat(fd).st_uid != os.geteuid() or os.listdir(fd):
                return None
            make_plain(fd, PRIVATE)
            try:
                lock = locks.lock_at(fd, _LOCK)
            except FileNotFoundError:
                return None
            if lock is None:
                return None
            undo.callback(files.close, lock)
            if os.listdir(fd) != [_LOCK]:
                return None
            undo.pop_all()
            return cls(parent, name, fd, lock)

    @classmethod
    def abandoned(cls, parent: int, name: str) -> Staging | None:
        """The private directory of a process of this user that is gone; None for anything else."""
        with ExitStack() as undo:
            fd = _open_directory(parent, name)
            if fd is None:
                return None
            undo.callback(files.close, fd)
            if not _is_private(os.fstat(fd), stat.S_IFDIR | PRIVATE):
                return None
            try:
                lock = os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
            except FileNotFoundError:
                os.rmdir(name, dir_fd=parent)  # just made, or nearly removed: then it is empty
                return None
            undo.callback(files.close, lock)
            if not _is_private(os.fstat(lock), stat.S_IFREG | 0o600) or not locks.try_lock(lock):
                return None
            undo.pop_all()
            return cls(parent, name, fd, lock)

    def make_directory(self, name: str, mode: int) -> int:
        """Make a directory in it, with nothing inherited; its descriptor."""
        os.mkdir(name, PRIVATE, dir_fd=self.fd)
        fd = files.open_directory_at(self.fd, name)
        try:
            make_plain(fd, mode)
        except BaseException:
            files.close(fd)
            raise
        return fd

    def begin_move(self, names: Collection[str]) -> None:
        """From here to ``end_move``, these names in ``parent`` are removed when this process is gone."""
        fd = os.open(_MOVING, files.CREATE, 0o600, dir_fd=self.fd)
        try:
            files.write_all(fd, b"\0".join(map(os.fsencode, names)))
        finally:
            os.close(fd)

    def end_move(self) -> None:
        """What was moved stays."""
        os.unlink(_MOVING, dir_fd=self.fd)

    def moving(self) -> list[str]:
        """The names of a move that did not end."""
        try:
            fd = os.open(_MOVING, files.READ, dir_fd=self.fd)
        except FileNotFoundError:
            return []
        try:
            return [os.fsdecode(name) for name in files.read_all(fd, os.fstat(fd).st_size).split(b"\0") if name]
        finally:
            os.close(fd)

    def remove(self, *, within: float | None = None, stop: _extract.Stop | None = None) -> str:
        """Remove all that is in it, and the directory if it still has its name; lets go of it.

        A move that did not end, and was not undone, keeps it as it is.

        Returns:
            its name, when something stays.
        """
        left = self.name
        until = None if within is None else time.monotonic() + within
        with suppress(OSError):
            held = set(os.listdir(self.fd)) - {_LOCK}
            failed = int(_MOVING in held)
            for name in held if not failed else ():
                rest = None if until is None else max(0.0, until - time.monotonic())
                failed |= _remove_tree(self.fd, name, within=rest, stop=stop)
            if not failed:  # else the lock stays: it says that this is ours
                os.unlink(_LOCK, dir_fd=self.fd)
                os.rmdir(self.name, dir_fd=self.parent)
                left = ""
        files.close(self.lock)
        files.close(self.fd)
        return left


def _remove_tree(parent: int, name: str, *, within: float | None, stop: _extract.Stop | None) -> int:
    """Remove a tree, also with what was given to ids of a user namespace; how much could not be removed."""
    failed = _extract.remove_tree(parent, os.fsencode(name), within=within, stop=stop)
    if not failed or os.geteuid() == 0 or within is not None or (stop is not None and stop.is_set()):
        return failed
    from fastoci.unpack import user_namespace

    return user_namespace.remove_tree(parent, name, stop=stop or _extract.Stop())


def names(parent: int, target: str) -> Iterator[str]:
    """The private directories of this user for unpacks to ``target``, by their names and owners."""
    for name in os.listdir(parent):
        if name.startswith(_prefix(target)) and name.endswith(_SUFFIX):
            with suppress(FileNotFoundError):
                if _is_private(os.stat(name, dir_fd=parent, follow_symlinks=False), stat.S_IFDIR | PRIVATE):
                    yield name


def abandoned(parent: int, target: str) -> Iterator[Staging]:
    """Those whose process is gone, each to be removed."""
    for name in names(parent, target):
        with suppress(OSError):
            staging = Staging.abandoned(parent, name)
            if staging is not None:
                yield staging


def make_plain(fd: int, mode: int) -> None:
    """Give a directory this mode whatever the umask, and nothing of its parent's: no group, no setgid bit, no ACL."""
    for name in _ACLS:
        try:
            os.removexattr(fd, name)
        except OSError as error:
            if error.errno not in _NO_ACL:
                raise
    if os.fstat(fd).st_gid != os.getegid():
        os.fchown(fd, -1, os.getegid())
    os.fchmod(fd, mode)


def _prefix(target: str) -> str:
    return f".{files.fitted(target, _ADDED)}."


def _open_directory(parent: int, name: str) -> int | None:
    """None when it is gone, or is none."""
    try:
        return files.open_directory_at(parent, name)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
            return None
        raise


def _is_private(info: os.stat_result, mode: int) -> bool:
    return info.st_uid == os.geteuid() and info.st_mode == mode
