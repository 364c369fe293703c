"""Whether a directory may be trusted: nobody but root, its owner and who opens it may change what is in it.

Spec: docs/store-format.md 2.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection
from contextlib import suppress

from fastoci.directory import Directory
from fastoci.errors import StoreError


def enter(parent: Directory, name: str, owners: Collection[int]) -> Directory:
    """Open a directory and check what was opened.

    Args:
        owners: the users of whom one must be its owner.
    Raises:
        OSError: the disk refused, or it is not there.
        StoreError: it is not a directory, belongs to somebody else, or others may write it.
    """
    try:
        directory = parent.enter(name)
    except NotADirectoryError as cause:
        raise _no_directory(parent, name) from cause
    try:
        check(directory, owners)
    except BaseException:
        directory.close()
        raise
    return directory


def check(directory: Directory, owners: Collection[int]) -> None:
    """Refuse a directory that somebody else may change.

    Raises:
        StoreError: says who and why.
    """
    info = os.fstat(directory.fd)
    path = directory.path
    if info.st_uid not in owners:
        wanted = " or ".join(map(str, dict.fromkeys(owners)))
        raise StoreError(f"{path} belongs to user {info.st_uid}, not to {wanted}", path=path)
    if info.st_mode & stat.S_IWOTH:
        raise StoreError(f"{path} can be written by everyone ({_mode(info)})", path=path)
    if info.st_mode & stat.S_IWGRP and not _is_private(directory, info.st_gid, {info.st_uid, os.geteuid()}):
        text = f"{path} can be written by group {info.st_gid}, which may have other members ({_mode(info)})"
        raise StoreError(f"{text}: chmod g-w {path}", path=path)


def _mode(info: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(info.st_mode):04o}"


def _no_directory(parent: Directory, name: str) -> StoreError:
    path = parent.at(name)
    with suppress(OSError):
        if stat.S_ISLNK(parent.stat(name).st_mode):
            target = os.readlink(name, dir_fd=parent.fd)
            return StoreError(f"{path} is not a directory, but a symbolic link to {target}", path=path)
    return StoreError(f"{path} is not a directory", path=path)


def _is_private(directory: Directory, group: int, users: Collection[int]) -> bool:
    """Whether only one of these users is in the group, as with a umask of 002 and a group for each user.

    An access list shows as the group's mode, and may name anybody.
    """
    try:
        os.getxattr(f"/proc/self/fd/{directory.fd}", "system.posix_acl_access")
        return False
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
    import grp
    import pwd

    for user in users:
        with suppress(KeyError):  # nobody knows who is in it
            entry, account = grp.getgrgid(group), pwd.getpwuid(user)
            if (account.pw_gid, account.pw_name) == (group, entry.gr_name) and {*entry.gr_mem} <= {entry.gr_name}:
                return True
    return False
