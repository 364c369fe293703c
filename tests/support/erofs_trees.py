"""A tree with one of everything that a layer may hold, to make EROFS files of by another writer."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FLAT = 3000  # names in one directory: many blocks of it


def populate(tree: Path) -> None:
    """One of everything that a layer may hold and any user may make."""
    for name in ("a/b/c", "flat", "usr/bin", "!before-the-dots"):
        (tree / name).mkdir(parents=True)
    (tree / "a/file").write_bytes(b"content")
    (tree / "a/large").write_bytes(random.Random(1).randbytes(1_000_003))
    (tree / "a/empty").touch()
    os.link(tree / "a/file", tree / "a/b/second")
    os.mkfifo(tree / "a/fifo", 0o600)
    (tree / "bin").symlink_to("usr/bin")
    (tree / "usr/bin/sh").write_bytes(b"a shell")
    (tree / "a/absolute").symlink_to("/usr/../bin/./sh")
    (tree / "a/out").symlink_to("../../../../etc/passwd")
    (tree / "loop").symlink_to("loop")
    try:
        (tree / "long-link").symlink_to("x/" * 2000)
    except OSError:  # XFS takes 1024 bytes
        (tree / "long-link").symlink_to("x/" * 500)
    for number in range(FLAT):
        (tree / f"flat/name-{number * 7919 % FLAT}").touch()
    os.truncate(tree / "a/empty", 0)
    os.utime(tree / "a/file", ns=(0, -1_500_000_000))
    os.utime(tree / "usr", ns=(0, 4_102_444_800_123_456_789))


def attributes(tree: Path) -> None:
    """Attributes, owners and devices, which need root."""
    for name, value in (("user.short", b"1"), ("trusted.binary", bytes(range(256)))):
        os.setxattr(tree / "a/large", name, value)
    os.setxattr(tree / "usr", "user.long", b"x" * 999)
    os.chown(tree / "a/large", 70_000, 4_000_000_000)
    os.mknod(tree / "a/device", 0o20640, os.makedev(300, 70_000))


@contextmanager
def opened_file(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)
