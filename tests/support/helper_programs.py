"""Credential helpers and kubelet plugins as real programs, which log what they are asked."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_HELPER = """#!{python} -S
import json, os, sys, time
given = sys.stdin.read()
with open({log!r}, "a") as log:
    log.write(json.dumps([sys.argv[1], given]) + "\\n")
while {waits} and not os.path.exists({go!r}):
    time.sleep(0.01)
print("hunter2 on stderr", file=sys.stderr)
if {fails!r}:
    print({fails!r})
    sys.exit(1)
if {answers!r} is not None:
    print({answers!r})
    sys.exit(0)
known = {known!r}
if sys.argv[1] == "store":
    sys.exit(0)
if given not in known:
    print("credentials not found in native keychain")
    sys.exit(1)
if sys.argv[1] == "get":
    print(json.dumps(dict(ServerURL=given, Username=known[given][0], Secret=known[given][1])))
"""

_PLUGIN = """#!{python} -S
import json, os, sys
request = json.load(sys.stdin)
with open({log!r}, "a") as log:
    log.write(json.dumps([request, sys.argv[1:], os.environ.get("PLUGIN", "")]) + "\\n")
print("hunter2 on stderr", file=sys.stderr)
print({answer!r})
sys.exit({status})
"""


@dataclass(frozen=True, slots=True)
class HelperProgram:
    """A program in a directory of its own, which is on the PATH of ``environ``."""

    directory: Path
    environ: Mapping[str, str]

    def lines(self) -> list[list[object]]:
        log = self.directory / "log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def calls(self) -> list[tuple[str, str]]:
        """The actions, and what was given on stdin."""
        return [(str(action), str(given)) for action, given in self.lines()]

    async def called(self, count: int) -> None:
        """Wait until it was called so often."""
        while len(self.lines()) < count:  # noqa: ASYNC110 - of a process
            await asyncio.sleep(0.01)

    def go_on(self) -> None:
        """End the waiting of a helper that waits."""
        (self.directory / "go").touch()


def helper(
    directory: Path,
    name: str,
    known: Mapping[str, tuple[str, str]] | None = None,
    *,
    fails: str = "",
    answers: str | None = None,
    waits: bool = False,
) -> HelperProgram:
    """Make ``docker-credential-<name>``."""
    text = _HELPER.format(
        python=sys.executable,
        log=str(directory / "log"),
        go=str(directory / "go"),
        known=dict(known or {}),
        fails=fails,
        answers=answers,
        waits=waits,
    )
    _install(directory / f"docker-credential-{name}", text)
    return HelperProgram(directory, {**os.environ, "PATH": str(directory)})


def plugin(directory: Path, name: str, answer: object, *, status: int = 0) -> HelperProgram:
    """Make a kubelet image credential provider that always answers this, a document or text."""
    text = answer if isinstance(answer, str) else json.dumps(answer)
    log = str(directory / "log")
    _install(directory / name, _PLUGIN.format(python=sys.executable, log=log, answer=text, status=status))
    return HelperProgram(directory, dict(os.environ))


def _install(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
