"""A containerd of our own: content and native snapshots, nothing that needs the machine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def containerd(program: str, ctr: str, home: Path) -> Iterator[Callable[..., str]]:
    """Run ``ctr`` against a containerd that keeps all in ``home``; what it says."""
    socket = home / "sock"
    (home / "config.toml").write_text(
        f'version = 2\nroot = "{home}/root"\nstate = "{home}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", '
        '"io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", '
        '"io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]\n'
        f'[grpc]\naddress = "{socket}"\n[ttrpc]\naddress = "{socket}.ttrpc"\n'
    )
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([program, "--config", str(home / "config.toml")], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while not socket.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert process.poll() is None, (home / "log").read_text()

        def run(*arguments: str) -> str:
            command = [ctr, "--address", str(socket), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            return done.stdout + done.stderr

        yield run
    finally:
        process.terminate()
        process.wait(20)
