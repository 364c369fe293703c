"""What CPU does it cost to take layers from gzip to their diff_ids and to tar entries, without making files?

The baseline is ``igzip -d`` to /dev/null and, measured apart, one lane of SHA-256 over as many bytes from the cache.
All of it is done on one thread. ``python -m benchmarks.micro.inflate`` prints JSON on stdout; the exit status is 1 when
the bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch
from benchmarks.measure import Usage, here, measure
from benchmarks.report import Bar
from fastoci import _core, _extract
from fastoci.stream.inflate import Inflate
from fastoci.transfer.zstd_window import FREE_WINDOW

BASE = "igzip -d + one lane"
OURS = "inflate, hash, tar"
BAR = 1.05
AHEAD = 8  # buffers that are inflated before they are used: the engine's way (transfer/unpacker.py)


def pipeline(sample: data.Sample, *, hashed: bool = True, parsed: bool = True, ahead: int = 1) -> int:
    """Inflate all layers, hash and parse what comes; its bytes.

    Args:
        ahead: buffers that are filled before the next stage has them.
    """
    pool, produced = _core.Pool((ahead + 1) * _core.BUFFER_SIZE), 0
    for layer, diff_id in zip(sample.layers, _diff_ids(sample), strict=True):
        state, tar = _core.Sha256(), _extract.TarReader()
        for outs in inflated(layer, pool, ahead):
            for out in outs:
                if hashed:
                    _core.update_many([(state, out)])
                if parsed:
                    assert _extract.TAR_CODES.get(tar.feed(out)) is None
                    tar.entries()
                produced += len(out)
                out.release()
        assert not hashed or f"sha256:{state.hexdigest()}" == diff_id, layer
        assert not parsed or tar.finish() == 0, layer
    return produced


def _diff_ids(sample: data.Sample) -> list[str]:
    found: list[str] = json.loads(sample.config.read_bytes())["rootfs"]["diff_ids"]
    return found


def inflated(layer: Path, pool: _core.Pool, ahead: int) -> Iterator[list[_core.Buffer]]:
    """Groups of inflated buffers, each with its reference."""
    inflate, offset = Inflate(window=FREE_WINDOW), 0
    source = take(pool)
    fd = os.open(layer, os.O_RDONLY)
    while (count := source.pread(fd, offset)) > 0:
        offset += count
        more = inflate.take(source)
        while more:
            outs = list[_core.Buffer]()
            while more and len(outs) < ahead:
                outs.append(take(pool))
                more = inflate.fill(outs[-1])
            yield outs
        source.clear()
    os.close(fd)
    source.release()
    inflate.finish()


def take(pool: _core.Pool) -> _core.Buffer:
    buffer = pool.take()
    assert buffer is not None
    return buffer


def lane(size: int) -> None:
    """Hash ``size`` bytes, 256 KiB of the cache over and over."""
    state, piece = _core.Sha256(), os.urandom(256 << 10)
    for _ in range(size // len(piece)):
        state.update(piece)
    state.update(piece[: size % len(piece)])


def compare(sample: data.Sample, *, size: int, runs: int) -> dict[str, list[Usage]]:
    """Run all in turns; ``size`` is that of the tars."""
    igzip = "; ".join(f"igzip -dc < {shlex.quote(str(layer))} > /dev/null" for layer in sample.layers)
    taken: dict[str, list[Usage]] = {BASE: []}

    def note(name: str, usage: Usage) -> Usage:
        taken.setdefault(name, []).append(usage)
        return usage

    for _ in range(runs):
        first = note("igzip -d", measure(["sh", "-euc", igzip]))
        second = note("one lane", here(lambda: lane(size)))
        peak = max(first.rss, second.rss)
        note(BASE, Usage(first.wall_s + second.wall_s, first.cpu_s + second.cpu_s, peak))
        note(OURS, here(lambda: pipeline(sample)))
        note(f"{OURS}, {AHEAD} buffers ahead", here(lambda: pipeline(sample, ahead=AHEAD)))
        note("inflate alone", here(lambda: pipeline(sample, hashed=False, parsed=False)))
        note("inflate, tar", here(lambda: pipeline(sample, hashed=False)))
    return taken


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and compare with the bar."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the layers' 950 MB")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the image; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    sample = data.prepare("img8", options.work, scale=options.scale)
    size = pipeline(sample)
    taken = compare(sample, size=size, runs=options.runs)
    compressed = sum(layer.stat().st_size for layer in sample.layers)
    title = f"{compressed / 1e6:.0f} MB of gzip, {size / 1e6:.0f} MB of tar, median of {options.runs}"
    print(report.table(title, taken, to=BASE), file=sys.stderr)
    bar = Bar(f"{OURS} / {BASE}, CPU", report.ratios(taken, BASE)[OURS]["cpu"], BAR)
    result = {
        "benchmark": "micro/inflate",
        **report.circumstances(),
        "bytes": {"gzip": compressed, "tar": size},
        "results": {name: report.summary(runs) for name, runs in taken.items()},
        "cpu_s_per_gb": {
            name: statistics.median(run.cpu_s for run in runs) / size * 1e9 for name, runs in taken.items()
        },
        "ratios": report.ratios(taken, BASE),
        "bars": report.bars([bar]),
    }
    report.publish(result, options.json)
    return 0 if bar.met else 1


if __name__ == "__main__":
    sys.exit(main())
