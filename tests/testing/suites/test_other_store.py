"""``examples/other_store.py`` under the test file of docs/interfaces.md, and as a program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from fastoci.image.descriptor import Descriptor
from fastoci.testing.registry import Registry, serve

ROOT = Path(__file__).resolve().parents[3]


def test_the_store_of_another_puller_passes_the_suites_in_a_project_of_its_own(tmp_path: Path) -> None:
    shown = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "interfaces.md").read_text(), re.DOTALL)
    (program,) = (each for each in shown if "BlobStoreSuite" in each)
    (tmp_path / "test_store.py").write_text(program)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "test_store.py"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "examples")}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout
    assert re.search(r"\b2[0-9] passed", done.stdout), done.stdout


def test_the_program_fetches_a_blob_into_it_and_nothing_the_second_time(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    blob = Descriptor.of(data, "")
    with serve(Registry()) as registry:
        registry.add_blob(str(blob.digest), data)
        program, repository = ROOT / "examples" / "other_store.py", f"{registry.address}/team/app"
        command = [
            sys.executable,
            "-W",
            "error",
            str(program),
            str(tmp_path),
            repository,
            str(blob.digest),
            str(blob.size),
        ]
        for first in (True, False):
            done = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            assert ("BlobDone" in done.stdout) is first
    assert (tmp_path / blob.digest.hex).read_bytes() == data
