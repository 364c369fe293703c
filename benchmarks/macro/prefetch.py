"""Many images as one job: what a prefetch costs, beside other tools and where the registry or the machine fails.

``python -m benchmarks.macro.prefetch --part many`` runs one part, or several; all without the option. Prints JSON; the
exit status is 1 when a bar is missed. ``many`` and ``plan`` need no other tool.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import report, scratch
from benchmarks.macro import prefetch_killed, prefetch_many, prefetch_peers, prefetch_refused
from benchmarks.report import Part

PARTS: dict[str, Callable[..., Part]] = {
    "many": prefetch_many.many,
    "plan": prefetch_many.planned,
    "shared": prefetch_peers.shared,
    "refusals": prefetch_refused.refusals,
    "clients": prefetch_refused.clients,
    "killed": prefetch_killed.killed,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=list(PARTS), action="append", help="may be repeated; all by default")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies sizes and counts")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the images; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    results, bars = {}, {}
    for name in options.part or PARTS:
        print(name, file=sys.stderr)
        part = PARTS[name](options.work, scale=options.scale, runs=options.runs)
        results[name] = part.results
        bars[name] = report.bars(part.bars)
    result = {"benchmark": "macro/prefetch", **report.circumstances(), "results": results, "bars": bars}
    report.publish(result, options.json)
    return 0 if all(bar["met"] for each in bars.values() for bar in each.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
