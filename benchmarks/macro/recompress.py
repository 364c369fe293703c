"""How long does it take to compress an image's layers anew, on the way from one layout to another, beside skopeo?

``img8`` (eight layers in gzip) and ``one`` (the same in one layer) become zstd; ``--compress`` says something else. The
layouts are in memory. ``python -m benchmarks.macro.recompress`` prints JSON on stdout; the exit status is 1 when a bar
is missed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch
from benchmarks.measure import Usage, measure
from benchmarks.report import Bar

OURS, SKOPEO = "fastoci copy", "skopeo copy"
WALL = 0.5  # of skopeo's, at most


def commands(sample: data.Sample, work: Path, compression: str) -> dict[str, list[str]]:
    """What compresses anew, by name; each writes a layout of its own, which is not there before."""
    source = f"oci:{sample.layout}:{sample.name}"
    ours = [sys.executable, "-m", "fastoci", "copy", source, f"oci:{work}/out", "--compress", compression]
    ours += ["--store", str(work / "store"), "--progress", "none"]
    found = {OURS: ours}
    if shutil.which("skopeo"):
        skopeo = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-compress-format", compression.partition(":")[0]]
        found[SKOPEO] = [*skopeo, source, f"oci:{work}/out"]
    return found


def run(command: Sequence[str], work: Path) -> tuple[Usage, int]:
    """Run once; what it took, and the bytes of the new layout."""
    shutil.rmtree(work / "out", ignore_errors=True)
    usage = measure(command)
    return usage, sum(path.stat().st_size for path in (work / "out" / "blobs" / "sha256").iterdir())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--image", action="append", choices=data.NAMES, help="several if need be; img8 and one")
    parser.add_argument("--scale", type=float, default=1.0, help="of the images")
    parser.add_argument("--compress", default="zstd:3", help="as fastoci copy takes it")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="in memory, please")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    results: dict[str, object] = {}
    judged = []
    for name in options.image or ("img8", "one"):
        sample = data.prepare(name, options.work, scale=options.scale)
        taken: dict[str, list[Usage]] = {}
        sizes: dict[str, int] = {}
        for _ in range(options.runs):
            for contender, command in commands(sample, options.work, options.compress).items():
                usage, sizes[contender] = run(command, options.work)
                taken.setdefault(contender, []).append(usage)
        title = f"{name}, {sample.size / 1e6:.0f} MB to {options.compress}, median of {options.runs}"
        print(report.table(title, taken, to=OURS), file=sys.stderr)
        results[name] = {"bytes": sizes, **{each: report.summary(runs) for each, runs in taken.items()}}
        if SKOPEO in taken:
            judged.append(Bar(f"{name}: {OURS} / {SKOPEO}, wall", report.ratios(taken, SKOPEO)[OURS]["wall"], WALL))
    result = {
        "benchmark": "macro/recompress",
        **report.circumstances(),
        "compress": options.compress,
        "results": results,
        "bars": report.bars(judged),
    }
    report.publish(result, None)
    for name in ("out", "store"):
        shutil.rmtree(options.work / name, ignore_errors=True)
    return 0 if all(bar.met for bar in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
