"""How often does the measurement at the start choose another number of lanes than the fastest, on a machine in use?

The fastest is found by long runs of every kernel in turns. A start errs when the kernel it chose is more than 5 %
slower than the fastest, the least that the measurement itself takes for a difference. Starts are counted on the machine
as it is, and with two processes a processor that hash, compress and copy. ``python -m benchmarks.micro.lanes`` prints
JSON on stdout; the exit status is 1 when the bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import report
from benchmarks.micro import driver
from benchmarks.micro.driver import Driver
from benchmarks.report import Bar
from fastoci import _core

BUSY = (
    "import hashlib, os, zlib; data = os.urandom(1 << 20)\n"
    "while True: hashlib.sha256(data).digest(); zlib.compress(data, 1); bytes(1 << 22)"
)
MARGIN = 1.05  # sha256_measure's
ERRING = 0.01  # of the starts, at most


@contextlib.contextmanager
def load(processes: int) -> Iterator[None]:
    """Some busy processes beside what runs inside."""
    busy = [subprocess.Popen([sys.executable, "-S", "-c", BUSY]) for _ in range(processes)]
    try:
        time.sleep(0.2 if busy else 0)  # until they have started: what they disturb is not judged more exactly
        yield
    finally:
        for each in busy:
            each.kill()
            each.wait()


def kernels(program: Driver, tier: str, seconds: float) -> dict[int, float]:
    """Bytes a second of the kernel for one, two and three streams: the best of five turns."""
    turns = [{lanes: program.run("buffers", tier, seconds, lanes) for lanes in (1, 2, 3)} for _ in range(5)]
    return {lanes: max(turn[lanes] for turn in turns) for lanes in turns[0]}


def erring(chosen: Counter[int], rates: dict[int, float]) -> float:
    """The share of starts that chose a slow kernel."""
    slow = {lanes for lanes, rate in rates.items() if rate * MARGIN < max(rates.values())}
    return sum(chosen[lanes] for lanes in slow) / chosen.total()


def main(arguments: Sequence[str] | None = None) -> int:
    """Count the starts, print, and compare with the bar."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    tier = _core.tier().partition(",")[0]
    if not tier.startswith("sha-"):
        print(f"{tier} hashes one stream at a time: nothing is measured at the start")
        return 0
    processors = len(os.sched_getaffinity(0))
    chosen: dict[str, Counter[int]] = {}
    with tempfile.TemporaryDirectory(prefix="fastoci-lanes-") as folder:
        program = driver.build("lanes", next(iter(driver.flags().values())), Path(folder))
        rates = kernels(program, tier, min(0.2, options.starts / 1000))
        for busy in (0, 2 * processors):
            with load(busy):
                chosen[f"{busy} busy"] = Counter(int(program.run("lanes", tier)) for _ in range(options.starts))
    print(f"GB/s: {', '.join(f'{lanes} lanes {rate / 1e9:.2f}' for lanes, rate in rates.items())}", file=sys.stderr)
    print(f"chosen: {chosen}", file=sys.stderr)
    bars = [Bar(f"{name}: erring starts / starts", erring(each, rates), ERRING) for name, each in chosen.items()]
    result = {
        "benchmark": "micro/lanes",
        **report.circumstances(),
        "tier": tier,
        "starts": options.starts,
        "kernel_bytes_per_s": rates,
        "chosen": chosen,
        "bars": report.bars(bars),
    }
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
