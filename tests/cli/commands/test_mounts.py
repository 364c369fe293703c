"""``fastoci mounts`` and ``umount``: what they print, and what they say of what is no mount of an image.

Covers: cli/commands/umount.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastoci.jobs import mounting
from support import erofs_images
from support.mount_namespaces import mount_namespace, nothing_left
from support.scratch import scratch

HEX = "ab" * 32


@pytest.fixture
def place() -> Iterator[Path]:
    with mount_namespace(), nothing_left(), scratch("mounts") as directory:
        yield directory


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The program in this thread's namespace."""
    return subprocess.run([sys.executable, "-m", "fastoci", *arguments], capture_output=True, text=True, check=False)


def mount(directory: Path, upper: Path | None = None) -> None:
    files = erofs_images.write(directory.parent, 2)
    fds = [os.open(path, os.O_RDONLY) for path in (files.metadata, *files.layers)]
    request = mounting.Request(image=HEX, reference="docker.io/library/app:1", directory=directory, upper=upper)
    try:
        mounting.mount(request, mounting.LayerFiles(fds[0], tuple(fds[1:])))
    finally:
        for fd in fds:
            os.close(fd)


def test_mounts_are_listed_and_taken_away(place: Path) -> None:
    mount(place / "root")
    mount(place / "written", place / "upper")
    lines = [line.split() for line in run("mounts").stdout.splitlines()]
    assert lines == [
        ["DIRECTORY", "IMAGE", "MANIFEST", "WAY", "WRITABLE"],
        [str(place / "root"), "docker.io/library/app:1", HEX[:12], "loop", "-"],
        [str(place / "written"), "docker.io/library/app:1", HEX[:12], "loop", str(place / "upper")],
    ]
    done = run("umount", place / "written")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (row,) = json.loads(run("mounts", "--format", "json").stdout)["mounts"]
    assert (row["directory"], row["manifest"], row["upper"]) == (str(place / "root"), HEX, "")
    assert run("umount", place / "root").returncode == 0


def test_what_is_no_mount_and_what_is_in_use_is_the_disk_that_refused(place: Path) -> None:
    mount(place / "root")
    with (place / "root" / "layer-000").open():
        done = run("umount", place / "root")
    assert done.returncode == 8
    assert f"{place}/root is in use by process {os.getpid()}, and stays mounted" in done.stderr
    assert run("umount", place / "root").returncode == 0
    done = run("umount", place / "root")
    assert (done.returncode, "no image is mounted there" in done.stderr) == (8, True)
