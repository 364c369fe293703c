"""Trees to pack, and what a layer of them says: for the tests of packing."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from fastoci import _core
from fastoci.pack.changes import Changes
from fastoci.pack.tar import TarMaker
from fastoci.pack.tree import Tree

TIME_NS = 1_700_000_000_000_000_000


def put(path: Path, content: bytes | str = b"", *, mode: int = 0o644, mtime_ns: int = TIME_NS) -> Path:
    """A file, with the directories that lead to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def tree_of(root: Path, *, latest_ns: int | None = None, told: Callable[[str], None] | None = None) -> Tree:
    """The tree in a directory, to be read."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    return Tree(fd, str(root), latest_ns=latest_ns, told=told or (lambda text: None))


def tar_of(changes: Changes) -> bytes:
    """The whole tar of changes, made in pieces."""
    pool, data = _core.Pool(_core.BUFFER_SIZE), b""
    with closing(TarMaker(changes)) as maker:
        more = True
        while more:
            buffer = pool.take()
            assert buffer is not None
            more = maker.fill(buffer)
            data += bytes(memoryview(buffer))
            buffer.release()
    return data


def members(changes: Changes) -> dict[str, tarfile.TarInfo]:
    """The entries of a layer by their names, in their order."""
    with tarfile.open(fileobj=io.BytesIO(tar_of(changes)), errors="surrogateescape") as tar:
        return {member.name: member for member in tar.getmembers()}


def against(root: Path, base: Path) -> dict[str, tarfile.TarInfo]:
    """The entries that make one tree out of another."""
    return members(Changes(tree_of(root), tree_of(base).root))
