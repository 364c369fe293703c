"""The SHA-256 of the core as a program without Python (sha256.c), built with the flags a Python gives to extensions."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "src" / "fastoci" / "csrc"
OURS = ["-fPIC", "-std=gnu11", "-fvisibility=hidden"]  # what comes after a Python's own flags in an extension's build
PYTHONS = (sys.executable, "/usr/bin/python3")  # pyenv's has -O3 where Debian's has -O2


@dataclass(frozen=True, slots=True)
class Driver:
    """A built program and the flags it was built with."""

    flags: str
    path: Path

    def run(self, *arguments: str | float, environment: Mapping[str, str] | None = None) -> float:
        """The number that sha256.c prints for these arguments, with some variables added."""
        variables = {**os.environ, **(environment or {})}
        command = [str(self.path), *map(str, arguments)]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
        return float(done.stdout)


def flags() -> dict[str, str]:
    """The compiler's flags by the Python that uses them; of two Pythons with the same ones only the first."""
    found: dict[str, str] = {}
    for python in PYTHONS:
        if shutil.which(python):
            code = "import sysconfig; print(sysconfig.get_config_var('CFLAGS') or '')"
            done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
            each = " ".join(done.stdout.split())
            if each not in found.values():
                found[python] = each
    return found


def build(name: str, with_flags: str, into: Path) -> Driver:
    """Compile the driver and the SHA-256 of the core."""
    path = into / name.replace("/", "_")
    sources = [Path(__file__).with_name("sha256.c"), *sorted(CSRC.glob("sha256/*.c"))]
    options = [*shlex.split(with_flags), *OURS, f"-I{CSRC}"]
    subprocess.run(["cc", *options, "-o", path, *sources, "-ldl"], check=True)
    return Driver(with_flags, path)
