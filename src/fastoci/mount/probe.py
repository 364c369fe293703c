"""Which way of mounting an image this process has, in a few words, without a file and without a mount."""

from __future__ import annotations

from fastoci.mount import erofs, fuse


def probe() -> str:
    """``file-backed``, ``loop``, ``fuse`` or ``none``, and in brackets why not the one before.

    File-backed is what the kernel can; files on tmpfs and overlayfs are mounted by loop devices there, too.
    """
    way, why = erofs.probe()
    if way is None:
        missing = fuse.missing(fuse.EROFS)
        way, why = ("fuse", why) if not missing else (None, f"{why}; {missing}")
    return f"{way or 'none'} ({why})" if why else str(way)
