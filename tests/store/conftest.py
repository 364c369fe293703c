"""Stores to fill, and file systems that fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from store_shelf import Shelf


@pytest.fixture
def open_shelf() -> Iterator[Callable[[Path], Shelf]]:
    shelves: list[Shelf] = []

    def make(path: Path) -> Shelf:
        shelves.append(Shelf(path))
        return shelves[-1]

    yield make
    for shelf in shelves:
        shelf.store.close()


@pytest.fixture
def shelf(tmp_path: Path, open_shelf: Callable[[Path], Shelf]) -> Shelf:
    return open_shelf(tmp_path / "store")


def _mount(*arguments: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


@contextmanager
def _disk(tmp_path: Path, kind: str, size: int, *options: str) -> Iterator[Path]:
    """A file system of this kind on a loop device."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    make = shutil.which(f"mkfs.{kind}", path="/usr/sbin:/sbin")
    if make is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    made = subprocess.run([make, "-q", *options, image], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"cannot make a file system: {made.stderr.strip()}")
    _mount("-o", "loop", str(image), str(disk))
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)  # a failed test may have a file open


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 file system of 16 MiB with 64 inodes."""
    with _disk(tmp_path, "ext4", 16 << 20, "-F", "-N", "64", "-m", "0") as disk:
        yield disk


@pytest.fixture(params=["ext4", "xfs"])
def real_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system on a device of its own, with room for large blobs."""
    with _disk(tmp_path, request.param, 400 << 20) as disk:
        yield disk


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """``read_only(path)`` is the same directory, mounted where nobody can write."""
    mounted: list[Path] = []

    def bind(path: Path) -> Path:
        place = tmp_path / f"read-only-{len(mounted)}"
        place.mkdir()
        _mount("--bind", str(path), str(place))
        mounted.append(place)
        _mount("-o", "remount,bind,ro", str(place))
        return place

    yield bind
    for place in mounted:
        subprocess.run(["umount", place], check=True)
