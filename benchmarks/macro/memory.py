"""Peak memory of a pull of one layer of 1 GB, with and without unpacking; the bar is 150 MiB.

``python -m benchmarks.macro.memory`` prints JSON on stdout; the exit status is 1 above the bar.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch, server
from benchmarks.measure import measure

BAR_MIB = 150


def main(arguments: Sequence[str] | None = None) -> int:
    """Pull twice, print, and compare with the bar."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the layer's 1 GB")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the image; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    sample = data.prepare("big", options.work, scale=options.scale)
    peaks = {}
    with server.serve([sample]) as address, scratch.destination("tmpfs", options.work, size=0) as target:
        for name, more in (("pull", []), ("pull --rootfs", ["--rootfs", str(target / "root")])):
            command = [sys.executable, "-m", "fastoci", "pull", f"{address}/{sample.name}:t", "--progress", "none"]
            usage = measure([*command, "--store", str(target / "store"), *more])
            peaks[name] = usage.rss / (1 << 20)
            print(f"{name}: peak {peaks[name]:.0f} MiB, {usage.wall_s:.2f} s", file=sys.stderr)
            shutil.rmtree(target / "store")
    result = {
        "benchmark": "macro/memory",
        **report.circumstances(),
        "bytes": sample.size,
        "peak_mib": peaks,
        "bar_mib": BAR_MIB,
    }
    report.publish(result, options.json)
    return 0 if max(peaks.values()) <= BAR_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
