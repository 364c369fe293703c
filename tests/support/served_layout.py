"""A registry over an OCI layout, as a process: clients that keep connections hold no descriptors of the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.scratch import SOURCE


@contextmanager
def served_layout(layout: Path) -> Iterator[list[str]]:
    """The references of its images, while it serves."""
    command = [sys.executable, "-m", "fastoci.testing.registry", str(layout)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            names: list[str] = []
            count = len(_entries(layout))
            while len(names) < count and (line := process.stdout.readline().strip()):
                names.append(line)
            assert all(name.startswith(address) for name in names)
            yield names
        finally:
            process.terminate()


def _entries(layout: Path) -> list[object]:
    found: list[object] = json.loads((layout / "index.json").read_bytes())["manifests"]
    return found
