"""A layer as a directory of its own, in the form of overlayfs: a sink over the native ``LayerDirectory``.

The directory is for overlayfs to put on top of others. It is made without them, so layers are made in any order and
side by side, and one that several images have is made once. On top of whatever stack, it shows what the same layer in a
tree gives; where that cannot be said, the layer has ``reasons``, and it counts only together with what is below it.
Spec: Linux Documentation/filesystems/overlayfs.rst; image-spec v1.1 layer.md.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from fastoci import _extract, files
from fastoci.errors import StoreError
from fastoci.unpack.layer import LayerSink

_PROBE: Final = "whiteout"  # made and removed, in an empty directory
_ORIGIN: Final = "overlay.origin"
_NO_RIGHT: Final = frozenset({errno.EPERM, errno.EACCES})


class LayerDirectoryWriter(LayerSink):
    """A sink for the tar of one layer. Nothing of other layers is needed.

    A refusal (``UnpackError``) of a layer that has ``reasons`` by then may be wrong: only the layers together say it.

    Args:
        directory_fd: an empty directory; stays the caller's and must outlive this object.
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
        self.user_xattrs = needs_user_xattrs(directory_fd)
        self._directory = _extract.LayerDirectory(
            directory_fd,
            owners=owners,
            privileged=os.geteuid() == 0,
            user_xattrs=self.user_xattrs,
            max_entries=max_entries,
            max_bytes=max_bytes,
            max_directories=max_directories,
        )
        super().__init__(self._directory, name)

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
        """Whether an entry gives the root its metadata: overlayfs shows the root of the topmost directory."""
        return self._directory.names_root

    def finish(self) -> None:
        """Demand the end of the tar, say what is hidden, and set the times of directories. Raises: as ``feed``."""
        super().finish()
        self._directory.close()


def needs_user_xattrs(directory_fd: int) -> bool:
    """Whether this process tells overlayfs by ``user.overlay.*``: it may not set ``trusted.*``.

    A mount of such directories has the option ``userxattr``.

    Args:
        directory_fd: an empty directory of this user, where that is tried.
    Raises:
        StoreError: the file system cannot hold directories for overlayfs.
    """
    try:
        os.mknod(_PROBE, stat.S_IFCHR, 0, dir_fd=directory_fd)
        os.unlink(_PROBE, dir_fd=directory_fd)
        for space in ("trusted", "user"):
            try:
                os.setxattr(directory_fd, f"{space}.{_ORIGIN}", b"")
            except OSError as error:
                if space == "user" or error.errno not in _NO_RIGHT:
                    raise
            else:
                os.removexattr(directory_fd, f"{space}.{_ORIGIN}")
                return space == "user"
    except OSError as error:
        raise _refused(error) from error
    raise AssertionError("one of them was set, or refused")


def _refused(error: OSError) -> StoreError:
    if error.errno in _NO_RIGHT or error.errno in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
        text = f"the file system of the store cannot hold directories for overlayfs ({error.strerror})"
        return StoreError(f"{text}: choose other layers (--layers)", path="")
    return files.failure(error, "make a layer directory in", "the store")
