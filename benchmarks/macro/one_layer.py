"""What does the pull of one layer of 1 GB cost, beside its stages alone and beside other tools?

The stages are receiving, one lane of the hash, and the write with its sync; each is measured alone in the same run. The
start-up of the program is measured as the pull of what is there already, and the bar is printed with and without it.
``python -m benchmarks.macro.one_layer`` prints JSON on stdout; the exit status is 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch, server
from benchmarks.macro.contenders import FASTOCI, contenders
from benchmarks.macro.pull import compare
from benchmarks.macro.stages import START, SUM, stages, start
from benchmarks.measure import Usage
from benchmarks.report import Bar

OF_SUM, OF_PEERS = 1.15, 1.0


def bars_of(taken: Mapping[str, Sequence[Usage]], peers: Sequence[str]) -> Iterator[Bar]:
    """Against the stages in CPU; against each peer in wall and CPU."""
    times = report.ratios(taken, FASTOCI)
    yield Bar(f"{FASTOCI} / {SUM}, CPU", 1 / times[SUM]["cpu"], OF_SUM)
    yield Bar(f"{FASTOCI} without {START} / {SUM}, CPU", (1 - times[START]["cpu"]) / times[SUM]["cpu"], OF_SUM)
    for name in peers:
        for kind in ("wall", "cpu"):
            yield Bar(f"{FASTOCI} / {name}, {kind}", 1 / times[name][kind], OF_PEERS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all in turns, print, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fs", choices=scratch.FILE_SYSTEMS, default="tmpfs", help="where the layer is written")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the layer's 1 GB")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the image; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    sample = data.prepare("big", options.work, scale=options.scale)
    found = list(contenders(unpacking=False))
    size = 4 * sample.size
    with server.serve([sample]) as address, scratch.destination(options.fs, options.work, size=size) as target:
        alone = stages(sample, address, target / "stage")
        alone[START] = start(sample, address, target / "start")
        taken = compare(sample, address, target, found, alone, runs=options.runs)
    title = f"one layer: {sample.size / 1e6:.0f} MB, {options.fs}, median of {options.runs}"
    print(report.table(title, taken, to=FASTOCI), file=sys.stderr)
    peers = [each.name for each in found if each.name.startswith(("skopeo", "crane", "regctl"))]
    bars = list(bars_of(taken, peers))
    result = {
        "benchmark": "macro/one_layer",
        **report.circumstances(),
        "bytes": sample.size,
        "file_system": options.fs,
        "results": {name: report.summary(runs) for name, runs in taken.items()},
        "ratios": report.ratios(taken, FASTOCI),
        "bars": report.bars(bars),
    }
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
