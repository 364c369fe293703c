"""A docker daemon of a test's own, without networks."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_START_S: Final = 30.0


class Docker:
    """``docker`` of a daemon that keeps all below ``home``, whose path is short enough for sockets."""

    def __init__(self, home: Path, program: str) -> None:
        self._home = home
        self._program = program

    def command(self, *arguments: str) -> list[str]:
        """The command line of a call."""
        return [self._program, "--host", f"unix://{self._home}/sock", *arguments]

    def run(self, *arguments: str) -> str:
        """What it prints."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (done.stderr, (self._home / "log").read_text()[-2000:])
        return done.stdout

    def answers(self) -> bool:
        """Whether the daemon is there."""
        return subprocess.run(self.command("version"), capture_output=True, timeout=60, check=False).returncode == 0


@contextmanager
def docker(home: Path, daemon: str, client: str) -> Iterator[Docker]:
    """Run a daemon."""
    (home / "config").write_text("{}")
    places = [f"--data-root={home}/root", f"--exec-root={home}/exec", f"--pidfile={home}/pid"]
    places += [f"--host=unix://{home}/sock", f"--config-file={home}/config"]
    network = ["--iptables=false", "--ip6tables=false", "--bridge=none"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([daemon, *places, *network], stdout=log, stderr=log)
    found = Docker(home, client)
    try:
        deadline = time.monotonic() + _START_S
        while not found.answers() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None, (home / "log").read_text()
        yield found
    finally:
        process.terminate()
        process.wait(_START_S)
