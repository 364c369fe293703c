"""Where benchmarks write: memory, or a file system of its own in a file in memory; never the root file system."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE_SYSTEMS = ("tmpfs", "ext4", "xfs")
WORK = Path("/dev/shm/fastoci-benchmarks")  # kept between runs: building the images takes longer than pulling them
# ext4 makes writers wait when half of what is free is not written out yet, which no disk of a node is near.
_SPARE = 4 << 30


@contextmanager
def destination(kind: str, work: Path, *, size: int) -> Iterator[Path]:
    """An empty directory on a file system of this kind with ``size`` bytes free, gone afterwards.

    Raises:
        PermissionError: other than tmpfs needs root.
    """
    with tempfile.TemporaryDirectory(prefix="destination-", dir=work) as name:
        if kind == "tmpfs":
            yield Path(name)
            return
        if os.geteuid() != 0:
            raise PermissionError(f"only root mounts {kind}")
        image, mount = Path(name) / "image", Path(name) / "mount"
        mount.mkdir()
        with image.open("wb") as file:
            file.truncate(size + _SPARE)
        quiet = {"ext4": ["-q", "-F"], "xfs": ["-q", "-f"]}[kind]
        subprocess.run([_program(f"mkfs.{kind}"), *quiet, str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True)
        try:
            yield mount
        finally:
            subprocess.run(["umount", str(mount)], check=True)


def clear(directory: Path) -> None:
    """Remove a directory with everything in it, also what was left mounted below."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        mounted = line.split()[4]
        if mounted.startswith(f"{directory}/"):
            subprocess.run(["umount", "--lazy", mounted], check=True)
    shutil.rmtree(directory)


def _program(name: str) -> str:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") or name
