"""How soon SIGINT ends each command, in the situations of ``support.interrupts``: within 500 ms on an idle machine.

``python -m benchmarks.micro.interrupt`` prints JSON on stdout; the exit status is 1 above the bar.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from benchmarks import report
from support.interrupts import SITUATIONS, interrupt
from support.scratch import scratch

BAR_S = 0.5


def _measure(name: str) -> float | None:
    """Seconds from the signal to the end; None when the command was through, or not loaded yet."""
    with (
        scratch("interrupt") as memory,
        tempfile.TemporaryDirectory() as disk,
        contextmanager(SITUATIONS[name])(memory, Path(disk)) as slow,
    ):
        ended = interrupt(slow)
    return ended.took_s if ended.status == 130 else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Interrupt all in turns, print the median and the most of each, and compare with the bar."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    parser.add_argument("names", nargs="*", help="some of the situations; all by default")
    options = parser.parse_args(arguments)
    names = options.names or list(SITUATIONS)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.runs):
        for name in names:
            took_s = _measure(name)
            if took_s is not None:
                taken[name].append(took_s)
    results = {
        name: {"runs": len(times), "median_s": statistics.median(times), "max_s": max(times)}
        for name, times in taken.items()
        if times
    }
    for name, each in sorted(results.items(), key=lambda item: -item[1]["max_s"]):
        median, most = 1000 * each["median_s"], 1000 * each["max_s"]
        print(f"{name:50} {each['runs']} runs, median {median:5.0f} ms, max {most:5.0f} ms", file=sys.stderr)
    result = {"benchmark": "micro/interrupt", **report.circumstances(), "results": results, "bar_s": BAR_S}
    report.publish(result, options.json)
    return 0 if all(each["max_s"] <= BAR_S for each in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
