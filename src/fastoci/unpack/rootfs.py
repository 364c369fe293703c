"""A rootfs while it grows: under a private name beside its final one, renamed when every diff_id holds.

The directory beside may belong to another user, and so may what is in it. All is done by descriptors: of the parent,
opened once, and of the private directory, which is nobody else's because its descriptor says so.
The tree is not synced: it is never taken as a cache, so after a power cut nobody trusts it (``docs/store-format.md``).
What a killed process left is removed by the next unpack to the same target. Knows no layers and no limits.
Spec: rename(2), openat(2).
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from fastoci import _extract, files, locks, path_walk
from fastoci.errors import StoreError

_PRIVATE: Final = 0o700
_LOCK: Final = "lock"  # in the private directory: only its owner may open it
_SUFFIX: Final = ".fastoci"
_TRIES: Final = 64  # to make one that nobody takes away meanwhile
_ACLS: Final = ("system.posix_acl_access", "system.posix_acl_default")
_NO_ACL: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP})


class Rootfs:
    """One tree under construction. ``fd`` is its root. End it with ``publish`` or ``discard``."""

    def __init__(self, target: Path, name: str, staging: _Staging, fd: int) -> None:
        self.target = target
        self._name = name
        self._staging = staging
        self.fd = fd

    @classmethod
    def begin(cls, target: Path, *, stop: _extract.Stop | None = None) -> Rootfs:
        """Make the private directory beside ``target``, which is absolute.

        Args:
            stop: whatever others left may stay.
        Raises:
            StoreError: ``target`` exists and is not an empty directory, its parent cannot be written, or the way to it
                is another user's.
        """
        try:
            with ExitStack() as undo:
                parent, name = path_walk.open_parent(target, make=0o755)
                undo.callback(files.close, parent)
                _demand_free(parent, name)
                _remove_abandoned(parent, name, stop)
                staging = _Staging.make(parent, name)
                undo.callback(staging.remove)
                fd = staging.make_directory("rootfs", 0o755)
                undo.pop_all()
        except OSError as error:
            raise _translate(error, target) from error
        return cls(target, name, staging, fd)

    def stage(self, number: int) -> int:
        """Make an empty directory beside the tree for the files of one layer; its descriptor.

        Raises:
            StoreError: the disk refused.
        """
        try:
            return self._staging.make_directory(f"layer{number}", _PRIVATE)
        except OSError as error:
            raise _translate(error, self.target) from error

    def unstage(self, number: int, *, stop: _extract.Stop | None = None) -> None:
        """Remove such a directory and what is left in it; what cannot be removed stays until the end."""
        _extract.remove_tree(self._staging.fd, b"layer%d" % number, stop=stop)

    def publish(self) -> None:
        """Give the tree its final name. Closes, also on error.

        Raises:
            StoreError: the name was taken meanwhile, or the disk refused.
        """
        mode = stat.S_IMODE(os.fstat(self.fd).st_mode)
        try:
            # Whoever moves a directory to another writes to it: its "..". Root may, whatever the mode.
            if os.geteuid() != 0 and not mode & stat.S_IWUSR:
                os.fchmod(self.fd, mode | stat.S_IWUSR)
            # Replaces an empty directory, nothing else.
            os.rename("rootfs", self._name, src_dir_fd=self._staging.fd, dst_dir_fd=self._staging.parent)
            if os.geteuid() != 0 and not mode & stat.S_IWUSR:
                os.fchmod(self.fd, mode)
        except OSError as error:
            raise _translate(error, self.target) from error
        finally:
            self.discard()

    def discard(self, *, within: float | None = None, stop: _extract.Stop | None = None) -> str:
        """Remove what is left under the private name. Idempotent.

        Args:
            within: seconds for that; what stays then, or after ``stop``, is removed by the next unpack to the same
                target.
        Returns:
            the private name, when something stays; else nothing.
        """
        if self.fd < 0:
            return ""
        files.close(self.fd)
        self.fd = -1
        left = self._staging.remove(within=within, stop=stop)
        files.close(self._staging.parent)
        return left


class _Staging:
    """A private directory, held and locked: 0700, this user's, and the lock says that its process lives.

    Only that user has ever been able to write to it, so names below it mean what they meant a moment ago. Its own name
    may be anything by now.
    """

    def __init__(self, parent: int, name: str, fd: int, lock: int) -> None:
        self.parent = parent
        self.fd = fd
        self._name = name
        self._lock = lock

    @classmethod
    def make(cls, parent: int, target: str) -> _Staging:
        """Make one beside ``target``. Raises OSError: the disk refused, or what is made is taken away again and again.

        An unpack that comes between two steps may take it for abandoned and remove it, and the owner of the parent may
        put something else there: then another is made.
        """
        for _ in range(_TRIES):
            name = f"{_prefix(target)}{secrets.token_hex(8)}{_SUFFIX}"
            os.mkdir(name, _PRIVATE, dir_fd=parent)
            made = cls._made(parent, name)
            if made is not None:
                return made
            with suppress(OSError):
                os.rmdir(name, dir_fd=parent)
        raise OSError(errno.EAGAIN, "what is made beside it is taken away, or belongs to another user")

    @classmethod
    def _made(cls, parent: int, name: str) -> _Staging | None:
        """Hold what was just made, if that is what has the name."""
        with ExitStack() as undo:
            fd = _open_directory(parent, name)
            if fd is None:
                return None
            undo.callback(files.close, fd)
            if os.fstat(fd).st_uid != os.geteuid() or os.listdir(fd):
                return None
            _make_plain(fd, _PRIVATE)
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
    def abandoned(cls, parent: int, name: str) -> _Staging | None:
        """The private directory of a process of this user that is gone; None for anything else."""
        with ExitStack() as undo:
            fd = _open_directory(parent, name)
            if fd is None:
                return None
            undo.callback(files.close, fd)
            if not _is_private(os.fstat(fd), stat.S_IFDIR | _PRIVATE):
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
        os.mkdir(name, _PRIVATE, dir_fd=self.fd)
        fd = files.open_directory_at(self.fd, name)
        try:
            _make_plain(fd, mode)
        except BaseException:
            files.close(fd)
            raise
        return fd

    def remove(self, *, within: float | None = None, stop: _extract.Stop | None = None) -> str:
        """Remove all that is in it, and the directory if it still has its name; lets go of it.

        Returns:
            its name, when something stays.
        """
        left = self._name
        until = None if within is None else time.monotonic() + within
        with suppress(OSError):
            failed = 0
            for name in set(os.listdir(self.fd)) - {_LOCK}:
                rest = None if until is None else max(0.0, until - time.monotonic())
                failed |= _extract.remove_tree(self.fd, os.fsencode(name), within=rest, stop=stop)
            if not failed:  # else the lock stays: it says that this is ours
                os.unlink(_LOCK, dir_fd=self.fd)
                os.rmdir(self._name, dir_fd=self.parent)
                left = ""
        files.close(self._lock)
        files.close(self.fd)
        return left


def open_directory(path: Path) -> tuple[int, bool]:
    """Open (or make) a directory, by its absolute path, to apply layers onto; and whether it holds anything.

    Raises:
        StoreError: it is not a directory, cannot be made or opened, or the way to it is another user's.
    """
    try:
        fd = _open_or_make(path)
        try:
            return fd, bool(os.listdir(fd))
        except BaseException:
            files.close(fd)
            raise
    except OSError as error:
        raise _translate(error, path) from error


def _open_or_make(path: Path) -> int:
    unreadable = False
    try:
        return path_walk.open_directory(path)
    except FileNotFoundError:
        pass
    except PermissionError:
        unreadable = True
    parent, name = path_walk.open_parent(path, follow=True)
    try:
        if unreadable:
            return _open_unreadable(parent, name)
        os.mkdir(name, _PRIVATE, dir_fd=parent)
        fd = files.open_directory_at(parent, name)
        try:
            # In another user's directory it may have been replaced by now.
            if os.fstat(fd).st_uid == os.geteuid() and not os.listdir(fd):
                _make_plain(fd, 0o755)
        except BaseException:
            files.close(fd)
            raise
        return fd
    finally:
        files.close(parent)


def _open_unreadable(parent: int, name: str) -> int:
    """Open one's own directory although its mode forbids it, as that of a layer before may; the mode stays."""
    held = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    link = f"/proc/self/fd/{held}"  # the held directory: fchmod takes no descriptor of O_PATH
    try:
        mode = stat.S_IMODE(os.fstat(held).st_mode)
        os.chmod(link, mode | _PRIVATE)
        try:
            return files.open_directory_at(held, ".")
        finally:
            os.chmod(link, mode)
    finally:
        files.close(held)


def _make_plain(fd: int, mode: int) -> None:
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


def _demand_free(parent: int, name: str) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise FileExistsError(errno.EEXIST, "exists and is not a directory", name)
        fd = files.open_directory_at(parent, name)
        try:
            if os.listdir(fd):
                raise OSError(errno.ENOTEMPTY, "exists and is not empty", name)
        finally:
            files.close(fd)


def _prefix(target: str) -> str:
    return f".{target}."


def _remove_abandoned(parent: int, target: str, stop: _extract.Stop | None) -> None:
    """Remove the private directories of unpacks to ``target`` whose process is gone."""
    for name in os.listdir(parent):
        if name.startswith(_prefix(target)) and name.endswith(_SUFFIX):
            with suppress(OSError):
                staging = _Staging.abandoned(parent, name)
                if staging is not None:
                    staging.remove(stop=stop)


def _translate(error: OSError, target: Path) -> StoreError:
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
        text = "exists and is not an empty directory: remove it or choose another"
        return StoreError(f"{target}: {text}", path=str(target))
    return files.failure(error, "unpack to", str(target))
