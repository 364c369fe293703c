"""The file system on a block device, or in a file, as a mount that is nowhere: nobody else sees it.

A kernel must not read what strangers wrote there: who names the device or file is trusted.
Spec: Linux, Documentation/filesystems/mount_api.rst; loop(4).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from fastoci import _mount

_BLOCK: Final = 512  # of a loop device: a file system may have larger ones


def make(kind: str, source: str, options: Sequence[str], *, is_file: bool) -> int:
    """Mount it to be written to: a descriptor, and it is not mounted any more, and all is written, when that is closed.

    Args:
        options: what this kind of file system takes, as ``mount -o`` does.
        is_file: it is in a file, which a loop device shows.
    Raises:
        OSError: the kernel's answer.
    """
    given = [(key, value or None) for key, _, value in (option.partition("=") for option in options)]
    if not is_file:
        return _mount.create(kind, [("source", source), *given])
    file = os.open(source, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        device, path = _mount.attach_loop(file, _BLOCK, writable=True)
    finally:
        os.close(file)
    try:
        return _mount.create(kind, [("source", path), *given])
    finally:
        os.close(device)  # the mount keeps it
