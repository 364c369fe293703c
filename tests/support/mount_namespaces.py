"""A mount namespace of a test's own, with an empty ``/run``: what it mounts is nobody else's, and ends with it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastoci import mountinfo
from support.disks import mount

_NEW_MOUNTS, _OWN_DIRECTORIES = 0x20000, 0x200  # CLONE_NEWNS, CLONE_FS
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def mount_namespace() -> Iterator[None]:
    """This thread, and what it starts, is in a mount namespace of its own; skips where that cannot be."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    before, directory = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY), os.getcwd()
    try:
        if _LIBC.unshare(_NEW_MOUNTS):
            pytest.skip(f"needs a mount namespace: {os.strerror(ctypes.get_errno())}")
        try:
            mount("--make-rprivate", "/")
            for other in filter(mountinfo.image_of, mountinfo.mounts()):  # another test's, copied with all the rest
                subprocess.run(["umount", "--lazy", other.point], check=True)
            mount("-t", "tmpfs", "tmpfs", "/run")
            yield
        finally:
            assert _LIBC.unshare(_OWN_DIRECTORIES) == 0
            assert _LIBC.setns(before, _NEW_MOUNTS) == 0, os.strerror(ctypes.get_errno())
            os.chdir(directory)
    finally:
        os.close(before)


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fails when a mount is left that was not there before, or a loop device of a file that is gone.

    A device of a file that is there may be another test's.
    """
    mounts, loops = _mounts(), _loops()
    yield
    assert _mounts() - mounts == set(), "mounts are left"
    until = time.monotonic() + 10
    while (left := _loops() - loops) and time.monotonic() < until:  # the kernel lets go of a device a little later
        time.sleep(0.01)
    assert left == set(), "loop devices are left"


def _mounts() -> set[str]:
    return {f"{each.id} {each.kind} {each.point}" for each in mountinfo.mounts()}


def _loops() -> set[str]:
    found = set()
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = path.read_text().strip()
        except OSError:  # it went meanwhile
            continue
        if backing.endswith("(deleted)"):
            found.add(f"{path.parts[3]} {backing}")
    return found
