"""The files of a content store, as far as this process reaches them: blobs come there past containerd's socket.

A hard link shares a file with the store that it comes from. Where there can be none, a copy gets its name when it is
whole, so nothing is left under any other name, wherever the process is killed. What has its name and is not recorded
is swept by containerd; it is never deleted here while containerd may see it: somebody else may have recorded it.
Spec: containerd, content/local (``blobs/ALGORITHM/HEX``); linkat(2), open(2) ``O_TMPFILE``, ioctl_ficlone(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from fastoci import files, path_walk
from fastoci.containerd.places import demand_same
from fastoci.directory import Directory
from fastoci.errors import StoreError
from fastoci.image.descriptor import Descriptor

Way = Literal["link", "reflink", "copy"]
Check = Callable[[], None]

_FICLONE: Final = 0x40049409
_NO_LINK: Final[Mapping[int, str]] = {
    errno.EXDEV: "it is on another file system, or mounted apart",
    errno.EMLINK: "the file has as many links as it can have",
    errno.EPERM: "its file system takes no links to this file",
    errno.EACCES: "its file system takes no links to this file",
    errno.EOPNOTSUPP: "its file system has no links",
}
_NO_CLONE: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})


class Placed(msgspec.Struct, frozen=True):
    """A blob's file is there: by which way, and why by none before it. ``is_new``: it was put there just now."""

    way: Way
    why: str
    is_new: bool


class BlobFiles:
    """The ``blobs`` of a content store. Used from threads; ``close`` when no work runs any more.

    Args:
        root: the content store's directory.
        owner: the user that containerd runs as: others' directories are not written.
        pid: containerd's, 0 when it is not known.
    Raises:
        StoreError: it cannot be reached, is another user's, or another directory than containerd's.
    """

    def __init__(self, root: Path, owner: int, pid: int) -> None:
        with files.translated("open the content store", str(root)):
            self._top = Directory(_open_top(root, owner, pid), str(root))
        self._owner = owner
        self._held: dict[str, Directory] = {}
        try:
            self._demand_owner(self._top)
            demand_same(self._top.path, self._top.fd, pid)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the directories. Idempotent."""
        for directory in (self._top, *self._held.values()):
            directory.close()
        self._held = {}

    def holds(self, blob: Descriptor) -> bool:
        """Whether a file of the blob's size has its name.

        Raises:
            StoreError: the disk refused to tell.
        """
        path = self._path(blob)
        with files.translated("stat", path), suppress(FileNotFoundError):
            info = self._directory(blob.digest.algorithm).stat(blob.digest.hex)
            return stat.S_ISREG(info.st_mode) and info.st_size == blob.size
        return False

    def put(self, blob: Descriptor, source: int, check: Check) -> Placed:
        """Have a blob there, durably. A file of its name and size stays as it is.

        Args:
            source: an open file that has the verified bytes.
            check: called now and then; what it raises ends the copy.
        Raises:
            StoreError: the disk refused, or something else has the name.
        """
        path = self._path(blob)
        with files.translated("put a blob at", path, wanted=blob.size):
            directory = self._make(blob.digest.algorithm)
            os.fdatasync(source)  # once it is recorded, it must outlive a power cut
            why = self._why_not_shared(source)
            placed = None
            if not why:
                placed, why = _link(source, directory, blob)
            if placed is None:
                placed = _copy(source, directory, blob, why, check)
            if placed.is_new:
                files.sync_directory(directory.fd)
                return placed
        if not self.holds(blob):
            text = f"{path} is not the {blob.size} bytes of its blob: containerd's content store is damaged"
            raise StoreError(text, path=path)
        return placed

    def _why_not_shared(self, source: int) -> str:
        """Why a file of the store must not be the content store's own: its owner could change it in place."""
        info = os.fstat(source)
        if info.st_uid not in (0, self._owner):
            return f"the store's file belongs to user {info.st_uid}"
        return "others may write the store's file" if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else ""

    def _path(self, blob: Descriptor) -> str:
        return f"{self._top.path}/blobs/{blob.digest.algorithm}/{blob.digest.hex}"

    def _make(self, algorithm: str) -> Directory:
        try:
            return self._directory(algorithm)
        except FileNotFoundError:
            if os.geteuid() != self._owner:  # it must be containerd's
                raise
        files.make_directory(self._top, "blobs", 0o755)
        files.make_directory(self._enter("blobs", self._top), algorithm, 0o755)
        return self._directory(algorithm)

    def _directory(self, algorithm: str) -> Directory:
        return self._enter(f"blobs/{algorithm}", self._enter("blobs", self._top))

    def _enter(self, name: str, parent: Directory) -> Directory:
        held = self._held.get(name)
        if held is None:
            held = parent.enter(name.rpartition("/")[2])
            try:
                self._demand_owner(held)
            except BaseException:
                held.close()
                raise
            other = self._held.setdefault(name, held)
            if other is not held:
                held.close()
            held = other
        return held

    def _demand_owner(self, directory: Directory) -> None:
        info, path = os.fstat(directory.fd), directory.path
        if info.st_uid != self._owner:
            text = f"{path} belongs to user {info.st_uid}, and containerd runs as {self._owner}"
            raise StoreError(text, path=path)
        if info.st_mode & stat.S_IWOTH:
            raise StoreError(f"{path} can be written by everyone", path=path)


def _open_top(root: Path, owner: int, pid: int) -> int:
    """The content store's directory, which a containerd 1.7 that has had no blob yet has not made."""
    try:
        return path_walk.open_directory(root)
    except FileNotFoundError:
        if os.geteuid() != owner:  # it must be containerd's
            raise
    parent, name = path_walk.open_parent(root)
    try:
        demand_same(str(root.parent), parent, pid)
        files.make_directory_at(parent, name, 0o755)
    finally:
        os.close(parent)
    return path_walk.open_directory(root)


def _link(source: int, directory: Directory, blob: Descriptor) -> tuple[Placed | None, str]:
    try:
        return Placed("link", "", _give_name(source, directory, blob)), ""
    except OSError as error:
        if (why := _NO_LINK.get(error.errno or 0)) is None:
            raise
        return None, why


def _copy(source: int, directory: Directory, blob: Descriptor, why: str, check: Check) -> Placed:
    """Copy a file, by reference where the file system can, into one without a name, and give it the name."""
    if directory.has(blob.digest.hex):
        return Placed("link", why, is_new=False)
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory.fd)
    try:
        way: Way = "reflink" if _clone(source, fd) else "copy"
        if way == "copy":
            files.copy_all(source, fd, blob.size, check)
        if os.fstat(fd).st_size != blob.size:
            raise OSError(errno.EIO, f"a blob of {blob.size} bytes has others")
        os.fchmod(fd, 0o444)
        os.fdatasync(fd)
        return Placed(way, why, _give_name(fd, directory, blob))
    finally:
        os.close(fd)


def _give_name(fd: int, directory: Directory, blob: Descriptor) -> bool:
    """Give an open file its name; False when something has that."""
    try:
        files.link_open_at(fd, directory.fd, blob.digest.hex)
    except FileExistsError:
        return False
    return True


def _clone(source: int, fd: int) -> bool:
    try:
        fcntl.ioctl(fd, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
        return False
    return True
