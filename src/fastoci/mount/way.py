"""The ways in which an image is mounted; of a tree nothing is."""

from __future__ import annotations

from typing import Literal

from fastoci.mountinfo import Mount

Way = Literal["file-backed", "loop", "fuse", "overlay", "fuse-overlayfs", "tree"]


def way_of(mount: Mount) -> Way | None:
    """The way of a mount, as the kernel lists it; None of what is none of them."""
    if mount.kind == "erofs":
        return "loop" if mount.source.startswith("/dev/") else "file-backed"
    if mount.kind in ("fuse", "fuse.erofsfuse"):
        return "fuse"
    if mount.kind == "fuse.fuse-overlayfs":
        return "fuse-overlayfs"
    return "overlay" if mount.kind == "overlay" else None
