"""What starting the program costs: nothing that its commands alone need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastoci

SOURCE = str(Path(fastoci.__file__).parents[1])
NATIVE = {"fastoci._core", "fastoci._inflate", "fastoci._extract"}
HEAVY = NATIVE | {"aiohttp", "asyncio", "isal", "msgspec", "rich", "ssl", "uvloop", "zstandard"}

PROBE = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
sys.argv[0] = "fastoci"
from fastoci.cli.main import main
main()
"""


@pytest.mark.parametrize("arguments", [["--help"], ["pull", "--help"], ["login", "--help"], ["--version"], ["pull"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    command = [sys.executable, "-c", PROBE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    modules = set(json.loads(done.stderr.splitlines()[-1]))
    assert "click" in modules
    assert not modules & HEAVY
