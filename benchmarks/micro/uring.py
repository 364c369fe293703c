"""Would the extractor gain by io_uring? Files made by its system calls and by rings, on three file systems.

90,000 files of 4 KiB and eight of 128 MiB, by a C program that does nothing else (``uring.c``, with six ways to use
a ring): no tar, no owners. ``python -m benchmarks.micro.uring`` prints JSON on stdout and tables on stderr. A ring
would be worth its code where it takes at most 0.85 of the calls' CPU or wall time without more of the other; a bar is
missed, and the exit status is 1, where one does. What needs root, or a kernel that allows io_uring, is left out with a
note.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import report, scratch
from benchmarks.measure import Usage, measure
from benchmarks.report import Bar

CALLS = "calls"
RINGS = ("linked", "polled", "one", "known", "written", "closed")
FILES = {"small": (90_000, 4096), "large": (8, 128 << 20)}  # how many, of how many bytes
WORTH = 0.85  # of the calls' time


def refusal(program: Path, work: Path) -> str:
    """Why the kernel does not give a ring; empty when it does."""
    done = subprocess.run([program, RINGS[0], work, "0", "1"], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def compare(program: Path, place: Path, size: tuple[int, int], *, runs: int) -> dict[str, list[Usage]]:
    """All ways in turns, each into a directory of its own; the first turn finds memory that nothing has used yet."""
    taken: dict[str, list[Usage]] = {}
    target = place / "files"
    for turn in range(runs + 1):
        for way in (CALLS, *RINGS):
            target.mkdir()
            usage = measure([str(program), way, str(target), *map(str, size)])
            shutil.rmtree(target)
            if turn:
                taken.setdefault(way, []).append(usage)
    return taken


def bars_of(title: str, taken: Mapping[str, Sequence[Usage]]) -> Iterator[Bar]:
    """Of the way that comes nearest to being worth it, its better ratio; the other one where that is a loss."""
    times = {way: ratio for way, ratio in report.ratios(taken, CALLS).items() if way != CALLS}
    gains = {way: min(each.values()) if max(each.values()) <= 1 else max(each.values()) for way, each in times.items()}
    best = min(gains, key=lambda way: gains[way])
    yield Bar(f"{title}: {best} / {CALLS}", gains[best], WORTH, least=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, run all, print, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fs", choices=scratch.FILE_SYSTEMS, action="append", help="one of them only")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="multiplies the small ones' count, the large ones' size"
    )
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    small, large = FILES["small"], FILES["large"]
    sizes = {
        "small": (round(small[0] * options.scale), small[1]),
        "large": (large[0], round(large[1] * options.scale)),
    }
    results: dict[str, object] = {}
    judged = list[Bar]()
    with scratch.destination("tmpfs", options.work, size=0) as tools:
        program = tools / "uring"
        subprocess.run(["cc", "-O2", "-o", program, Path(__file__).with_suffix(".c")], check=True)
        if reason := refusal(program, tools):
            print(f"io_uring: left out, {reason}", file=sys.stderr)
        for kind in () if reason else options.fs or scratch.FILE_SYSTEMS[: 3 if os.geteuid() == 0 else 1]:
            for name, size in sizes.items():
                with scratch.destination(kind, options.work, size=4 * size[0] * size[1]) as place:
                    taken = compare(program, place, size, runs=options.runs)
                title = f"{name}, {kind}"
                heading = f"{title}: {size[0]} files of {size[1]} bytes, median of {options.runs}"
                print(report.table(heading, taken, to=CALLS), file=sys.stderr)
                results[title] = {way: report.summary(each) for way, each in taken.items()}
                judged += bars_of(title, taken)
    outcome = {
        "benchmark": "micro/uring",
        **report.circumstances(),
        "results": results,
        "bars": report.bars(judged),
    }
    report.publish(outcome, options.json)
    return 0 if all(bar.met for bar in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
