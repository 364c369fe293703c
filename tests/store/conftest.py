"""Stores to fill, and file systems that fail."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.disks import disk, mount
from support.store_shelf import Shelf


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 file system of 16 MiB with 64 inodes."""
    with disk(tmp_path, "ext4", 16 << 20, "-F", "-N", "64", "-m", "0") as path:
        yield path


@pytest.fixture(params=["ext4", "xfs"])
def real_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system on a device of its own, with room for large blobs."""
    with disk(tmp_path, request.param, 400 << 20) as path:
        yield path


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """``read_only(path)`` is the same directory, mounted where nobody can write."""
    mounted: list[Path] = []

    def bind(path: Path) -> Path:
        place = tmp_path / f"read-only-{len(mounted)}"
        place.mkdir()
        mount("--bind", str(path), str(place))
        mounted.append(place)
        mount("-o", "remount,bind,ro", str(place))
        return place

    yield bind
    for place in mounted:
        subprocess.run(["umount", "--lazy", place], check=True)  # stores there may be open still
