"""What compressed bytes may become: tar and entries; at the limit it is fine, one beyond is refused with the number."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastoci import _core
from fastoci.errors import UnpackError
from fastoci.limits import Limits
from fastoci.transfer.unpack_totals import UnpackTotals
from fastoci.unpack.layer import LayerStager

READ = 1000  # compressed bytes
TAR = (4 << 30) + 1100 * READ
ENTRIES = 250_000 + READ // 8


@pytest.fixture
def tree() -> UnpackTotals:
    return UnpackTotals(Limits(), "image", lambda event: None, base=False, owners=True)


@pytest.fixture
def stager(tree: UnpackTotals, tmp_path: Path) -> Iterator[LayerStager]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    stager = tree.stager(0, fd, "layer")
    yield stager
    stager.abort()
    os.close(fd)


def symlinks(count: int) -> bytes:
    entry = tarfile.TarInfo("name")
    entry.type, entry.linkname = tarfile.SYMTYPE, "target"
    return entry.tobuf() * count


def feed(stager: LayerStager, data: bytes) -> None:
    buffer = _core.Pool(_core.BUFFER_SIZE).take()
    assert buffer is not None
    assert buffer.append(data) == len(data)
    stager.feed(buffer)
    buffer.release()


def test_bytes_may_become_so_much_tar(tree: UnpackTotals) -> None:
    assert tree.progress(0, READ, TAR - 1) is None
    assert tree.progress(0, READ, 1) is None
    error = tree.progress(0, READ, 1)
    assert isinstance(error, UnpackError)
    assert str(TAR + 1) in str(error)
    assert "1100" in str(error)
    assert tree.progress(0, READ + 1, 0) is None


def test_bytes_may_become_so_many_entries(tree: UnpackTotals, stager: LayerStager) -> None:
    block = symlinks(2000)
    for _ in range(ENTRIES // 2000):
        feed(stager, block)
    feed(stager, symlinks(ENTRIES % 2000 - 1))
    assert tree.progress(0, READ, 0) is None
    feed(stager, symlinks(1))
    assert tree.progress(0, READ, 0) is None
    feed(stager, symlinks(1))
    error = tree.progress(0, READ, 0)
    assert isinstance(error, UnpackError)
    assert str(ENTRIES + 1) in str(error)
    assert "250000" in str(error)
    assert tree.progress(0, READ + 8, 0) is None
