"""Where things are: the package under test, and room for files that should be in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fastoci

SOURCE = Path(fastoci.__file__).resolve().parents[1]
TESTS = Path(__file__).resolve().parents[1]


@contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A directory in memory where there is one, and else where temporary files go; removed at the end."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(prefix=f"fastoci-{prefix}-", dir=memory, ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """The descriptor of a directory."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
