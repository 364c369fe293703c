"""How fast is SHA-256 on one stream and on several together, with and without the CPU's SHA instructions?

``openssl speed`` is the baseline of one stream, one stream that of several. Rates are bytes of all streams in a second
of CPU time. ``python -m benchmarks.micro.sha256`` prints JSON on stdout; the exit status is 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import report
from benchmarks.measure import call
from benchmarks.report import Bar
from fastoci import _core

PIECE = 256 << 10  # bytes of one call
SECONDS = 3  # openssl's clock has a hundred ticks a second
MASK = {"OPENSSL_ia32cap": ":~0x20000000"}  # bit 29 of EBX of CPUID leaf 7: the SHA instructions
WITHOUT = {**MASK, "FASTOCI_SHA256": "openssl"}


def stream(seconds: float) -> float:
    """Bytes a second of ``Sha256.update``, from a piece in the cache."""
    state, piece = _core.Sha256(), os.urandom(PIECE)
    return _rate(lambda: state.update(piece), PIECE, seconds)


def streams(count: int, seconds: float) -> float:
    """Bytes a second of ``update_many`` with a full span for each of ``count`` streams, as the engine calls it."""
    pool = _core.Pool(count * _core.SPAN_SIZE)
    pairs = []
    for _ in range(count):
        span = pool.take()
        assert span is not None
        span.append(os.urandom(_core.SPAN_SIZE))
        pairs.append((_core.Sha256(), span))
    return _rate(lambda: _core.update_many(pairs), count * _core.SPAN_SIZE, seconds)


def _rate(work: Callable[[], object], size: int, seconds: float) -> float:
    for _ in range(8):
        work()
    done, started = 0, time.thread_time()
    while (spent := time.thread_time() - started) < seconds:
        work()
        done += size
    return done / spent


def openssl(seconds: float, environment: Mapping[str, str]) -> float:
    """Bytes a second of ``openssl speed``, by its own count."""
    command = ["openssl", "speed", "-mr", "-evp", "sha256", "-bytes", str(PIECE), "-seconds", str(round(seconds))]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    found = re.search(r"^\+F:\d+:\w+:([0-9.]+)$", done.stdout + done.stderr, re.MULTILINE)
    assert found is not None, "openssl speed -mr prints +F:NUMBER:NAME:RATE"
    return float(found[1])


def measure(seconds: float) -> dict[str, float]:
    """One run of each, every one in a process of its own."""
    here = "benchmarks.micro.sha256"
    return {
        "openssl speed": openssl(seconds, {}),
        "Sha256.update": call(here, "stream", seconds),
        "update_many, 1 stream": call(here, "streams", 1, seconds),
        "update_many, 2 streams": call(here, "streams", 2, seconds),
        "update_many, 3 streams": call(here, "streams", 3, seconds),
        "openssl speed, masked": openssl(seconds, MASK),
        "Sha256.update, masked": call(here, "stream", seconds, environment=WITHOUT),
    }


def judge(median: Mapping[str, float]) -> list[Bar]:
    """The bars, from the medians."""

    def bar(name: str, base: str, limit: float) -> Bar:
        return Bar(f"{name} / {base}", median[name] / median[base], limit, least=True)

    return [
        bar("Sha256.update", "openssl speed", 0.98),
        bar("update_many, 2 streams", "update_many, 1 stream", 1.85),
        bar("update_many, 3 streams", "update_many, 1 stream", 2.1),
        bar("Sha256.update, masked", "openssl speed, masked", 0.95),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all in turns, print, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help=f"multiplies the {SECONDS} s of each; 1 s at least")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    seconds = max(1.0, SECONDS * options.scale)
    runs = [measure(seconds) for _ in range(options.runs)]
    rates = {name: [run[name] for run in runs] for name in runs[0]}
    median = {name: statistics.median(each) for name, each in rates.items()}
    print(f"SHA-256, {_core.info()['sha256']}, GB/s, median of {options.runs}", file=sys.stderr)
    for name, each in rates.items():
        print(f"{name:24}{median[name] / 1e9:8.3f}  ({min(each) / 1e9:.3f} - {max(each) / 1e9:.3f})", file=sys.stderr)
    bars = judge(median)
    result = {
        "benchmark": "micro/sha256",
        **report.circumstances(),
        "tier": _core.info()["sha256"],
        "lanes": _core.lanes(),
        "bytes": PIECE,
        "seconds": seconds,
        "runs": options.runs,
        "bytes_per_s": {name: report.spread(each) for name, each in rates.items()},
        "bars": report.bars(bars),
    }
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
