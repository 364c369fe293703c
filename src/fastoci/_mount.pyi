"""Mounts and loop devices by the kernel's own calls, without the GIL. A failure is an ``OSError``, the kernel's errno.

The file name of the error is the step that failed, its text has what the kernel said beside the number.
"""

from collections.abc import Iterable

READ_ONLY: int  # an attribute of a mount that is made

def create(kind: str, options: Iterable[tuple[str, str | int | None]], *, attributes: int = 0) -> int:
    """Make a file system; a descriptor of its mount, which is nowhere yet, and gone when it is closed there.

    Args:
        options: in their order; a text, a descriptor (``FSCONFIG_SET_FD``), or None for a flag.
    Raises:
        OSError: the file name is ``fsopen``, an option's, ``create`` or ``fsmount``.
    Spec: fsopen(2), fsconfig(2), fsmount(2).
    """

def move(mount: int, target: int, /) -> None:
    """Put a mount that is nowhere yet onto the directory that ``target`` is, over what is mounted there."""

def clone(fd: int, /) -> int:
    """A new mount of the directory that ``fd`` is, nowhere yet, without what is mounted below it."""

def set_private(mount: int, /) -> None:
    """Let what is mounted below a mount be seen nowhere else. Spec: mount_setattr(2)."""

def mount(source: str, target: str, kind: str, flags: int, data: str, /) -> None:
    """As mount(2), for what kernels cannot do otherwise."""

def unmount(path: str, /) -> None:
    """Take away what is mounted on top at a path, whose last name is not followed. ``EBUSY``: it is in use."""

def attach_loop(file: int, block_size: int, /, *, writable: bool = False) -> tuple[int, str]:
    """Make a free loop device show a file; a descriptor that keeps it until it is mounted, and its path."""
