"""Hostile layers, judged from outside: nothing beyond the root changes, and each is refused or accepted as it must be.

The short form runs some attacks of each kind, and fewer over a differ; ``make hostile`` runs all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.scratch import SOURCE, TESTS

SHORT = "P02,P08a,P14,P22,T18,T28,W03,W05,Z03,Z08"
OPTIONS = "--max-unpacked {max_unpacked} --max-entries {max_entries}"
EVERYTHING = os.environ.get("FASTOCI_HOSTILE") == "all"  # before the fixture that cleans the environment
OVER_A_DIFFER = {"bind": "P02a,P04a", "overlay": "W05a,W05b"}  # forms of snapshots


def verdicts(shared: Path, work: Path, program: str, only: str) -> list[dict[str, Any]]:
    """What becomes of each attack, or of those alone, when a program unpacks it; one run at a time on a machine."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes devices and owners")
    report = work / "report.json"
    command = [sys.executable, f"{shared}/corpora/check_hostile.py", "--json", str(report)]
    command += ["--cmd", f"{sys.executable} {program} {{root}} {{layers}}"]
    subprocess.run(
        [*command, *([] if EVERYTHING else ["--only", only])],
        env={**os.environ, "PYTHONPATH": f"{SOURCE}:{TESTS}"},
        cwd=work,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(report.read_text())
    return found


@pytest.mark.timeout(1500)
def test_hostile_layers_stay_inside_their_root(shared: Path, tmp_path: Path, clean_environment: None) -> None:
    found = verdicts(shared, tmp_path, f"-m fastoci apply --progress none {OPTIONS}", SHORT)
    assert len(found) >= (240 if EVERYTHING else 20)
    assert [(each["case"], each["why"]) for each in found if each["verdict"] != "ok"] == []


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("form", OVER_A_DIFFER)
def test_hostile_layers_over_a_differ_stay_inside_their_snapshot(
    shared: Path, tmp_path: Path, clean_environment: None, form: str
) -> None:
    """The tree of a bind is that of the layers; the other has whiteouts, and is not compared."""
    program = f"{TESTS}/support/apply_by_differ.py {form} {OPTIONS}"
    found = verdicts(shared, tmp_path, program, OVER_A_DIFFER[form])
    assert len(found) >= (240 if EVERYTHING else 2)
    wrong = [(each["case"], each["why"]) for each in found if each["verdict"] != "ok"]
    assert [each for each in wrong if form == "bind" or "ESCAPE" in str(each[1])] == []
