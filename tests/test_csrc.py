"""The C unit tests, which need no Python: built and run as `make check` and `make asan` do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent / "src" / "fastoci" / "csrc"


@pytest.mark.timeout(300)
def test_the_c_unit_tests_pass(tmp_path: Path) -> None:
    if shutil.which("make") is None or shutil.which("cc") is None:
        pytest.skip("needs make and a C compiler")
    shutil.copytree(CSRC, tmp_path / "csrc")  # builds nothing in the source tree
    # another compiler's new warnings are for `make check` to refuse, not for whoever runs the tests
    command = ["make", "-C", f"{tmp_path}/csrc/tests", "STRICT=-std=gnu11", "test"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
