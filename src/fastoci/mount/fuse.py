"""Mounts by programs that are installed: erofsfuse and fuse-overlayfs, for users who may not mount.

They get descriptors, and open them before they go into the background.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

from fastoci.errors import MountError
from fastoci.mount.overlay import Overlay
from fastoci.mount.point import Point

_WAIT_S: Final = 60.0
EROFS: Final = "erofsfuse"
OVERLAY: Final = "fuse-overlayfs"


def missing(program: str) -> str:
    """Why a program cannot mount here; empty when it can."""
    if shutil.which(program) is None:
        return f"{program} is not installed"
    return "" if os.access("/dev/fuse", os.R_OK | os.W_OK) else "/dev/fuse cannot be opened"


def attach_erofs(metadata: int, devices: Sequence[int], *, source: str, point: Point) -> None:
    """Mount merged metadata and its layer files.

    Raises:
        MountError: erofsfuse failed; its last line says why.
    """
    options = [f"--device=/proc/self/fd/{fd}" for fd in devices]
    _run(
        [EROFS, *options, "-o", ",".join([f"fsname={source}", *_for_others()]), f"/proc/self/fd/{metadata}"],
        point,
        (metadata, *devices),
    )


def attach_overlay(overlay: Overlay, point: Point) -> None:
    """Mount an overlay.

    Raises:
        MountError: fuse-overlayfs failed; its last line says why.
    """
    options = ["lowerdir=" + ":".join(f"/proc/self/fd/{fd}" for fd in overlay.lowers)]
    given = tuple(overlay.lowers)
    if overlay.upper is not None and overlay.work is not None:
        options += [f"upperdir=/proc/self/fd/{overlay.upper}", f"workdir=/proc/self/fd/{overlay.work}"]
        given += (overlay.upper, overlay.work)
    _run([OVERLAY, "-o", ",".join(options)], point, given)


def unmount(point: Point) -> bool:
    """Take away a mount of FUSE as its user may; whether that was possible.

    Raises:
        MountError: no program for it is installed.
    """
    program = shutil.which("fusermount3") or shutil.which("fusermount")
    if program is None:
        raise MountError(f"{point.path}: fusermount3 is not installed", path=point.path)
    done = subprocess.run([program, "-u", point.path], capture_output=True, check=False, timeout=_WAIT_S)
    return done.returncode == 0


def _for_others() -> list[str]:
    """Other users may come in where root mounts, as with a mount of the kernel."""
    return ["allow_other", "default_permissions"] if os.geteuid() == 0 else []


def _run(command: Sequence[str], point: Point, given: Sequence[int]) -> None:
    done = subprocess.run(
        [*command, point.path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=given,
        check=False,
        timeout=_WAIT_S,
    )
    if done.returncode:
        lines = done.stdout.decode(errors="backslashreplace").strip().splitlines()
        why = lines[-1] if lines else f"it ended with {done.returncode}"
        raise MountError(f"{point.path}: {command[0]}: {why}", path=point.path)
