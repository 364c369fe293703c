"""Hostile layers over ``Diff.Apply``, judged from outside: nothing beyond the directory changes, in either form.

The short form runs some attacks; with ``FASTOCI_HOSTILE=all``, all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.scratch import SOURCE, TESTS

SHORT = {"bind": "P02a,P04a,P11,W05a", "overlay": "P08a,W05"}
EVERYTHING = os.environ.get("FASTOCI_HOSTILE") == "all"  # before the fixture that cleans the environment
OPTIONS = "--max-unpacked {max_unpacked} --max-entries {max_entries}"


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("form", SHORT)
def test_hostile_layers_stay_inside_their_snapshot(
    shared: Path, tmp_path: Path, clean_environment: None, form: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes devices and owners")
    report = tmp_path / "report.json"
    program = f"{sys.executable} {TESTS}/support/apply_by_differ.py {form} {OPTIONS} {{root}} {{layers}}"
    command = [sys.executable, f"{shared}/corpora/check_hostile.py", "--json", str(report), "--cmd", program]
    subprocess.run(
        [*command, *([] if EVERYTHING else ["--only", SHORT[form]])],
        env={**os.environ, "PYTHONPATH": f"{SOURCE}:{TESTS}"},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    verdicts = json.loads(report.read_text())
    assert len(verdicts) >= (240 if EVERYTHING else 4)
    wrong = [(verdict["case"], verdict["why"]) for verdict in verdicts if "ESCAPE" in str(verdict["why"])]
    assert wrong == []
    if form == "bind":  # its tree is that of the layers; the other's has whiteouts
        assert [(each["case"], each["why"]) for each in verdicts if each["verdict"] != "ok"] == []
