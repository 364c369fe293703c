"""Wall time, CPU time and peak memory of a command and all its children.

A child's peak begins with the peak of the process that forked it, so a process of its own that has nothing in memory
starts the command and reports: ``python -S measure.py REPORT PROGRAM ARGUMENT...``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """What one run took. ``rss`` is the largest resident set of any one process, in bytes."""

    wall_s: float
    cpu_s: float  # user and system
    rss: int


def measure(command: Sequence[str]) -> Usage:
    """Run ``command``, for which this process's ``fastoci`` is the one to import, and say what it took.

    Raises:
        RuntimeError: it failed; has its output.
    """
    with tempfile.NamedTemporaryFile("r", prefix="fastoci-measure-") as report:
        helper = [sys.executable, "-S", "-E", os.path.abspath(__file__), report.name, *command]
        done = subprocess.run(helper, env=variables(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            output = done.stdout.decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}:\n{output}")
        return Usage(**json.load(report))


def here(work: Callable[[], object]) -> Usage:
    """Do ``work`` in this process, and say what it took. ``rss`` is the peak of everything so far."""
    wall_s, cpu_s = time.monotonic(), time.process_time()
    work()
    wall_s, cpu_s = time.monotonic() - wall_s, time.process_time() - cpu_s
    return Usage(wall_s, cpu_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def call(module: str, function: str, *arguments: object, environment: Mapping[str, str] | None = None) -> float:
    """What a function gives in a fresh process, for one figure that an environment or memory in use would change.

    Args:
        arguments: what JSON can carry.
        environment: variables to add.
    Raises:
        RuntimeError: it failed; has its traceback.
    """
    line = f"import json, sys; from {module} import {function} as work; print(work(*json.loads(sys.argv[1])))"
    command = [sys.executable, "-c", line, json.dumps(arguments)]
    merged = variables() | dict(environment or {})
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # where "benchmarks" is found
    done = subprocess.run(command, env=merged, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module}.{function} failed:\n{done.stderr}")
    return float(done.stdout)


def variables() -> dict[str, str]:
    """Of a process that is to import this one's ``fastoci``."""
    package = importlib.util.find_spec("fastoci")
    assert package is not None and package.origin is not None
    own = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(package.origin))}
    own.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its bytecode
    return own


def _main() -> int:
    report, *command = sys.argv[1:]
    started = time.monotonic()
    status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    wall_s = time.monotonic() - started
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(report, "w") as file:
        rss = spent.ru_maxrss * 1024
        json.dump({"wall_s": wall_s, "cpu_s": spent.ru_utime + spent.ru_stime, "rss": rss}, file)
    return status


if __name__ == "__main__":
    sys.exit(_main())
