"""Does a pull keep to --max-bandwidth, and what do others lose beside a prefetch, with and without --nice?

``bandwidth``: at 50 MB/s, over HTTP and TLS, of one layer and of eight, the worst that any window of 5 s differs from
it, by what the kernel received on the connections. ``nice`` (as root): what a busy loop on each core, and a reader of
4 KiB at random from a loop-mounted ext4 that the store is on, too, lose beside a prefetch of 2 GB. nginx has the lowest
priority then: in life it is on another machine. Prints JSON; the exit status is 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import itertools
import mmap
import os
import re
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch, server
from benchmarks.report import Bar
from fastoci.image.platform import Platform
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, Seeded

RATE = 50_000_000  # bytes a second
CASES = ("http, 1 layer", "http, 8 layers", "tls, 1 layer", "tls, 8 layers")
_DEVIATION, _LOSS = 0.05, 0.10
_SAMPLE_S = 0.02
_SETTLE_S = 0.5  # until the pull has begun
_FASTOCI = [sys.executable, "-m", "fastoci"]

# Counts what it does in the first bytes of a file.
_BUSY = """
import mmap, os, struct, sys
os.sched_setaffinity(0, {int(sys.argv[2])})
with open(sys.argv[1], "r+b") as file:
    place, count = mmap.mmap(file.fileno(), 8), 0
while True:
    for _ in range(10_000):
        pass
    count += 1
    struct.pack_into("Q", place, 0, count)
"""
_READER = """
import mmap, os, random, struct, sys
with open(sys.argv[1], "r+b") as file:
    place, count = mmap.mmap(file.fileno(), 8), 0
fd, buffer = os.open(sys.argv[2], os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 4096)
pages = os.fstat(fd).st_size // 4096
while True:
    os.preadv(fd, [buffer], random.randrange(pages) * 4096)
    count += 1
    struct.pack_into("Q", place, 0, count)
