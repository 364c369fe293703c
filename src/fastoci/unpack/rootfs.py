"""A rootfs while it grows: under a private name beside its final one, renamed when every diff_id holds.

The tree is not synced: it is never taken as a cache, so after a power cut nobody trusts it (``docs/store-format.md``).
What a killed process left is removed by the next unpack to the same place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from fastoci.errors import StoreError, StoreFullError


class Rootfs:
    """One tree under construction. ``fd`` is its root. End it with ``publish`` or ``discard``.

    ``staging`` is a 0700 directory that holds ``rootfs``, and a directory for each layer that is made aside; an flock
    on it says that its owner lives.
    """

    def __init__(self, target: Path, staging: Path, lock_fd: int, fd: int) -> None:
        self.target = target
        self._staging = staging
        self._lock_fd = lock_fd
        self.fd = fd

    @classmethod
    def begin(cls, target: Path) -> Rootfs:
        """Make the private directory beside ``target``.

        Raises:
            StoreError: ``target`` exists and is not an empty directory, or its parent cannot be written.
        """
        target = Path(os.path.abspath(target))
        lock_fd = -1
        try:
            _demand_free(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(target)
            staging, lock_fd = _make_locked(target)
            (staging / "rootfs").mkdir(mode=0o755)
            os.chmod(staging / "rootfs", 0o755)  # whatever the umask
            fd = os.open(staging / "rootfs", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if lock_fd >= 0:
                remove_tree(staging)
                os.close(lock_fd)
            raise _translate(error, target) from error
        return cls(target, staging, lock_fd, fd)

    def stage(self, number: int) -> int:
        """Make an empty directory beside the tree for the files of one layer; its descriptor.

        Raises:
            StoreError: the disk refused.
        """
        directory = self._stage(number)
        try:
            directory.mkdir(mode=0o700)
            return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _translate(error, self.target) from error

    def unstage(self, number: int) -> None:
        """Remove such a directory and what is left in it."""
        remove_tree(self._stage(number))

    def _stage(self, number: int) -> Path:
        return self._staging / f"layer{number}"

    def publish(self) -> None:
        """Give the tree its final name. Closes, also on error.

        Raises:
            StoreError: the name was taken meanwhile, or the disk refused.
        """
        try:
            os.rename(self._staging / "rootfs", self.target)  # replaces an empty directory, nothing else
        except OSError as error:
            raise _translate(error, self.target) from error
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what is left under the private name; idempotent."""
        if self.fd < 0:
            return
        close(self.fd)
        self.fd = -1
        remove_tree(self._staging)
        close(self._lock_fd)


def close(fd: int) -> None:
    """Close a directory, or a file that was read; nothing depends on what the disk says then."""
    with suppress(OSError):
        os.close(fd)


def open_directory(path: Path) -> tuple[int, bool]:
    """Open (or make) a directory to apply layers onto; its descriptor, and whether it holds anything.

    Raises:
        StoreError: it is no directory, or cannot be made or opened.
    """
    try:
        path.mkdir(mode=0o755, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return fd, bool(os.listdir(fd))
    except OSError as error:
        raise _translate(error, path) from error


def remove_tree(top: Path) -> None:
    """Remove a directory and all below it, however deep, without recursion.

    A directory is emptied by moving its subdirectories up to ``top``, so no path grows longer than two names and
    nothing leaves ``top``. What cannot be removed stays.
    """
    token = secrets.token_hex(8)
    moved = 0
    pending = [top]
    while pending:
        directory = pending.pop()
        with suppress(OSError), os.scandir(directory) as entries:
            for entry in entries:
                with suppress(OSError):
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.path)
                        continue
                    os.chmod(entry.path, 0o700)  # one's own read-only directories
                    moved += 1
                    aside = top / f"{token}.{moved}"
                    os.rename(entry.path, aside)
                    pending.append(aside)
        if directory != top:
            with suppress(OSError):
                os.rmdir(directory)
    with suppress(OSError):
        os.rmdir(top)


def _demand_free(target: Path) -> None:
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.lstat(target).st_mode):
            raise FileExistsError(errno.EEXIST, "exists and is not a directory", str(target))
        if os.listdir(target):
            raise OSError(errno.ENOTEMPTY, "exists and is not empty", str(target))


def _make_locked(target: Path) -> tuple[Path, int]:
    """Make a private directory beside ``target`` and lock it; its path and the lock's descriptor.

    An unpack that comes between the two takes it for abandoned and removes it: then another is made.
    """
    while True:
        staging = target.parent / f".{target.name}.{secrets.token_hex(8)}.fastoci"
        staging.mkdir(mode=0o700)
        try:
            lock_fd = _lock(staging)
        except OSError:
            with suppress(OSError):
                os.rmdir(staging)
            raise
        if lock_fd is not None:
            return staging, lock_fd


def _lock(directory: Path) -> int | None:
    """Lock a directory; None when it is gone."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # whoever removes it has the lock meanwhile
        if os.path.samestat(os.lstat(directory), os.fstat(fd)):
            return fd
    except FileNotFoundError:
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _remove_abandoned(target: Path) -> None:
    """Remove the private directories of unpacks to ``target`` whose process is gone."""
    for entry in os.scandir(target.parent):
        if not (entry.name.startswith(f".{target.name}.") and entry.name.endswith(".fastoci")):
            continue
        if not entry.is_dir(follow_symlinks=False):
            continue
        with suppress(OSError):
            fd = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(Path(entry.path))
            finally:
                os.close(fd)


def _translate(error: OSError, target: Path) -> StoreError:
    text = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFullError(f"{target}: {text}: free space and run again", path=str(target))
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
        text = "exists and is not an empty directory: remove it or choose another"
    return StoreError(f"{target}: {text}", path=str(target))
