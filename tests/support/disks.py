"""File systems on loop devices, for root; a test is skipped where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def mount(*arguments: str) -> None:
    """Run mount, or skip the test."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


@contextmanager
def mounted(directory: Path, *arguments: str) -> Iterator[Path]:
    """Something that ``mount`` mounts on a directory."""
    mount(*arguments, str(directory))
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)  # a failed test may have a file open


def made(image: Path, kind: str, size: int, *options: str) -> None:
    """Make a file system of this kind in a file of ``size`` bytes, with these options of mkfs; or skip the test."""
    with image.open("wb") as file:
        file.truncate(size)
    make = shutil.which(f"mkfs.{kind}", path="/usr/sbin:/sbin")
    if make is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    done = subprocess.run([make, "-q", *options, image], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot make a file system: {done.stderr.strip()}")


@contextmanager
def disk(place: Path, kind: str, size: int, *options: str) -> Iterator[Path]:
    """A file system of this kind below ``place``, of ``size`` bytes, made with these options of mkfs."""
    image, directory = place / "image", place / "disk"
    directory.mkdir()
    made(image, kind, size, *options)
    with mounted(directory, "-o", "loop", str(image)):
        yield directory
