"""Kills and errors at chosen system calls of a program, by ``strace``.

A point is the n-th call of a kind on one path, counted for each thread: so it means the same in the next run, whichever
thread comes first. Files without a name have no such path; there, all calls of the kind count. A call that names a file
in an open directory is one on the directory, or on the bare name wherever it is: whichever has fewer such calls.
"""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from support import strace_log
from support.strace_log import Call
from support.warm_program import Running

_PATHS = re.compile(r'\d+<(/[^>]*)>(?:, "([^"/]+)")?|"(/[^"]*)"')


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """The n-th ``call`` of a thread on ``path``, from 1; on any path, when that is empty. ``file`` is for people."""

    call: str
    path: str
    nth: int
    file: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Struck:
    """How a run ended at whose point something was done. ``hit``: the program came there."""

    hit: bool
    code: int
    output: str


def points(log: Path, root: Path, kinds: Collection[str]) -> list[Point]:
    """All calls of these kinds on what is below ``root`` (a path without its equal among others), as points.

    Args:
        log: of a run with ``-y``.
    """
    chosen = [call for call in strace_log.calls(log) if call.name in kinds]
    common = Counter((call.name, key) for call in chosen for key in {key for pair in _places(call) for key in pair})
    seen: Counter[tuple[int, str, str]] = Counter()
    found: dict[Point, None] = {}
    for call in chosen:
        places = _places(call)
        for key in {"", *(key for pair in places for key in pair)}:
            seen[call.thread, call.name, key] += 1
        ours = sorted(pair for pair in places if pair[0].startswith(f"{root}/") or pair[0] == str(root))
        if ours:
            # the kernel's name for a file that has none is another in each run
            pair = next((pair for pair in ours if "/#" not in pair[0]), ("",))
            path = min(pair, key=lambda key: common[call.name, key])
            found[Point(call.name, path, seen[call.thread, call.name, path], "/".join(ours[0]))] = None
    return list(found)


def _places(call: Call) -> list[tuple[str, ...]]:
    """What a call is on: a path, or the path of a directory and a name in it."""
    found: list[tuple[str, ...]] = []
    for match in _PATHS.finditer(call.arguments):
        directory, name, path = match.groups()
        in_directory = name not in (None, ".") and call.name.endswith(("at", "at2", "statx"))
        found.append((directory, name) if in_directory else (path or directory,))
    return found


def strike(point: Point, action: str, command: Running, log: Path) -> Struck:
    """Let the command go that waits; at the point, do ``action``.

    Args:
        action: ``signal=SIGKILL`` before the call, ``error=EIO`` in its place.
    """
    options = ["-e", f"inject={point.call}:{action}:when={point.nth}"]
    if point.path:
        options += ["-P", point.path]
    done = strace_log.trace(command, options, log, calls=[point.call])
    hit = done.returncode == -signal.SIGKILL or "(INJECTED)" in log.read_text(errors="replace")
    return Struck(hit, done.returncode, done.stdout + done.stderr)
