"""What ``fastoci info`` says of mounts, also in places where less is allowed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

import fastoci
from fastoci.mount.probe import probe

_PRINT = "from fastoci.mount.probe import probe; print(probe())"


def test_info_has_the_way_that_the_probe_finds() -> None:
    assert fastoci.info()["mounts"] == probe()
    assert probe().partition(" ")[0] in ("file-backed", "loop", "fuse", "none")


def test_without_the_right_to_mount_it_says_what_is_missing() -> None:
    drop = shutil.which("setpriv")
    if drop is None or os.geteuid() != 0:
        pytest.skip("needs root and setpriv")
    command = [drop, "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", sys.executable, "-c", _PRINT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    way, _, why = done.stdout.partition(" ")
    assert way in ("none", "fuse")
    assert why.startswith("(mounting EROFS needs CAP_SYS_ADMIN")
