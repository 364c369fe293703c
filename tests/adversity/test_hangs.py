"""Something goes wrong at each await of the engine, one at a time: the verb ends, and other pulls do not notice.

``make hangs`` tries every case; the short form, some at random, is part of ``make test``. The seed is printed on
failure; set ``FASTOCI_SEED`` to repeat it. What a case is, is said in ``support/hang_cases.py``. Waits for the network
have deadlines of their own: ``registry/http/test_deadlines.py``.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from support.scratch import SOURCE, scratch

CASES = int(os.environ.get("FASTOCI_HANGS", "14"))  # 0: all
SEED = int(os.environ.get("FASTOCI_SEED", "0")) or random.randrange(1, 1 << 32)
REACHED = 0.75  # of all awaits; the others are in fallbacks, and most of those that a registry must provoke


@pytest.mark.slow
@pytest.mark.timeout(20_000)
def test_whatever_goes_wrong_at_an_await_the_verb_ends_and_another_pull_succeeds() -> None:
    print(f"seed {SEED}, {CASES or 'all'} cases")
    with scratch("hangs") as directory:
        command = [sys.executable, "-m", "support.hang_cases", str(directory), str(SEED), str(CASES)]
        environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{Path(__file__).parents[1]}"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [f"{line['case']}: {line['wrong']}" for line in lines if "wrong" in line]
    assert not wrong, "\n".join([*wrong, done.stderr[-20_000:]])
    assert done.returncode == 0, done.stderr[-20_000:]
    summary = lines[-1]
    print({**summary, "missed": len(summary["missed"])})
    assert summary["cases"] == (min(CASES, summary["of"]) if CASES else summary["of"])
    assert summary["hits"] > 0.7 * summary["cases"]
    assert summary["reached"] > REACHED * (summary["reached"] + len(summary["missed"])), summary["missed"]