"""


def image(work: Path, layers: int, size: int) -> data.Sample:
    """An image of so many layers that do not compress, of ``size`` bytes together."""

    def build(parts: Path) -> dict[str, Image]:
        made = [
            Layer.build(iter([Entry("big", data=Seeded(seed, size // layers, 0.0))]), into=parts)
            for seed in range(layers)
        ]
        return {"throttled": Image.build(made, platform=Platform.host())}

    return data.samples(data.kept(work, f"throttled-{layers}-{size}", build))[0]


def received(port: str, seen: dict[str, int]) -> int:
    """Bytes that all connections to a port have received, also those that are gone; ``seen`` keeps them."""
    command = ["ss", "-tinH", f"dport = :{port}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for local, count in re.findall(r"ESTAB\s+\d+\s+\d+\s+(\S+).*\n.*?bytes_received:(\d+)", lines):
        seen[local] = max(seen.get(local, 0), int(count))
    return sum(seen.values())


def deviation(moments: Sequence[tuple[float, int]], window_s: float) -> float:
    """The worst that any window differs from the rate, in parts of it; by what came until its end.

    Raises:
        RuntimeError: there is no window.
    """
    begin = next(at for at, size in moments if size)
    last = max(size for _, size in moments)
    end = next(at for at, size in moments if size == last)
    within = [(at, size) for at, size in moments if begin + _SETTLE_S * min(1.0, window_s) <= at <= end]
    worst = [
        (later - earlier) / (until - at) / RATE - 1
        for (at, earlier), rest in ((within[number], within[number:]) for number in range(len(within)))
        for until, later in itertools.islice((each for each in rest if each[0] >= at + window_s), 1)
    ]
    if not worst:
        raise RuntimeError(f"no window of {window_s:g} s in {end - begin:.1f} s")
    return max(worst, key=abs)


def kept(case: str, work: Path, *, seconds: float, window_s: float) -> float:
    """How far a pull is from its bandwidth."""
    kind, layers = case.split(", ")
    sample = image(work, int(layers.split()[0]), round(RATE * seconds))
    moments, seen = list[tuple[float, int]](), dict[str, int]()
    with server.serve([sample], tls=kind == "tls") as address, scratch.destination("tmpfs", work, size=0) as target:
        options = ["--max-bandwidth", str(RATE), "--tls-verify=false", "--progress", "none", "--store", str(target)]
        command = [*_FASTOCI, "pull", f"{address}/{sample.name}:t", *options]
        port = address.rpartition(":")[2]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                moments.append((time.monotonic(), received(port, seen)))
                time.sleep(_SAMPLE_S)
        if process.returncode:
            raise RuntimeError(f"fastoci ended with status {process.returncode}")
    return deviation(moments, window_s)


def bandwidth(options: argparse.Namespace) -> tuple[dict[str, Any], list[Bar]]:
    """Each case once."""
    found = {
        case: kept(case, options.work, seconds=options.seconds, window_s=options.window)
        for case in options.case or CASES
    }
    bars = [
        Bar(f"{case}: from the bandwidth, over {options.window:g} s", abs(each), _DEVIATION)
        for case, each in found.items()
    ]
    return found, bars


@contextmanager
def counting(place: Path, code: str, *arguments: object) -> Iterator[Callable[[], int]]:
    """A process of normal priority that does something again and again; how often so far."""
    place.write_bytes(bytes(8))
    command = [sys.executable, "-c", code, str(place), *map(str, arguments)]
    with place.open("rb") as file, mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ) as view:
        process = subprocess.Popen(command, preexec_fn=_normal)
        try:
            yield lambda: int(struct.unpack_from("Q", view)[0])
        finally:
            process.kill()
            process.wait()


def _normal() -> None:
    os.setpriority(os.PRIO_PROCESS, 0, 0)


def beside(count: Callable[[], int], command: Sequence[str] | None, seconds: float) -> float:
    """How often a second something is done beside a command, until that ends or for so long; or alone."""
    begun, before = time.monotonic(), count()
    if command is None:
        time.sleep(seconds)
        return (count() - before) / (time.monotonic() - begun)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=_normal) as process:
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        rate = (count() - before) / (time.monotonic() - begun)
        process.kill()
    return rate


def losses(
    counts: Callable[[], int], address: str, store: Path, *, runs: int, seconds: float
) -> dict[str, list[float]]:
    """What is lost beside a prefetch, in parts of what is done alone, by whether it is nice."""
    lost: dict[str, list[float]] = {"plain": [], "nice": []}
    for name, options in [("plain", ()), ("nice", ("--nice",))] * runs:
        alone = beside(counts, None, seconds)
        directory = store / "store"
        command = [*_FASTOCI, "prefetch", f"{address}/throttled:t", "--progress", "none", "--store", str(directory)]
        lost[name].append(1 - beside(counts, [*command, *options], seconds) / alone)
        if directory.exists():
            scratch.clear(directory)
        os.sync()
    return lost


def nice(options: argparse.Namespace) -> tuple[dict[str, Any], list[Bar]]:
    """A busy loop on each core, then a reader."""
    if os.geteuid() != 0:
        return {"skipped": "only root mounts, and gives a process its priority back"}, []
    sample = image(options.work, 2, round(options.scale * (2 << 30)))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, 19)  # nginx inherits it
    try:
        with server.serve([sample]) as address:
            os.setpriority(os.PRIO_PROCESS, 0, own)
            with scratch.destination("ext4", options.work, size=3 * sample.size) as disk:
                results = _compared(address, disk, options)
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, own)
    bars = [
        Bar(f"{what}: lost beside a prefetch with --nice", statistics.median(found["nice"]), _LOSS)
        for what, found in results.items()
    ]
    return {what: {name: report.spread(each) for name, each in found.items()} for what, found in results.items()}, bars


def _compared(address: str, disk: Path, options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    cores = sorted(os.sched_getaffinity(0))
    results = {}
    with ExitStack() as loops:
        counts = [loops.enter_context(counting(options.work / f"count-{core}", _BUSY, core)) for core in cores]
        time.sleep(_SETTLE_S)
        results["a busy loop on each core"] = losses(
            lambda: sum(count() for count in counts), address, disk, runs=options.runs, seconds=options.alone
        )
    file = disk / "random"
    with file.open("wb") as writing:
        for _ in range(max(1, round(options.scale * 256))):
            writing.write(os.urandom(1 << 20))
        os.fsync(writing.fileno())
    with counting(options.work / "count-reader", _READER, file) as count:
        time.sleep(_SETTLE_S)
        results["a random reader"] = losses(count, address, disk, runs=options.runs, seconds=options.alone)
    for place in options.work.glob("count-*"):
        place.unlink()
    return results


PARTS = {"bandwidth": bandwidth, "nice": nice}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, print, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=PARTS, action="append", help="one of the parts only")
    parser.add_argument("--case", choices=CASES, action="append", help="of bandwidth: one of the cases only")
    parser.add_argument("--seconds", type=float, default=15.0, help="of bandwidth: that a pull takes")
    parser.add_argument("--window", type=float, default=5.0, help="of bandwidth: seconds that are judged")
    parser.add_argument("--runs", type=int, default=3, help="of nice")
    parser.add_argument(
        "--alone", type=float, default=3.0, help="of nice: seconds without a prefetch, and beside one at most"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of nice: multiplies the image's 2 GB")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the images; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    results, judged = {}, list[Bar]()
    for name in options.part or PARTS:
        results[name], bars = PARTS[name](options)
        judged += bars
    report.publish(
        {"benchmark": "macro/throttle", **report.circumstances(), "results": results, "bars": report.bars(judged)},
        options.json,
    )
    return 0 if all(bar.met for bar in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
