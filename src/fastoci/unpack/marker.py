"""What a finished tree says of itself: which image it is, and whether that can be believed now.

An extended attribute of the tree's own root: nothing is beside the tree or in it, a rename takes it along, and it goes
with the tree. It counts only

1. where nobody else can have set it: as ``trusted.*``, which needs root; or as ``user.*`` on a directory of this user
   that others may not write to, or on one of root's in which all is this user's. Layers cannot set either
   (``csrc/extract/meta.c``);
2. on the very directory that it was made for, by inode and time of birth: a copy is not finished;
3. in the boot that wrote it, or when the tree was synced before.

It says nothing of what was changed in the tree since: no file is looked at. Where a file system takes no extended
attributes, there is no marker. Spec: xattr(7); docs/store-format.md 10.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from contextlib import suppress
from typing import Final

import msgspec

from fastoci import _extract, files
from fastoci.boot import boot_id
from fastoci.errors import FastociError
from fastoci.image.digest import Digest

_LOG: Final = logging.getLogger(__name__)

_NAMES: Final = ("trusted.fastoci.rootfs", "user.fastoci.rootfs")
# What a file system says that has no extended attributes, or none for this user.
_NOT_HERE: Final = frozenset({errno.EOPNOTSUPP, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS})


class Contents(msgspec.Struct, frozen=True):
    """Which tree it is: the digest of the image's manifest, and whether files have the owners that layers name.

    ``mapped``: those that a user who is not root has in user namespaces, as far as that can be; the marker has it not.
    """

    manifest: Digest
    owners: bool
    mapped: bool = False

    def is_as(self, other: Contents) -> bool:
        """Whether a tree with these contents is one with those."""
        return (self.manifest, self.owners) == (other.manifest, other.owners)

    def __str__(self) -> str:
        return f"image {self.manifest}, unpacked {'with' if self.owners else 'without'} its owners"


class Marker(msgspec.Struct, frozen=True):
    """What the tree holds; whether its files are certainly those that were unpacked; the mode that its root gets."""

    contents: Contents
    is_trusted: bool
    mode: int


def write(fd: int, contents: Contents, *, synced: bool, mode: int) -> bool:
    """Say that a tree is finished; False where that cannot be said, so that nobody will know.

    Args:
        synced: it was, all of it.
        mode: the root's, when it has another for a moment.
    Raises:
        OSError: the disk refused.
    """
    info = os.fstat(fd)
    fields = {
        "manifest": str(contents.manifest),
        "owners": contents.owners,
        "boot_id": boot_id(),
        "synced": synced,
        "inode": info.st_ino,
        "born_ns": _extract.birth_time_ns(fd),
        "mode": mode,
    }
    reason = ""
    for name in _NAMES:
        try:
            os.setxattr(fd, name, json.dumps(fields).encode())
            return True
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            reason = os.strerror(error.errno or 0)
    _LOG.info("the root of a tree takes no extended attribute (%s): it will not be known as finished", reason)
    return False


def read(fd: int) -> Marker | None:
    """What a directory says of itself; None when it says nothing, or nothing that counts."""
    for name in _NAMES:
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError, FastociError):
            text = os.getxattr(fd, name)
            if name.startswith("trusted.") or _is_ours(fd):
                return _parse(json.loads(text), fd)
    return None


def clear(fd: int) -> None:
    """Take back what a directory says of itself: it is about to be changed.

    Raises:
        OSError: it cannot be taken back.
    """
    for name in _NAMES:
        try:
            os.getxattr(fd, name)
        except OSError:
            continue
        os.removexattr(fd, name)


def _parse(fields: dict[str, object], fd: int) -> Marker | None:
    manifest, mode = fields["manifest"], fields["mode"]
    born = (fields["inode"], fields["born_ns"])
    if not isinstance(manifest, str) or not isinstance(mode, int):
        return None
    if born != (os.fstat(fd).st_ino, _extract.birth_time_ns(fd)):
        return None
    is_trusted = fields["synced"] is True or fields["boot_id"] == boot_id()
    return Marker(Contents(Digest.parse(manifest), fields["owners"] is True), is_trusted, mode)


def _is_ours(fd: int) -> bool:
    """Whether no other user can have made this directory as it is."""
    info, user = os.fstat(fd), os.geteuid()
    if info.st_uid == user and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return True
    if info.st_uid not in (user, 0, os.stat("/").st_uid):  # root has another number in a user namespace
        return False
    with os.scandir(fd) as entries:
        return all(
            entry.stat(follow_symlinks=False).st_uid == user for entry in entries if entry.name != files.LOST_AND_FOUND
        )
