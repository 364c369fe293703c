"""Results as values: summaries of runs, the machine and commit they belong to, JSON and a small table."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import Usage

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Bar:
    """A ratio to a baseline of the same run, or a count, and what it must be at most, or at least."""

    name: str
    ratio: float
    limit: float
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether the ratio is within its limit."""
        return self.ratio >= self.limit if self.least else self.ratio <= self.limit

    def __str__(self) -> str:
        bound = "at least" if self.least else "at most"
        return f"{self.name}: {self.ratio:.2f}, {bound} {self.limit:.2f}{'' if self.met else ': MISSED'}"


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of a benchmark found, and how it is judged."""

    results: Mapping[str, object]
    bars: Sequence[Bar]


def bars(judged: Sequence[Bar]) -> dict[str, dict[str, object]]:
    """The bars as JSON, by name; prints them to stderr."""
    for bar in judged:
        print(bar, file=sys.stderr)
    return {
        bar.name: {"ratio": bar.ratio, "at_least" if bar.least else "at_most": bar.limit, "met": bar.met}
        for bar in judged
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def summary(runs: Sequence[Usage]) -> dict[str, object]:
    """What several runs of one command took."""
    return {
        "runs": len(runs),
        "wall_s": spread([run.wall_s for run in runs]),
        "cpu_s": spread([run.cpu_s for run in runs]),
        "rss_mib": spread([run.rss / (1 << 20) for run in runs]),
    }


def circumstances() -> dict[str, object]:
    """The machine, the commit and the versions that a result belongs to."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "load": os.getloadavg()[0],
        },
        "python": platform.python_version(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    commit = git("rev-parse", "--short=12", "HEAD") or "unknown"
    return f"{commit}+changes" if git("status", "--porcelain", "--untracked-files=no") else commit


def ratios(runs: Mapping[str, Sequence[Usage]], to: str) -> dict[str, dict[str, float]]:
    """How many times the median of ``to`` each command took, wall and CPU."""
    base_wall = statistics.median(run.wall_s for run in runs[to])
    base_cpu = statistics.median(run.cpu_s for run in runs[to])
    return {
        name: {
            "wall": statistics.median(run.wall_s for run in each) / base_wall,
            "cpu": statistics.median(run.cpu_s for run in each) / base_cpu,
        }
        for name, each in runs.items()
    }


def table(title: str, runs: Mapping[str, Sequence[Usage]], *, to: str) -> str:
    """Medians and ratios to the command ``to``, for people."""
    lines = [title, f"{'':32}{'wall s':>9}{'CPU s':>9}{'peak MiB':>10}{'wall':>9}{'CPU':>9}"]
    for name, ratio in ratios(runs, to).items():
        wall_s = statistics.median(run.wall_s for run in runs[name])
        cpu_s = statistics.median(run.cpu_s for run in runs[name])
        rss = max(run.rss for run in runs[name]) / (1 << 20)
        lines.append(f"{name:32}{wall_s:9.3f}{cpu_s:9.3f}{rss:10.0f}{ratio['wall']:8.2f}x{ratio['cpu']:8.2f}x")
    return "\n".join(lines)


def publish(result: Mapping[str, object], to: Path | None) -> None:
    """Write the result as JSON to a file, or to stdout without one."""
    text = json.dumps(result, indent=1) + "\n"
    if to is None:
        sys.stdout.write(text)
    else:
        to.write_text(text)
