"""CPU time of ``import fastoci`` and ``fastoci --help`` beside ``import click, rich.console``; the bar is 1.3 times.

``python -m benchmarks.micro.startup`` prints JSON on stdout; the exit status is 1 above the bar.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import report
from benchmarks.measure import Usage, measure

BAR = 1.3
BASE = "import click, rich.console"
COMMANDS = {
    BASE: ["-c", "import click, rich.console"],
    "import fastoci": ["-c", "import fastoci"],
    "fastoci --help": ["-m", "fastoci", "--help"],
    "pass": ["-c", "pass"],
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all in turns, print, and compare with the bar."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    taken: dict[str, list[Usage]] = {name: [] for name in COMMANDS}
    for _ in range(options.runs):
        for name, command in COMMANDS.items():
            taken[name].append(measure([sys.executable, *command]))
    print(report.table(f"start-up, median of {options.runs}", taken, to=BASE), file=sys.stderr)
    medians = {name: statistics.median(run.cpu_s for run in runs) for name, runs in taken.items()}
    ratios = {name: median / medians[BASE] for name, median in medians.items()}
    result = {
        "benchmark": "micro/startup",
        **report.circumstances(),
        "results": {name: report.summary(runs) for name, runs in taken.items()},
        "ratios": ratios,
        "bar": BAR,
    }
    report.publish(result, options.json)
    return 0 if max(ratios["import fastoci"], ratios["fastoci --help"]) <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
