"""How fast is SHA-256 on one stream and on several together, with and without the CPU's SHA instructions?

``openssl speed`` is the baseline of one stream, one stream that of several. Measured are the installed package, and the
same C sources built with the compiler flags of this Python and of Debian's, without Python around them. Rates are bytes
of all streams in a second of CPU time. ``python -m benchmarks.micro.sha256`` prints JSON on stdout; the exit status is
1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import report
from benchmarks.measure import call
from benchmarks.micro import driver
from benchmarks.micro.driver import Driver
from benchmarks.report import Bar
from fastoci import _core

PIECE = 256 << 10  # bytes of one call
SECONDS = 3  # of openssl, whose clock has a hundred ticks a second; ours take a third of it
MASK = {"OPENSSL_ia32cap": ":~0x20000000"}  # bit 29 of EBX of CPUID leaf 7: the SHA instructions
WITHOUT = {**MASK, "FASTOCI_SHA256": "openssl"}


def stream(seconds: float) -> float:
    """Bytes a second of ``Sha256.update``, from a piece in the cache."""
    state, piece = _core.Sha256(), os.urandom(PIECE)
    return _rate(lambda: state.update(piece), PIECE, seconds)


def streams(count: int, seconds: float) -> float:
    """Bytes a second of ``update_many`` with a full buffer for each of ``count`` streams, as the engine calls it."""
    pool = _core.Pool(count * _core.BUFFER_SIZE)
    pairs = []
    for _ in range(count):
        buffer = pool.take()
        assert buffer is not None
        buffer.append(os.urandom(_core.BUFFER_SIZE))
        pairs.append((_core.Sha256(), buffer))
    return _rate(lambda: _core.update_many(pairs), count * _core.BUFFER_SIZE, seconds)


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


def installed(seconds: float) -> dict[str, float]:
    """The package's rates, each from a process of its own."""
    here = "benchmarks.micro.sha256"
    return {
        "one": call(here, "stream", seconds),
        "masked": call(here, "stream", seconds, environment=WITHOUT),
        **{f"{count} in lanes": call(here, "streams", count, seconds) for count in (1, 2, 3)},
    }


def built(program: Driver, seconds: float) -> dict[str, float]:
    """The same of a build; its kernels for two and three streams, whichever the package would choose."""
    tier = _core.tier().partition(",")[0]
    return {
        "one": program.run("stream", tier, seconds),
        "masked": program.run("stream", "openssl", seconds, environment=MASK),
        **{f"{count} in lanes": program.run("buffers", tier, seconds, count) for count in (1, 2, 3)},
    }


def measure(programs: Mapping[str, Driver], seconds: float) -> dict[str, dict[str, float]]:
    """One run of all, by build; ``openssl speed`` under its own name."""
    ours = seconds / 3
    return {
        "openssl speed": {"one": openssl(max(1, seconds), {}), "masked": openssl(max(1, seconds), MASK)},
        "installed": installed(ours),
        **{name: built(program, ours) for name, program in programs.items()},
    }


def bars_of(median: Mapping[str, Mapping[str, float]]) -> list[Bar]:
    """The bars of every build, from the medians."""
    base = median["openssl speed"]
    bars = []
    for build, rate in median.items():
        if build != "openssl speed":
            pairs = [("one", base["one"], "openssl speed", 0.98), ("masked", base["masked"], "openssl speed", 0.95)]
            pairs += [(f"{n} in lanes", rate["1 in lanes"], "one", least) for n, least in ((2, 1.85), (3, 2.1))]
            bars += [Bar(f"{build}: {each} / {to}", rate[each] / by, least, True) for each, by, to, least in pairs]
    return bars


def table(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """The spread of every rate, by build; prints it to stderr."""
    print(f"SHA-256, {_core.tier()}, GB/s, median of {len(runs)}", file=sys.stderr)
    rates = {build: {rate: [run[build][rate] for run in runs] for rate in runs[0][build]} for build in runs[0]}
    for build, each in rates.items():
        print(build, file=sys.stderr)
        for rate, values in each.items():
            low, middle, high = (v / 1e9 for v in (min(values), statistics.median(values), max(values)))
            print(f"  {rate:14}{middle:8.3f}  ({low:.3f} - {high:.3f})", file=sys.stderr)
    return {build: {rate: report.spread(values) for rate, values in each.items()} for build, each in rates.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all in turns, print, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--scale", type=float, default=1.0, help=f"multiplies the {SECONDS} s of openssl (1 s at least)"
    )
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    seconds = SECONDS * options.scale
    with tempfile.TemporaryDirectory(prefix="fastoci-sha256-") as folder:
        programs = {f"flags of {name}": driver.build(name, each, Path(folder)) for name, each in driver.flags().items()}
        spread = table([measure(programs, seconds) for _ in range(options.runs)])
    bars = bars_of({build: {rate: each["median"] for rate, each in rates.items()} for build, rates in spread.items()})
    result = {
        "benchmark": "micro/sha256",
        **report.circumstances(),
        "tier": _core.tier(),
        "lanes": _core.lanes(),
        "flags": {name: program.flags for name, program in programs.items()},
        "bytes": PIECE,
        "seconds": seconds,
        "runs": options.runs,
        "bytes_per_s": spread,
        "bars": report.bars(bars),
    }
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
