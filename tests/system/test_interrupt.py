"""SIGINT ends an unpack soon, whatever the layer asks for."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from fastoci import _extract
from support.scratch import SOURCE, scratch

NAMES = 100_000
DEPTH = 1900


def tar(*names: str) -> bytes:
    """A layer of empty files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return made.getvalue()


def interrupt_apply(place: Path, root: Path, layer: bytes, watched: Path) -> None:
    """Apply a layer in a process of its own, and interrupt it when ``watched``, a directory, has changed."""
    (place / "layer.tar").write_bytes(layer)
    before = watched.stat().st_mtime_ns
    command = [sys.executable, "-m", "fastoci", "apply", "--progress", "none", str(root), str(place / "layer.tar")]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(SOURCE)}, stderr=subprocess.PIPE) as process:
        while watched.stat().st_mtime_ns == before and process.poll() is None:
            time.sleep(0.0005)
        process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        process.wait()
    assert process.returncode == 130
    assert time.monotonic() - begin < 5  # 0.2 on an idle machine


def remove(parent: Path, name: str) -> None:
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
    assert _extract.remove_tree(fd, name.encode()) == 0
    os.close(fd)


@pytest.mark.attack
def test_an_interrupt_ends_the_removal_of_a_large_directory() -> None:
    with scratch("interrupt") as place:
        root = place / "root"
        (root / "wide").mkdir(parents=True)
        (root / "wide/0").touch()
        fd = os.open(root / "wide", os.O_RDONLY | os.O_DIRECTORY)
        for number in range(1, NAMES):
            os.link("0", str(number), src_dir_fd=fd, dst_dir_fd=fd)
        os.close(fd)
        interrupt_apply(place, root, tar(".wh.wide"), root / "wide")
        assert 0 < len(os.listdir(root / "wide")) < NAMES


@pytest.mark.attack
def test_an_interrupt_ends_the_making_of_many_directories() -> None:
    with scratch("interrupt") as place:
        root = place / "root"
        root.mkdir()
        interrupt_apply(place, root, tar(*(f"{number}{'/d' * DEPTH}/f" for number in range(100))), root)
        assert 0 < len(os.listdir(root)) < 100
        remove(place, "root")  # too deep for the standard library
