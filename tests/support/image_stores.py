"""Readers of containers/storage that find the images of a store, in a storage of their own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

_CONF = """[storage]
driver = "overlay"
graphroot = "{place}/root"
runroot = "{place}/run"
[storage.options]
additionalimagestores = ["{layers}"]
"""


class Reader:
    """A program that reads ``store``'s layers as an additional image store; its own files are in ``place``."""

    def __init__(self, program: str, place: Path, store: Path) -> None:
        self._program = program
        self._place = place
        self._conf = place / "storage.conf"
        self._conf.write_text(_CONF.format(place=place, layers=store / "layers"))

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which it knows its storage."""
        found = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(self._place)}
        return found | {"CONTAINERS_STORAGE_CONF": str(self._conf), "CONTAINERS_CONF": "/dev/null"}

    def run(self, *arguments: str, code: int | None = 0) -> str:
        """What it prints; of an error what it says."""
        command = [self._program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=self.environment, check=False)
        assert code is None or done.returncode == code, done.stderr
        return done.stdout if done.returncode == 0 else done.stderr

    def end(self) -> None:
        """Let go of what it has mounted: its own directory, as a bind of itself."""
        subprocess.run(["umount", str(self._place / "root/overlay")], capture_output=True, check=False)


def records(store: Path, kind: str) -> list[dict[str, object]]:
    """The records of ``layers`` or ``images``."""
    found: list[dict[str, object]] = json.loads((store / f"layers/overlay-{kind}/{kind}.json").read_bytes())
    return found
