"""The forked program against ``python -m fastoci``: nobody can tell one from the other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.scratch import SOURCE
from support.warm_program import WarmProgram


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["--version"], ""),
        (["ls", "--store", "absent"], ""),
        (["apply", "root", "absent"], ""),
        (["login", "127.0.0.1:1", "-u", "me", "--password-stdin", "--authfile", "auth"], "word"),
        (["login", "127.0.0.1:1", "-u", "me", "--password-stdin"], ""),
        (["config"], ""),
        (["pull"], ""),
    ],
)
def test_a_forked_command_does_as_one_that_is_started(
    warm_program: WarmProgram,
    arguments: Sequence[str],
    given: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "config.toml").write_text("[store]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTOCI_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    command = [sys.executable, "-m", "fastoci", *arguments]
    started = subprocess.run(command, input=given, capture_output=True, text=True, timeout=100, check=False)
    forked = warm_program.run(*arguments, given=given)
    assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)
