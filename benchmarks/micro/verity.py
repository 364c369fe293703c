"""What CPU does the fs-verity digest cost beside what a layer costs anyway, and is it cheap enough to be always on?

The baseline takes layers from gzip to their diff_ids and writes the tars to one file in memory, on one thread; the lane
hashes the same buffers once more, in blocks of 4096. ``python -m benchmarks.micro.verity`` prints JSON on stdout; the
exit status is 1 when the bar is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch
from benchmarks.measure import Usage, here
from benchmarks.micro.inflate import inflated, lane
from benchmarks.report import Bar
from fastoci import _core
from fastoci.verity.fs_verity import BLOCK, FsVerity

BASE = "inflate, hash, write"
OURS = f"{BASE}, fs-verity"
STREAM = "one stream of SHA-256"
ALONE = "fs-verity alone"
BAR = 0.75  # of one stream's CPU: the blocks share lanes
ALWAYS = 1.02  # of the baseline's: what costs more is done only when it is asked for


def pipeline(sample: data.Sample, work: Path, *, verity: bool) -> int:
    """Inflate, hash and write all layers; the bytes of their tars."""
    pool, produced = _core.Pool(2 * _core.BUFFER_SIZE), 0
    for layer in sample.layers:
        state, tree = _core.Sha256(), FsVerity()
        with tempfile.TemporaryFile(dir=work) as file:
            offset = BLOCK
            for out in (out for outs in inflated(layer, pool, 1) for out in outs):
                _core.update_many([(state, out)])
                assert out.pwrite(file.fileno(), offset) == 0
                if verity:
                    tree.feed(out)
                offset += len(out)
                out.release()
            if verity:
                tree.finish(file.fileno(), "layer")
        produced += offset - BLOCK
    return produced


def alone(size: int) -> None:
    """The digest of ``size`` bytes, a buffer of the cache over and over."""
    tree, piece = _core.VerityTree(), os.urandom(256 << 10)
    for _ in range(size // len(piece)):
        tree.feed(piece)
    tree.feed(piece[: size % len(piece)])


def compare(sample: data.Sample, work: Path, *, size: int, runs: int) -> dict[str, list[Usage]]:
    """Run all in turns; ``size`` is that of the tars."""
    taken: dict[str, list[Usage]] = {BASE: [], OURS: [], STREAM: [], ALONE: []}
    for _ in range(runs):
        taken[BASE].append(here(lambda: pipeline(sample, work, verity=False)))
        taken[OURS].append(here(lambda: pipeline(sample, work, verity=True)))
        taken[STREAM].append(here(lambda: lane(size)))
        taken[ALONE].append(here(lambda: alone(size)))
    return taken


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and compare with the bar."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the layers' 950 MB")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the image; in memory, please")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    sample = data.prepare("img8", options.work, scale=options.scale)
    size = pipeline(sample, options.work, verity=False)
    taken = compare(sample, options.work, size=size, runs=options.runs)
    print(report.table(f"{size / 1e6:.0f} MB of tar, median of {options.runs}", taken, to=BASE), file=sys.stderr)
    ratio = report.ratios(taken, BASE)[OURS]["cpu"]
    bar = Bar(f"{ALONE} / {STREAM}, CPU", report.ratios(taken, STREAM)[ALONE]["cpu"], BAR)
    result = {
        "benchmark": "micro/verity",
        **report.circumstances(),
        "bytes": {"tar": size},
        "results": {name: report.summary(runs) for name, runs in taken.items()},
        "ratios": report.ratios(taken, BASE),
        "always": {"ratio": ratio, "at_most": ALWAYS, "cheap_enough": ratio <= ALWAYS},
        "bars": report.bars([bar]),
    }
    report.publish(result, None)
    return 0 if bar.met else 1


if __name__ == "__main__":
    sys.exit(main())
