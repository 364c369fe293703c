"""A file system that takes no byte of a write, and says that this is no error, does not hold a program for ever."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci.testing.layers import Entry, Layer

Peer = Callable[[str], str]

PWRITE = """
import os, sys
from fastoci import _core
buffer = _core.Pool(2 << 20).take()
buffer.append(b"data")
code = buffer.pwrite(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY), 0)
sys.exit(0 if code == 0 else os.strerror(-code))
"""


def run(strace: str, call: str, path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run with a call on ``path`` that does nothing and says 0."""
    options = ["-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:retval=0", "-P", str(path)]
    return subprocess.run(
        [strace, *options, sys.executable, *command], capture_output=True, text=True, check=False, timeout=100
    )


@pytest.mark.attack
def test_a_write_of_nothing_is_an_error_of_the_store_s_file(tmp_path: Path, peer: Peer) -> None:
    (tmp_path / "file").touch()
    done = run(peer("strace"), "pwrite64", tmp_path / "file", "-c", PWRITE, str(tmp_path / "file"))
    assert done.stderr == "Input/output error\n"
    assert done.returncode == 1


@pytest.mark.attack
def test_a_write_of_nothing_is_an_error_of_the_tree_s_file(tmp_path: Path, peer: Peer) -> None:
    layer, root = tmp_path / "layer", tmp_path / "root"
    content = Layer.build([Entry("file", data=b"data")]).content
    assert isinstance(content, bytes)
    layer.write_bytes(content)
    root.mkdir()
    done = run(peer("strace"), "write", root / "file", "-m", "fastoci", "apply", str(root), str(layer))
    assert "Input/output error" in done.stderr
    assert done.returncode == 8, done.stderr
