"""Hostile layers, judged from outside: nothing beyond the root changes, and each is refused or accepted as it must be.

The short form runs some attacks of each kind; ``make hostile`` runs all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SHORT = "P02,P08a,P14,P22,T18,T28,W03,W05,Z03,Z08"
OPTIONS = "--progress none --max-unpacked {max_unpacked} --max-entries {max_entries}"
EVERYTHING = os.environ.get("FASTOCI_HOSTILE") == "all"  # before the fixture that cleans the environment


@pytest.mark.timeout(1500)
def test_hostile_layers_stay_inside_their_root(shared: Path, tmp_path: Path, clean_environment: None) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes devices and owners")
    import fastoci

    report = tmp_path / "report.json"
    command = [sys.executable, f"{shared}/corpora/check_hostile.py", "--json", str(report)]
    command += ["--cmd", f"{sys.executable} -m fastoci apply {OPTIONS} {{root}} {{layers}}"]
    source = str(Path(fastoci.__file__).resolve().parents[1])
    subprocess.run(
        [*command, *([] if EVERYTHING else ["--only", SHORT])],
        env={**os.environ, "PYTHONPATH": source},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    verdicts = json.loads(report.read_text())
    assert len(verdicts) >= (240 if EVERYTHING else 20)
    wrong = [(verdict["case"], verdict["why"]) for verdict in verdicts if verdict["verdict"] != "ok"]
    assert wrong == []
