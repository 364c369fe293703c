"""What does it cost to hash a store again, beside ``openssl dgst -sha256`` on the same files in the page cache?

Both are held to one core, in turns: two threads of ours on the two halves of one physical core would share its SHA
unit, which one thread of ours keeps busy. On all cores it runs once more, without a bar. The start-up of the program
is measured on an empty store, and the bar is on what comes after it. ``python -m benchmarks.macro.verify`` prints JSON
on stdout; the exit status is 1 when the bar is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import report, scratch
from benchmarks.measure import Usage, measure
from benchmarks.report import Bar
from fastoci.store.opening import open_store

FASTOCI, OPENSSL, START, ALL = "fastoci verify", "openssl dgst", "start-up", "fastoci verify, all cores"
LEAST = 1.8
_BLOCK = 8 << 20  # bytes that repeat: what they are does not matter


def fill(store: Path, *, blobs: int, size: int) -> list[Path]:
    """Make a store of so many blobs of this size."""
    open_store(store).close()
    block = os.urandom(min(size, _BLOCK))
    paths = []
    for number in range(blobs):
        head = number.to_bytes(8, "big")
        name, partial = hashlib.sha256(head), store / "blobs" / "sha256" / ".new"
        with partial.open("wb") as file:
            file.write(head)
            left = size - len(head)
            while left > 0:
                piece = block[:left]
                name.update(piece)
                file.write(piece)
                left -= len(piece)
        paths.append(partial.rename(partial.with_name(name.hexdigest())))
    return paths


def runs(store: Path, empty: Path, files: Sequence[Path], *, count: int) -> dict[str, list[Usage]]:
    """Each so many times, in turns."""
    verify = [sys.executable, "-m", "fastoci", "verify", "--progress", "none", "--store"]
    one = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))]
    commands = {
        FASTOCI: [*one, *verify, str(store)],
        OPENSSL: [*one, "openssl", "dgst", "-sha256", *map(str, files)],
        START: [*one, *verify, str(empty)],
        ALL: [*verify, str(store)],
    }
    taken: dict[str, list[Usage]] = {name: [] for name in commands}
    for _ in range(count):
        for name, command in commands.items():
            taken[name].append(measure(command))
    return taken


def median(taken: Sequence[Usage]) -> float:
    """CPU seconds."""
    return statistics.median(run.cpu_s for run in taken)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both in turns, print, and compare with the bar."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fs", choices=scratch.FILE_SYSTEMS, default="tmpfs", help="where the store is")
    parser.add_argument("--blobs", type=int, default=72)
    parser.add_argument("--size", type=int, default=32 << 20, help="bytes of a blob")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--work", type=Path, default=scratch.WORK)
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    with scratch.destination(options.fs, options.work, size=2 * options.blobs * options.size) as target:
        files = fill(target / "store", blobs=options.blobs, size=options.size)
        open_store(target / "empty").close()
        taken = runs(target / "store", target / "empty", files, count=options.runs)
    title = f"{options.blobs} blobs of {options.size} bytes, {options.fs}, median of {options.runs}"
    print(report.table(title, taken, to=FASTOCI), file=sys.stderr)
    openssl, ours, start = median(taken[OPENSSL]), median(taken[FASTOCI]), median(taken[START])
    name = f"{OPENSSL} / {FASTOCI} without {START}, CPU of one core"
    bars = [Bar(name, openssl / max(ours - start, 1e-9), LEAST, least=True)]
    result = {
        "benchmark": "macro/verify",
        **report.circumstances(),
        "bytes": options.blobs * options.size,
        "file_system": options.fs,
        "results": {name: report.summary(each) for name, each in taken.items()},
        "ratios": report.ratios(taken, FASTOCI),
        "bars": report.bars(bars),
    }
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
