"""How much of a pulled image of 2 GB stays in the page cache, beside a plain write of as much and skopeo?

The image is two layers of 1 GB that do not compress; it is pulled onto ext4 and XFS on loop devices (as root). Counted
are the pages of the files that were written (mincore), so that what nginx, the programs and the loop device's own file
keep does not matter. ``python -m benchmarks.macro.page_cache`` prints JSON on stdout; the exit status is 1 when the bar
is missed.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch, server
from benchmarks.macro.contenders import FASTOCI, LAYERS, contenders, layers
from benchmarks.report import Bar

PLAIN = "dd"
DONTCACHE, ADVISED = 0.10, 0.25  # of the bytes; by whether kernel and file system know RWF_DONTCACHE
_RWF_DONTCACHE = 0x80


def cached(directory: Path) -> int:
    """Bytes of all files below a directory that are in the page cache."""
    return sum(_cached(path) for path in directory.rglob("*") if path.is_file() and path.stat().st_size)


def _cached(path: Path) -> int:
    count = -(-path.stat().st_size // mmap.PAGESIZE)
    pages = (ctypes.c_ubyte * count)()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as view:
        start = ctypes.c_char.from_buffer(view)
        address, size = ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(view))
        failed = ctypes.CDLL(None, use_errno=True).mincore(address, size, pages)
        del start
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


def limit(directory: Path) -> float:
    """The bar for this kernel and file system."""
    fd = os.open(directory / "probe", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwritev(fd, [b"probe"], 0, _RWF_DONTCACHE)
    except OSError:
        return ADVISED
    finally:
        os.close(fd)
        os.unlink(directory / "probe")
    return DONTCACHE


def shares(sample: data.Sample, address: str, work: Path, *, runs: int) -> dict[str, list[float]]:
    """What part of the image's bytes each of them leaves in the page cache."""

    def plain(sample: data.Sample, address: str, target: Path) -> None:
        for layer in sample.layers:
            command = ["dd", f"if={layer}", f"of={target}/{layer.name}", "bs=1M", "conv=fdatasync", "status=none"]
            subprocess.run(command, check=True)

    writers: dict[str, Callable[[data.Sample, str, Path], object]] = {
        each.name: each.run
        for each in (*contenders(unpacking=False), layers())
        if each.name.startswith((FASTOCI, "skopeo"))
    }
    found: dict[str, list[float]] = {}
    for _ in range(runs):
        for name, run in ({**writers, PLAIN: plain}).items():
            target = work / "target"
            target.mkdir()
            run(sample, address, target)
            found.setdefault(name, []).append(cached(target) / sample.size)
            scratch.clear(target)
    return found


def bars_of(results: Mapping[str, Mapping[str, Sequence[float]]], limits: Mapping[str, float]) -> list[Bar]:
    """The largest share of ours on each file system."""
    return [
        Bar(f"{kind}: in the page cache after {name}, of its bytes", max(found[name]), limits[kind])
        for kind, found in results.items()
        for name in (FASTOCI, LAYERS)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Pull on each file system, print, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fs", choices=("ext4", "xfs"), action="append", help="one of the file systems only")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the image's 2 GB")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the image; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    sample = data.prepare("pair", options.work, scale=options.scale)
    results, limits = {}, {}
    for kind in options.fs or ("ext4", "xfs"):
        size = 4 * sample.size
        with server.serve([sample]) as address, scratch.destination(kind, options.work, size=size) as target:
            limits[kind] = limit(target)
            results[kind] = shares(sample, address, target, runs=options.runs)
        for name, found in results[kind].items():
            print(f"{kind}: {name} leaves {max(found):.1%} of {sample.size / 1e6:.0f} MB", file=sys.stderr)
    bars = bars_of(results, limits)
    result = {
        "benchmark": "macro/page_cache",
        **report.circumstances(),
        "bytes": sample.size,
        "share": {kind: {name: report.spread(each) for name, each in found.items()} for kind, found in results.items()},
        "bars": report.bars(bars),
    }
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
