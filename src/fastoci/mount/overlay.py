"""An overlay: read-only directories one above the other, and perhaps one on top that is written to.

All directories are given by descriptors. Kernels before 6.13 take only text: there ``/proc/self/fd/N`` is the text,
which is short enough for 200 directories in the 4 KiB of mount(2), and leads where the descriptor leads.
Spec: Linux, Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from fastoci import _mount
from fastoci.mount.point import Point

_OPTIONS: Final = 4095  # bytes that mount(2) takes
_MS_RDONLY: Final = 1
# An upper directory that any tool can read: nothing in it is a reference to what is elsewhere. One number of device for
# all files, so that `du -x` counts them.
_PLAIN: Final = (("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"), ("xino", "on"))


class Overlay(msgspec.Struct, frozen=True, kw_only=True):
    """What an overlay is made of.

    Attributes:
        lowers: directories, the topmost first; without ``upper`` two at least.
        upper: the directory that is written to, and ``work``, an empty one of the same file system.
        source: what the list of mounts shows.
        context: the SELinux label of all files.
        user_xattrs: whiteouts and opaque directories are marked as unprivileged users can mark them.
    """

    lowers: Sequence[int]
    source: str
    upper: int | None = None
    work: int | None = None
    context: str = ""
    user_xattrs: bool = False


def probe() -> str:
    """Why this process cannot mount an overlay; empty when it can. The kernel is asked for one of nothing."""
    try:
        os.close(_mount.create("overlay", []))
    except OSError as error:
        if error.errno == errno.EPERM:
            return "mounting an overlay needs CAP_SYS_ADMIN"
        if error.errno in (errno.ENODEV, errno.ENOSYS):
            return f"the kernel has no {'overlayfs' if error.errno == errno.ENODEV else error.filename}"
    return ""


def attach(overlay: Overlay, point: Point) -> None:
    """Mount an overlay.

    Raises:
        OSError: the kernel's answer.
    """
    mount = _create(overlay)
    if mount is None:
        attach_by_text(overlay, point)
    else:
        point.attach(mount)


def make(overlay: Overlay) -> int:
    """Make an overlay that is nowhere: a descriptor of it, and it is gone when that is closed.

    Raises:
        OSError: as ``attach``.
    """
    mount = _create(overlay)
    return make_by_text(overlay) if mount is None else mount


def make_by_text(overlay: Overlay) -> int:
    """``make`` with kernels before 6.13: for a moment it is mounted, where only this user can go.

    Raises:
        OSError: as ``attach_by_text``.
    """
    import tempfile  # which a kernel of today does not need

    with tempfile.TemporaryDirectory(prefix="fastoci-") as place, Point.at(Path(place, "at"), make=True) as point:
        attach_by_text(overlay, point)
        try:
            root = point.open()
            try:
                return _mount.clone(root)
            finally:
                os.close(root)
        finally:
            point.unmount()


def _create(overlay: Overlay) -> int | None:
    """By descriptors; None where the kernel takes only text."""
    try:
        attributes = _mount.READ_ONLY if overlay.upper is None else 0
        return _mount.create("overlay", _options(overlay), attributes=attributes)
    except OSError as error:
        if error.errno != errno.EINVAL or error.filename != "lowerdir+":
            raise
        return None


def attach_by_text(overlay: Overlay, point: Point) -> None:
    """Mount an overlay as kernels before 6.13 take it.

    Raises:
        OSError: the kernel's answer; ``E2BIG`` where there are too many directories for it.
    """
    options = [("lowerdir", ":".join(f"/proc/self/fd/{fd}" for fd in overlay.lowers))]
    options += [(key, f"/proc/self/fd/{fd}") for key, fd in _writable(overlay)]
    options += [*_PLAIN]
    if overlay.context:
        options.append(("context", f'"{overlay.context}"'))
    text = ",".join(f"{key}={value}" for key, value in options) + (",userxattr" if overlay.user_xattrs else "")
    if len(os.fsencode(text)) > _OPTIONS:
        raise OSError(errno.E2BIG, f"{len(overlay.lowers)} directories are too many for this kernel", "lowerdir")
    _mount.mount(overlay.source, point.proc_path, "overlay", _MS_RDONLY if overlay.upper is None else 0, text)


def _options(overlay: Overlay) -> list[tuple[str, str | int | None]]:
    options: list[tuple[str, str | int | None]] = [("source", overlay.source)]
    options += [("lowerdir+", fd) for fd in overlay.lowers]
    options += [*_writable(overlay), *_PLAIN]
    if overlay.context:
        options.append(("context", overlay.context))
    if overlay.user_xattrs:
        options.append(("userxattr", None))
    return options


def _writable(overlay: Overlay) -> list[tuple[str, int]]:
    if overlay.upper is None or overlay.work is None:
        return []
    return [("upperdir", overlay.upper), ("workdir", overlay.work)]
