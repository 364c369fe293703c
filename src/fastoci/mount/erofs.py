"""Merged metadata and its layer files as one EROFS: from the files themselves, or by loop devices.

Which way is the kernel's to say, by its errno: versions say little of what distributions build. Only descriptors are
taken, of files that the caller trusts: a kernel must not read the metadata of strangers.
Spec: Linux, Documentation/filesystems/erofs.rst.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from fastoci import _mount
from fastoci.mount.way import Way

_BLOCK: Final = 512  # of a loop device: a file system may have larger ones


def make(metadata: int, devices: Sequence[int]) -> tuple[int, Way]:
    """Make the file system; a descriptor of its mount, which is nowhere yet, and how it is read.

    Args:
        metadata, devices: files that are open for reading, the devices in the order of their slots.
    Raises:
        OSError: the kernel's answer.
    """
    try:
        return _create([f"/proc/self/fd/{fd}" for fd in (metadata, *devices)]), "file-backed"
    except OSError as error:
        if error.errno != errno.ENOTBLK:  # a kernel before 6.12, or the files are on tmpfs or overlayfs
            raise
    with ExitStack() as held:
        paths = []
        for file in (metadata, *devices):
            fd, path = _mount.attach_loop(file, _BLOCK)
            held.callback(os.close, fd)  # the mount keeps the device from then on
            paths.append(path)
        return _create(paths), "loop"


def _create(paths: Sequence[str]) -> int:
    options: list[tuple[str, str | int | None]] = [("ro", None), ("source", paths[0])]
    options += [("device", path) for path in paths[1:]]
    return _mount.create("erofs", options, attributes=_mount.READ_ONLY)


def probe() -> tuple[Way | None, str]:
    """Which way this process has, as far as the kernel says without a file; and why none, or not the first.

    Nothing is mounted, and the kernel logs nothing: it is asked to open a socket as an EROFS. It says ENXIO when it
    opens files at all, and before that what else is missing.
    """
    ends = socket.socketpair()
    try:
        os.close(_create([f"/proc/self/fd/{ends[0].fileno()}"]))
    except OSError as error:
        refused = error
    finally:
        for end in ends:
            end.close()
    if refused.errno == errno.ENXIO:
        return "file-backed", ""
    if refused.errno != errno.ENOTBLK:
        return None, reason(refused)
    try:
        os.close(os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return None, f"/dev/loop-control: {error.strerror}"
    return "loop", "the kernel mounts no files"


def reason(error: OSError) -> str:
    """What the kernel's answer to an EROFS means to people."""
    if error.errno == errno.ENODEV:
        return "the kernel has no EROFS"
    if error.errno == errno.EPERM:
        return "mounting EROFS needs CAP_SYS_ADMIN"
    if error.errno == errno.ENOSYS:
        return "the kernel is older than 5.2"
    return f"{'a loop device' if error.filename == 'loop' else 'EROFS'}: {error.strerror}"
