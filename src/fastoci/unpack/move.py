"""What a rename alone does not do: moving names between directories of a tree, and a root's metadata to another root.

Whoever moves a directory to another writes to it: its "..". Root may, whatever the mode; others need it widened.
Spec: rename(2).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from fastoci import files

_OVERLAY: Final = ("trusted.overlay.", "user.overlay.")
_PINNED: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def move(name: str, source: int, target: int) -> None:
    """Move a name from one directory to another of the same file system; replaces what rename(2) replaces.

    Raises:
        OSError: the disk refused.
    """
    held = os.open(name, _PINNED, dir_fd=source)
    try:
        with writable(held):
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    finally:
        files.close(held)


@contextmanager
def writable(fd: int) -> Iterator[None]:
    """Let this user write to a directory for a moment. ``fd`` may be of O_PATH, and of anything else than a directory.

    Raises:
        OSError: its mode forbids it, and cannot be changed.
    """
    info = os.fstat(fd)
    mode = stat.S_IMODE(info.st_mode)
    if not stat.S_ISDIR(info.st_mode) or os.geteuid() == 0 or mode & stat.S_IWUSR:
        yield
        return
    link = f"/proc/self/fd/{fd}"  # the held directory: fchmod takes no descriptor of O_PATH
    os.chmod(link, mode | stat.S_IWUSR)
    yield
    os.chmod(link, mode)


def copy_metadata(source: int, target: int) -> None:
    """Give one directory the owner, the attributes and the mode of another, as far as this user may.

    What overlayfs was told of it stays its own.
    """
    info = os.fstat(source)
    with suppress(PermissionError):
        if (info.st_uid, info.st_gid) != (os.fstat(target).st_uid, os.fstat(target).st_gid):
            os.fchown(target, info.st_uid, info.st_gid)
    for name in os.listxattr(source):
        if name.startswith(_OVERLAY):
            continue
        with suppress(OSError):
            os.setxattr(target, name, os.getxattr(source, name))
    with suppress(PermissionError):
        os.fchmod(target, stat.S_IMODE(info.st_mode))
