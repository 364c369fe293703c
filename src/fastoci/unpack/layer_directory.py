"""Layer directories: a layer made alone, in the form of overlayfs, or several that are merged into one tree.

They are for overlayfs to put on top of others. A layer alone is made without the others, so layers are made in any
order and side by side, and one that several images have is made once. On top of whatever stack, it shows what the same
layer in a tree gives; where that cannot be said, the layer has ``reasons``, and it counts only together with what is
below it: those layers are one tree, made in order.
Spec: Linux Documentation/filesystems/overlayfs.rst; image-spec v1.1 layer.md; docs/layer-directories.md.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import Final

from fastoci import _extract, files
from fastoci.errors import StoreError
from fastoci.image.layer_file import ROOT, TREE, DirectoryFacts
from fastoci.unpack.layer import LayerSink
from fastoci.unpack.move import copy_metadata
from fastoci.unpack.staging import PRIVATE, make_plain

_PROBE: Final = "whiteout"  # made and removed, in an empty directory
_ORIGIN: Final = "overlay.origin"
_NOT_HERE: Final = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


class NewTree:
    """The tree of a layer directory while it grows. ``fd`` is its root.

    Args:
        directory_fd: an empty directory, which gets ``tree``, and ``root`` at the end; stays the caller's, who removes
            it with all that is in it when the layers cannot be made.
    Raises:
        StoreError: the disk refused.
    """

    def __init__(self, directory_fd: int) -> None:
        self._directory = directory_fd
        with files.translated("make", TREE):
            os.mkdir(TREE, PRIVATE, dir_fd=directory_fd)
            self.fd = files.open_directory_at(directory_fd, TREE)
            make_plain(self.fd, 0o755)

    def finish(self) -> None:
        """Close it; its root gets its like beside, empty, for stacks that need one more directory.

        Raises:
            StoreError: the disk refused.
        """
        with files.translated("make", ROOT):
            self._copy_root()
        self.close()

    def close(self) -> None:
        """Close it. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            files.close(fd)

    def _copy_root(self) -> None:
        os.mkdir(ROOT, PRIVATE, dir_fd=self._directory)
        root = files.open_directory_at(self._directory, ROOT)
        try:
            make_plain(root, PRIVATE)
            copy_metadata(self.fd, root)
            info = os.fstat(self.fd)
            os.utime(root, ns=(info.st_atime_ns, info.st_mtime_ns))
        finally:
            files.close(root)


class OverlayWriter(LayerSink):
    """A sink for the tar of one layer, in the form of overlayfs. Nothing of other layers is needed.

    A refusal (``UnpackError``) of a layer that has ``reasons`` by then may be wrong: only the layers together say it.

    Args:
        directory: the native half, of an empty directory.
        name: the layer in messages: a diff_id or a file.
    Attributes:
        implied: the directories that no entry names and lower layers may have, parents before children; known when
            ``finish`` has returned.
    """

    def __init__(self, directory: _extract.LayerDirectory, name: str) -> None:
        self._directory = directory
        self.implied: list[bytes] = []
        super().__init__(directory, name)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the directory is not exact on top of every stack; empty when it is. Known when ``finish`` has returned.

        ``implied-parent``: no entry names a directory on the way to another entry. ``hard-link``: to what only lower
        layers may have. ``whiteout``: in a directory that only lower layers may have. ``opaque-root``: it hides all of
        lower layers, which overlayfs cannot be told.
        """
        return self._directory.reasons

    @property
    def names_root(self) -> bool:
        """Whether an entry gives the root of the tree its metadata."""
        return self._directory.names_root

    def finish(self) -> None:
        """Demand the end of the tar, say what is hidden, and set the times of directories. Raises: as ``feed``."""
        super().finish()
        self.implied = self._directory.implied
        self._directory.close()


class LayerDirectoryWriter(OverlayWriter):
    """A sink for the tar of one layer, which becomes a layer directory.

    Args:
        directory_fd: an empty directory, which gets ``tree`` and ``root``; stays the caller's and must outlive this
            object.
        name: the layer in messages: a diff_id or a file.
        owners: give files to the owners that entries name.
        max_entries, max_bytes: what this layer may make.
        max_directories: what it may make or reach.
    Raises:
        StoreError: the file system has no extended attributes or no whiteouts, so it cannot hold such directories.
    """

    def __init__(
        self, directory_fd: int, *, name: str, owners: bool, max_entries: int, max_bytes: int, max_directories: int
    ) -> None:
        self._owners = owners
        self._tree = NewTree(directory_fd)
        try:
            self._user_xattrs = needs_user_xattrs(self._tree.fd)
            made = _extract.LayerDirectory(
                self._tree.fd,
                owners=owners,
                privileged=os.geteuid() == 0,
                user_xattrs=self._user_xattrs,
                max_entries=max_entries,
                max_bytes=max_bytes,
                max_directories=max_directories,
            )
        except BaseException:
            self._tree.close()
            raise
        super().__init__(made, name)

    @property
    def facts(self) -> DirectoryFacts:
        """What it made, when ``finish`` has returned."""
        return DirectoryFacts(
            entries=self.entries,
            size=self.bytes,
            reasons=self.reasons,
            owners=self._owners,
            user_xattrs=self._user_xattrs,
            names_root=self.names_root,
        )

    def finish(self) -> None:
        """As ``OverlayWriter``'s; then the directory is whole. Raises: as ``feed``."""
        super().finish()
        self._tree.finish()

    def abort(self) -> None:
        """Close every descriptor, idempotent; what was made is the caller's to remove."""
        super().abort()
        self._tree.close()


def needs_user_xattrs(directory_fd: int) -> bool:
    """Whether this process tells overlayfs by ``user.overlay.*``: it may not set ``trusted.*``.

    Args:
        directory_fd: an empty directory of this user, where that is tried.
    Raises:
        StoreError: the file system cannot hold directories for overlayfs.
    """
    try:
        os.mknod(_PROBE, stat.S_IFCHR, 0, dir_fd=directory_fd)
        os.unlink(_PROBE, dir_fd=directory_fd)
        with suppress(PermissionError):
            _try_xattr(directory_fd, f"trusted.{_ORIGIN}")
            return False
        _try_xattr(directory_fd, f"user.{_ORIGIN}")
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise files.failure(error, "make whiteouts in", TREE) from error
        text = f"the file system of the store cannot hold directories for overlayfs ({error.strerror})"
        raise StoreError(f"{text}: choose other layers (--layers)", path="") from error
    return True


def _try_xattr(directory_fd: int, name: str) -> None:
    os.setxattr(directory_fd, name, b"")
    os.removexattr(directory_fd, name)
