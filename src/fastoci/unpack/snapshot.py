"""One layer's tar into the snapshot of another tool, which made its root: sinks as those of our own trees.

An entry of the root is passed over, as that tool's own unpacking does it. A device 0:0, which overlayfs reads as a
whiteout, is one in every form. Spec: image-spec v1.1 layer.md; containerd pkg/archive.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from fastoci import _extract, files
from fastoci.unpack.layer import LayerSink
from fastoci.unpack.layer_directory import OverlayWriter
from fastoci.unpack.move import copy_metadata, move

_MARKS: Final = ("overlay.opaque", "overlay.origin")
_NOTHING: Final = -1


class Bounds(msgspec.Struct, frozen=True):
    """What a layer may make: entries, bytes of files; and directories that it makes or reaches."""

    max_entries: int
    max_bytes: int
    max_directories: int


class UpperWriter(OverlayWriter):
    """A sink for the tar of one layer, in the form of overlayfs.

    Args:
        root_fd: an empty directory; stays the caller's and must outlive this object.
        name: the layer in messages.
        user_xattrs: overlayfs is told by ``user.overlay.*``.
        unknown_lowers: lower layers are there, and nobody will say what they have.
    """

    def __init__(
        self, root_fd: int, *, name: str, user_xattrs: bool, bounds: Bounds, unknown_lowers: bool = False
    ) -> None:
        is_root, limits = os.geteuid() == 0, msgspec.structs.asdict(bounds)
        directory = _extract.LayerDirectory(
            root_fd,
            owners=is_root,
            privileged=is_root,
            user_xattrs=user_xattrs,
            snapshot=True,
            unknown_lowers=unknown_lowers,
            **limits,
        )
        super().__init__(directory, name)


class MergedViewWriter(LayerSink):
    """A sink for the tar of one layer, onto what lower layers hold.

    Args:
        root_fd: the directory; stays the caller's and must outlive this object.
        name: the layer in messages.
    """

    def __init__(self, root_fd: int, *, name: str, bounds: Bounds) -> None:
        is_root, limits = os.geteuid() == 0, msgspec.structs.asdict(bounds)
        base = bool(os.listdir(root_fd))
        extractor = _extract.Extractor(root_fd, owners=is_root, privileged=is_root, base=base, snapshot=True, **limits)
        super().__init__(extractor, name)


def clear(directory_fd: int, *, stop: _extract.Stop) -> None:
    """Remove all that was made in a directory, and what overlayfs was told of it.

    Raises:
        StoreError: the disk refused.
    """
    with files.translated("clear", "a snapshot"):
        for name in os.listdir(directory_fd):
            if code := _extract.remove_tree(directory_fd, os.fsencode(name), stop=stop):
                raise OSError(-code, os.strerror(-code), name)
        for mark in _MARKS:
            for space in ("trusted", "user"):
                with suppress(OSError):
                    os.removexattr(directory_fd, f"{space}.{mark}")


def mend(upper_fd: int, lowers_fd: int, implied: Sequence[bytes]) -> bool:
    """Give directories that no entry of a layer names what lower layers say of them, their times too.

    Args:
        upper_fd: what the layer made.
        lowers_fd: what lower layers hold together.
        implied: paths of directories of the layer, parents before children.
    Returns:
        False: a path is something else than a directory below, so the layer counts only together with lower layers.
    Raises:
        StoreError: the disk refused.
    """
    with files.translated("mend", "the directories of a snapshot"):
        for path in implied:
            below = _open_below(lowers_fd, path)
            if below is None:
                return False
            if below == _NOTHING:
                continue
            try:
                _copy_directory(below, upper_fd, path)
            finally:
                files.close(below)
    return True


def _open_below(root: int, path: bytes) -> int | None:
    """A directory below, without a link on the way; ``_NOTHING`` where nothing is, None where something else is."""
    fd = os.dup(root)
    try:
        for name in path.split(b"/"):
            try:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                return _NOTHING
            if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:  # a whiteout, of the only lower layer
                return _NOTHING
            if not stat.S_ISDIR(info.st_mode):
                return None
            parent, fd = fd, os.open(name, files.DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            files.close(parent)
        found, fd = fd, _NOTHING
        return found
    finally:
        if fd != _NOTHING:
            files.close(fd)


def _copy_directory(below: int, upper_fd: int, path: bytes) -> None:
    info = os.fstat(below)
    fd = os.dup(upper_fd)
    try:
        for name in path.split(b"/"):
            parent, fd = fd, os.open(name, files.DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            files.close(parent)
        copy_metadata(below, fd)
        os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))
    finally:
        files.close(fd)


def move_all(source: int, target: int) -> None:
    """Move what was made in one directory to another of the same file system, and what overlayfs was told of it.

    Raises:
        StoreError: the disk refused.
    """
    with files.translated("move", "a layer from one snapshot to another"):
        for name in os.listdir(source):
            move(name, source, target)
        for mark in (f"{space}.{mark}" for space in ("trusted", "user") for mark in _MARKS):
            with suppress(OSError):
                os.setxattr(target, mark, os.getxattr(source, mark))
