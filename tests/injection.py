"""Kills and errors at chosen system calls of a program, by ``strace``.

A point is the n-th call of a kind on one path, counted for each thread: so it means the same in the next run, whichever
thread comes first. Files without a name have no such path; there, all calls of the kind count.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import strace_log

_PATHS = re.compile(r'\d+<(/[^>]*)>|"(/[^"]*)"')


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """The n-th ``call`` of a thread on ``path``, from 1; on any path, when that is empty."""

    call: str
    path: str
    nth: int


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
    seen: dict[tuple[int, str, str], int] = {}
    found: dict[Point, None] = {}
    for call in strace_log.calls(log):
        if call.name not in kinds:
            continue
        paths = {match[1] or match[2] for match in _PATHS.finditer(call.arguments)}
        for path in (*paths, ""):
            key = call.thread, call.name, path
            seen[key] = seen.get(key, 0) + 1
        ours = sorted(path for path in paths if path.startswith(f"{root}/") or path == str(root))
        if ours:
            # the kernel's name for a file that has none is another in each run
            path = next((path for path in ours if "/#" not in path), "")
            found[Point(call.name, path, seen[call.thread, call.name, path])] = None
    return list(found)


def strike(point: Point, action: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Struck:
    """Run the command; at the point, do ``action``: ``signal=SIGKILL`` before the call, ``error=EIO`` in its place."""
    options = ["-e", f"inject={point.call}:{action}:when={point.nth}"]
    if not action.startswith("signal"):
        options.append("--seccomp-bpf")  # quicker, but it loses the signals
    if point.path:
        options += ["-P", point.path]
    done = strace_log.run(command, options, log, environment, calls=[point.call])
    hit = done.returncode == -signal.SIGKILL or "(INJECTED)" in log.read_text(errors="replace")
    return Struck(hit, done.returncode, done.stdout + done.stderr)
