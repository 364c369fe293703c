"""How do a pull, and a pull with unpack, grow with cores, layers and connections, beside what their stages let expect?

``python -m benchmarks.scaling`` prints JSON on stdout and a table on stderr; ``--plot FILE`` draws it. The same files
are pulled in one layer and in several, by fastoci held to 1 to N cores, from nginx on loopback; then by 1 to 8
connections that carry 100 MB/s each, on all cores. The model knows the CPU time of each stage alone, on one thread
(``macro/stages.py``), and of the start-up. Its wall time is the start-up, and then the longest of: all stages over the
cores; the longer stage of the largest layer, which one thread inflates and another hashes and makes into files; the
receiving, since one thread does that; and the bytes over the connections. It says what more cores than are here would
bring; and what all cores would, if they inflated one layer together: of many members or frames, or from guessed
beginnings of blocks, and then with its hash and its files apart (docs/decisions/0036-one-thread-inflates-a-layer.md).
The server's work, which the last core here has too, is not in it. The exit status is 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also when run as a file

from benchmarks import data, report, scratch, server
from benchmarks.macro import stages
from benchmarks.macro.contenders import fastoci
from benchmarks.measure import Usage, measure
from benchmarks.report import Bar
from benchmarks.server import Shape

RATE = 100_000_000  # bytes a second of a connection
CONNECTIONS = (1, 2, 4, 8)
EXPECTED = (4, 8, 16)  # cores
PULL, UNPACK = "pull", "pull and unpack"
MEMBERS, GUESSED, APART = "unpack, members", "unpack, guessed", "guessed, apart"  # what fastoci does not do
GUESSING = 1.4  # times the CPU of inflating, when blocks are begun without what is before them: rapidgzip's
TWO_CORES = 1.8  # times as fast as one, of one layer, at least


@dataclass(frozen=True, slots=True)
class Costs:
    """What an image is, and the CPU seconds of its stages by name, each alone on one thread."""

    seconds: dict[str, float]
    size: int  # of its compressed layers
    largest: float  # the largest layer's share of the tars

    def expect(self, work: str, cores: int, connections: int = 0) -> tuple[float, float]:
        """Wall and CPU seconds by the model; ``connections`` of ``RATE``, or 0 for what carries any number of bytes."""
        found = self.seconds
        parts = [stages.RECEIVE, stages.HASH, stages.WRITE]
        longest = [found[stages.RECEIVE], self.size / (RATE * connections) if connections else 0.0]
        total = 0.0
        if work != PULL:
            parts += [stages.INFLATE, stages.HASH_TAR, stages.EXTRACT]
            use = [found[stages.HASH_TAR], found[stages.EXTRACT]]
            alone = max(use) if work == APART else sum(use)
            if work == UNPACK:
                alone = max(alone, found[stages.INFLATE])
            elif work != MEMBERS:
                total = (GUESSING - 1) * found[stages.INFLATE]
            longest.append(self.largest * alone)
        total += sum(found[part] for part in parts)
        start = found[stages.START]
        return start + max(total / cores, *longest), start + total


@dataclass(frozen=True, slots=True)
class Point:
    """One combination: what it took, and what was expected. Without runs, what more cores would take."""

    work: str
    layers: int
    cores: int
    connections: int  # of ``RATE`` each; 0: as many as fastoci opens, and nothing holds them back
    expected: tuple[float, float]
    runs: tuple[Usage, ...] = ()

    @property
    def wall_s(self) -> float:
        """The median of the runs."""
        return statistics.median(run.wall_s for run in self.runs)

    @property
    def cpu_s(self) -> float:
        """The median of the runs."""
        return statistics.median(run.cpu_s for run in self.runs)

    def as_json(self) -> dict[str, object]:
        """All of it."""
        keys = ("work", "layers", "cores", "connections")
        model = dict(zip(("wall_s", "cpu_s"), self.expected, strict=True))
        measured = {"measured": report.summary(self.runs)} if self.runs else {}
        return {**{key: getattr(self, key) for key in keys}, "model": model, **measured}


def costs(sample: data.Sample, address: str, place: Path, work: Path, *, runs: int) -> Costs:
    """Measure the stages, the median of some runs."""
    with stages.uncompressed(sample, work) as tars:
        alone = stages.stages(sample, address, place / "stage", tars)
        alone[stages.START] = stages.start(sample, address, place / "start")
        seconds = {name: statistics.median(each().cpu_s for _ in range(runs)) for name, each in alone.items()}
        sizes = [tar.stat().st_size for tar in tars]
    scratch.clear(place / "start")
    return Costs(seconds, sum(layer.stat().st_size for layer in sample.layers), max(sizes) / sum(sizes))


def pulled(sample: data.Sample, address: str, place: Path, work: str, cores: int, connections: int) -> Usage:
    """One run, held to so many cores."""
    target = place / "target"
    more = ["--rootfs", f"{target}/root"] if work == UNPACK else []
    if connections:
        more += ["--connections", str(connections)]
    held = ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))
    target.mkdir()
    try:
        return measure(["taskset", "--cpu-list", held, *fastoci(sample, address, target, *more)])
    finally:
        scratch.clear(target)


def points(sample: data.Sample, place: Path, options: argparse.Namespace) -> Iterator[Point]:
    """All combinations of one image, in turns; then what the model says of more cores."""
    here, layers = len(os.sched_getaffinity(0)), len(sample.layers)
    free = [(work, cores, 0) for work in (PULL, UNPACK) for cores in range(1, here + 1)]
    paced = [(PULL, here, connections) for connections in CONNECTIONS]
    taken: dict[tuple[str, int, int], list[Usage]] = {}
    with server.serve([sample]) as address, server.serve([sample], shape=Shape(pacing=RATE)) as slow:
        known = costs(sample, address, place, options.work, runs=options.runs)
        for _ in range(options.runs):
            for each in free + paced:
                taken.setdefault(each, []).append(pulled(sample, slow if each[2] else address, place, *each))
    for work, cores, connections in free + paced:
        expected = known.expect(work, cores, connections)
        yield Point(work, layers, cores, connections, expected, tuple(taken[work, cores, connections]))
    more = [cores for cores in EXPECTED if cores > here]
    for work in (PULL, UNPACK, MEMBERS, GUESSED, APART):
        over = more if work in (PULL, UNPACK) else [here, *more]
        yield from (Point(work, layers, cores, 0, known.expect(work, cores)) for cores in over)


def table(found: Iterable[Point]) -> str:
    """Medians, the model, and how many times its wall was taken, for people."""
    title = f"{'':17}{'layers':>7}{'cores':>7}{'100 MB/s':>9}{'wall s':>9}{'model':>9}{'':>8}{'CPU s':>9}{'model':>9}"
    lines = [title]
    for each in found:
        wall_s, cpu_s = each.expected
        line = f"{each.work:17}{each.layers:7}{each.cores:7}{each.connections or '':>9}"
        if each.runs:
            ratio = f"{each.wall_s / wall_s:.2f}x"
            line += f"{each.wall_s:9.3f}{wall_s:9.3f}{ratio:>8}{each.cpu_s:9.3f}{cpu_s:9.3f}"
        else:
            line += f"{'':9}{wall_s:9.3f}{'':8}{'':9}{cpu_s:9.3f}"
        lines.append(line)
    return "\n".join(lines)


def bars_of(found: Sequence[Point]) -> Iterator[Bar]:
    """What a second core brings to an image of one layer."""
    walls = {each.cores: each.wall_s for each in found if each.runs and (each.work, each.layers) == (UNPACK, 1)}
    if {1, 2} <= set(walls):
        yield Bar(f"one layer, {UNPACK}: one core / two cores, wall", walls[1] / walls[2], TWO_CORES, least=True)


def plot(found: Sequence[Point], to: Path) -> None:
    """Wall times over cores and over connections, dots beside the model's lines; needs matplotlib."""
    try:
        from matplotlib import pyplot  # type: ignore[import-not-found]
    except ImportError:
        print("matplotlib is not installed: no plot", file=sys.stderr)
        return
    figure, axes = pyplot.subplots(1, 3, figsize=(15, 5), layout="constrained")
    for axis, work, over in zip(axes, (PULL, UNPACK, PULL), ("cores", "cores", "connections"), strict=True):
        shown = [each for each in found if each.work == work and bool(each.connections) == (over == "connections")]
        for layers in dict.fromkeys(each.layers for each in shown):
            row = [each for each in shown if each.layers == layers]
            (line,) = axis.plot([getattr(each, over) for each in row], [each.expected[0] for each in row])
            run = [each for each in row if each.runs]
            dots = [getattr(each, over) for each in run], [each.wall_s for each in run]
            axis.plot(*dots, "o", color=line.get_color(), label=f"{layers} layers")
        axis.set(title=work, xlabel=f"{over}; lines: the model", ylabel="wall s", xscale="log", ylim=0)
        axis.legend()
    figure.savefig(to)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all, print, and compare with the bar."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, choices=data.LAYERED.values(), action="append", help="may be repeated")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the size of the images")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the images; in memory, please")
    parser.add_argument("--plot", type=Path, help="the file of a picture")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    if shutil.which("taskset") is None:
        parser.error("taskset is not installed")
    options.work.mkdir(parents=True, exist_ok=True)
    found = list[Point]()
    for name, layers in data.LAYERED.items():
        if layers in (options.layers or data.LAYERED.values()):
            sample = data.prepare(name, options.work, scale=options.scale)
            with scratch.destination("tmpfs", options.work, size=12 * sample.size) as place:
                found += points(sample, place, options)
    print(table(found), file=sys.stderr)
    if options.plot is not None:
        plot(found, options.plot)
    judged = list(bars_of(found))
    outcome = {
        "benchmark": "scaling",
        **report.circumstances(),
        "results": [each.as_json() for each in found],
        "bars": report.bars(judged),
    }
    report.publish(outcome, options.json)
    return 0 if all(bar.met for bar in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
