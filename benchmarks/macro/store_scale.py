"""What does a store of a million blobs and 50,000 references cost, beside one of a thousand blobs?

Asks: a pull into it, ``missing()`` of 10,000 blobs beside as many bare ``os.stat``, ``ls``, ``df``, and the plan of gc.
``--cold`` asks for the last three once more after the kernel forgot all that it had read (as root, on a machine of
one's own). How many files each looks at, beyond those for the small store, is counted with strace. ``python -m
benchmarks.macro.store_scale`` prints JSON on stdout, and draws ``--plot`` when matplotlib is there; the exit status is
1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch, server
from benchmarks.data import Sample
from benchmarks.macro.crowd import Crowd, crowd
from benchmarks.measure import Usage, measure
from benchmarks.report import Bar
from fastoci.store.store import Store

PULL, MISSING, LS, DF, GC, GC_MB = 1.1, 1.5, 2.0, 10.0, 15.0, 500
BIG, SMALL = "pull, full store", "pull, small store"
COMMANDS = {"ls": ["ls"], "df": ["df"], "gc plan": ["gc", "--dry-run"]}
_FULL = {"ls": LS, "df": DF, "gc plan": GC}
_BESIDE = 200 << 20  # bytes of an image that is pulled, and some more
_EACH = 18 << 10  # bytes of a file system that is sparse itself, for each blob: ext4 makes an inode for 16 KiB
_STATS = re.compile(r"\s(\d+)\s+(?:\d+\s+)?(?:newfstatat|fstatat64|lstat|stat|statx)$")


def fastoci(command: Sequence[str], store: Path) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "fastoci", *command, "--store", str(store)]


def lookups(full: Crowd, turns: int) -> dict[str, list[float]]:
    """Seconds of ``missing`` and of bare stats of the same blobs, in turns, both on one thread."""
    directory = full.path / "blobs" / "sha256"
    paths = [str(directory / blob.digest.hex) for blob in full.blobs]
    taken: dict[str, list[float]] = {"missing": [], "os.stat": []}

    async def ask() -> None:
        store = Store.at(full.path)
        try:
            for turn in range(2 * turns):
                for name in ("missing", "os.stat") if turn % 2 else ("os.stat", "missing"):  # the first one warms up
                    started = time.perf_counter()
                    if name == "missing":
                        assert await store.missing(full.blobs) == []
                    else:
                        for path in paths:
                            os.stat(path)
                    taken[name].append(time.perf_counter() - started)
        finally:
            store.close()

    asyncio.run(ask())
    return taken


def pulls(sample: Sample, address: str, stores: Mapping[str, Path], turns: int) -> dict[str, list[Usage]]:
    """The same image into each store, in turns; it is removed again each time."""
    taken: dict[str, list[Usage]] = {name: [] for name in stores}
    for _ in range(turns):
        for name, store in stores.items():
            command = fastoci(["pull", f"{address}/{sample.name}:t", "--progress", "none"], store)
            taken[name].append(measure(command))
            for blob in (*sample.blobs, sample.manifest):
                (store / "blobs" / "sha256" / blob.name).unlink()
    return taken


def stats(command: Sequence[str]) -> int:
    """How many files a command looks at; 0 without strace."""
    if shutil.which("strace") is None:
        return 0
    traced = ["strace", "-f", "-c", "-e", "trace=?newfstatat,?stat,?lstat,?statx", *command]
    done = subprocess.run(traced, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    return sum(int(match[1]) for line in done.stderr.splitlines() if (match := _STATS.search(line)))


def forget() -> None:
    """Let the kernel drop all names, inodes and pages that it can read again."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def bars_of(results: Mapping[str, Sequence[Usage]], looked: Mapping[str, Sequence[float]]) -> Iterator[Bar]:
    """Against the small store, the bare calls, and the clock."""
    ratio = report.ratios({BIG: results[BIG], SMALL: results[SMALL]}, SMALL)[BIG]
    yield from (Bar(f"{BIG} / {SMALL}, {kind}", ratio[kind], PULL) for kind in ("wall", "cpu"))
    medians = {name: statistics.median(values) for name, values in looked.items()}
    yield Bar("missing / os.stat", medians["missing"] / medians["os.stat"], MISSING)
    for name in results.keys() & _FULL.keys():
        yield Bar(f"{name}, wall s", statistics.median(run.wall_s for run in results[name]), _FULL[name])
    if "gc plan" in results:
        yield Bar("gc plan, peak MB", max(run.rss for run in results["gc plan"]) / 1e6, GC_MB)


def draw(results: Mapping[str, Sequence[Usage]], to: Path) -> None:
    """Bars of the medians; says so when matplotlib is not there."""
    try:
        from matplotlib import pyplot  # type: ignore[import-not-found]
    except ImportError:
        print("matplotlib is not installed: no plot", file=sys.stderr)
        return
    figure, axes = pyplot.subplots()
    axes.barh(list(results), [statistics.median(run.wall_s for run in runs) for runs in results.values()])
    axes.set_xlabel("seconds, wall, median")
    figure.savefig(to, bbox_inches="tight")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fs", choices=scratch.FILE_SYSTEMS, default="tmpfs", help="where the stores are")
    parser.add_argument("--blobs", type=int, default=1_000_000)
    parser.add_argument("--references", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=0.05, help="multiplies the image that is pulled, of 950 MB")
    parser.add_argument("--cold", action="store_true", help="also after dropping the kernel's caches")
    parser.add_argument("--work", type=Path, default=scratch.WORK)
    parser.add_argument("--plot", type=Path, help="the file for a plot")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make both stores, ask, print, and compare with the bars."""
    options = parse(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    sample = data.prepare("img8", options.work, scale=options.scale)
    size = options.blobs * _EACH + 4 * sample.size + _BESIDE
    with scratch.destination(options.fs, options.work, size=size) as target, server.serve([sample]) as address:
        started = time.monotonic()
        full = crowd(target / "full", blobs=options.blobs, references=options.references)
        print(f"made {full.count} blobs in {time.monotonic() - started:.0f} s", file=sys.stderr)
        small = crowd(target / "small", blobs=min(1000, options.blobs), references=min(50, options.references))
        results = pulls(sample, address, {BIG: full.path, SMALL: small.path}, options.runs)
        looked = lookups(full, options.runs)
        counted = {}
        cold: dict[str, list[Usage]] = {}
        for name, words in COMMANDS.items():
            command = fastoci(words, full.path)
            results[name] = [measure(command) for _ in range(options.runs)]
            counted[name] = max(0, stats(command) - stats(fastoci(words, small.path)))
            if options.cold:
                forget()
                cold[name] = [measure(command)]
    print(report.table(f"{full.count} blobs, {full.references} references", results, to=SMALL), file=sys.stderr)
    bars = list(bars_of(results, looked))
    if options.plot is not None:
        draw(results, options.plot)
    result = {
        "benchmark": "macro/store_scale",
        **report.circumstances(),
        "file_system": options.fs,
        "blobs": full.count,
        "references": full.references,
        "results": {name: report.summary(runs) for name, runs in results.items()},
        "cold": {name: report.summary(runs) for name, runs in cold.items()},
        "stats": counted,
        "lookups_s": {name: report.spread(values) for name, values in looked.items()},
        "bars": report.bars(bars),
    }
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
