"""``--nice``: every thread and program of a pull has the lowest priority, at the CPU and at the disk.

Covers: cli/priority.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastoci.testing.auth import Basic
from fastoci.testing.registry import Registry, serve
from support.images import FIRST, image_of

if TYPE_CHECKING:
    from conftest import Cli

# A credential helper is started by a thread of the program, and inherits what that has.
HELPER = """#!/bin/sh
{ nice; ionice; } > PLACE
echo '{"ServerURL": "", "Username": "me", "Secret": "pw"}'
"""


@pytest.mark.parametrize("command", ["pull", "prefetch"])
def test_whatever_the_program_starts_has_the_lowest_priority(
    command: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: Callable[[str], str]
) -> None:
    peer("ionice")
    place, helper = tmp_path / "priority", tmp_path / "docker-credential-place"
    helper.write_text(HELPER.replace("PLACE", str(place)))
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    made = Registry(Basic("me", "pw"))
    made.add_image("app", "latest", image_of(FIRST))
    with serve(made) as registry:
        (tmp_path / "auth.json").write_text(json.dumps({"credHelpers": {registry.address: "place"}}))
        asked = (command, f"{registry.address}/app", "--authfile", tmp_path / "auth.json", "--nice")
        done = cli(*asked, "--store", tmp_path / "store")
    assert (done.returncode, done.stderr.count("warning")) == (0, 0), done.stderr
    assert place.read_text().split() == ["19", "idle"]


def test_a_kernel_that_cannot_be_asked_is_warned_of_and_the_pull_goes_on(tmp_path: Path) -> None:
    code = "import platform; platform.machine = lambda: 'pdp11'; from fastoci.cli.main import main; main()"
    command = [sys.executable, "-c", code, "pull", "--nice", "--offline", "--store", str(tmp_path / "none"), "app"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[0] == (
        "fastoci: warning: --nice: the I/O class stays as it is: nobody knows how to ask this kernel"
    )
    assert done.returncode == 3
