"""Time whole pulls beside other tools and plain shell pipes: same image, same server, same file system, in turns.

``python -m benchmarks.macro.pull --image img8 --fs tmpfs --runs 5`` prints JSON on stdout, a table and the bars on
stderr; the exit status is 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch, server
from benchmarks.macro.contenders import (
    CTR,
    FASTOCI,
    LAYERS,
    ONE_CORE,
    PODMAN,
    TAR,
    UMOCI,
    UNPACK,
    Contender,
    contenders,
)
from benchmarks.macro.stages import START, SUM, Stage, stages, start, total, uncompressed
from benchmarks.measure import Usage
from benchmarks.report import Bar

PEAK_MIB = 150
PEERS = (UMOCI, PODMAN, CTR)
# How many times our wall time the peers take at least, and igzip | tar; how many times the stages' CPU we take at most.
FASTER = {"one": (5.0, 1.7), "img8": (5.0, 1.7), "small": (3.5, 1.3)}
STAGES = {"one": 1.15, "img8": 1.15, "small": 1.3}
# With layer files: how many times our wall time skopeo + umoci and ctr take at least, and of whose CPU we take at most.
LAYERED = {"img8": (4.0, 2.5, 0.35), "small": (5.0, 5.0, 0.2)}
PEERS_CPU, TAR_CPU, CORES = 0.3, 1.0, 1.5


def compare(
    sample: data.Sample,
    address: str,
    work: Path,
    found: Sequence[Contender],
    alone: Mapping[str, Stage],
    *,
    runs: int,
) -> dict[str, list[Usage]]:
    """Run every contender and every stage ``runs`` times, in turns; each contender into a directory of its own."""
    taken: dict[str, list[Usage]] = {}
    for _ in range(runs):
        for contender in found:
            target = work / "target"
            target.mkdir()
            try:
                taken.setdefault(contender.name, []).append(contender.run(sample, address, target))
            finally:
                scratch.clear(target)
        for name, stage in alone.items():
            taken.setdefault(name, []).append(stage())
    if alone:
        taken[SUM] = total(taken, [name for name in alone if name != START])
    return taken


def bars_of(image: str, taken: Mapping[str, Sequence[Usage]]) -> Iterator[Bar]:
    """The bars of this image, for what has run."""
    ours = [name for name in (FASTOCI, UNPACK) if name in taken]
    peak = max(run.rss for name in ours for run in taken[name]) / (1 << 20)
    yield Bar("peak of one process, MiB", peak, PEAK_MIB)
    if image not in FASTER or UNPACK not in taken:
        return
    times = report.ratios(taken, UNPACK)
    faster, faster_tar = FASTER[image]
    for name in (each for each in (*PEERS, TAR) if each in taken):
        least = faster_tar if name == TAR else faster
        yield Bar(f"{name} / {UNPACK}, wall", times[name]["wall"], least, least=True)
        if image != "small":
            most = TAR_CPU if name == TAR else PEERS_CPU
            yield Bar(f"{UNPACK} / {name}, CPU", 1 / times[name]["cpu"], most)
    yield from _layered(image, taken)
    if SUM in taken:
        yield Bar(f"{UNPACK} / {SUM}, CPU", 1 / times[SUM]["cpu"], STAGES[image])
        yield Bar(
            f"{UNPACK} without {START} / {SUM}, CPU", (1 - times[START]["cpu"]) / times[SUM]["cpu"], STAGES[image]
        )
    if ONE_CORE in taken:
        yield Bar(f"{ONE_CORE} / {UNPACK}, wall", times[ONE_CORE]["wall"], CORES, least=True)


def _layered(image: str, taken: Mapping[str, Sequence[Usage]]) -> Iterator[Bar]:
    """The bars of a pull that keeps layer files."""
    if image not in LAYERED or LAYERS not in taken:
        return
    times = report.ratios(taken, LAYERS)
    umoci, ctr, cpu = LAYERED[image]
    for name in (each for each in taken if each.startswith((UMOCI, CTR))):
        yield Bar(f"{name} / {LAYERS}, wall", times[name]["wall"], umoci if name == UMOCI else ctr, least=True)
        yield Bar(f"{LAYERS} / {name}, CPU", 1 / times[name]["cpu"], cpu)


def result(
    sample: data.Sample, file_system: str, found: Sequence[Contender], taken: Mapping[str, Sequence[Usage]]
) -> dict[str, object]:
    """Everything that is known of the runs, as one JSON value."""
    return {
        "benchmark": "macro/pull",
        **report.circumstances(),
        "image": {"name": sample.name, "bytes": sample.size, "layers": len(sample.layers)},
        "file_system": file_system,
        "results": {name: report.summary(runs) for name, runs in taken.items()},
        "ratios": {title: report.ratios(group, ours) for title, ours, group in _groups(found, taken)},
        "bars": report.bars(list(bars_of(sample.name, taken))),
    }


def _groups(
    found: Sequence[Contender], taken: Mapping[str, Sequence[Usage]]
) -> Iterator[tuple[str, str, dict[str, Sequence[Usage]]]]:
    """A title, which of ours the others are held against, and the runs."""
    named = {contender.name: contender.against for contender in found}
    for title, ours in (("pull", FASTOCI), ("pull and unpack", UNPACK)):
        group = {name: runs for name, runs in taken.items() if named.get(name, UNPACK) == ours}
        if ours in group:
            yield title, ours, group


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--image", choices=data.NAMES, default="img8")
    parser.add_argument("--fs", choices=scratch.FILE_SYSTEMS, default="tmpfs", help="where the results are written")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the size of a generated image")
    parser.add_argument("--cores", type=int, choices=[1], help="unpack with fastoci held to one core, too")
    parser.add_argument("--stages", action="store_true", help="measure each stage of pull and unpack alone, too")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the images; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, run, print, and compare with the bars."""
    options = _options(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    sample = data.prepare(options.image, options.work, scale=options.scale)
    found = list(contenders(one_core=options.cores == 1))
    with ExitStack() as stack:
        address = stack.enter_context(server.serve([sample]))
        target = stack.enter_context(scratch.destination(options.fs, options.work, size=12 * sample.size))
        alone: dict[str, Stage] = {}
        if options.stages:
            tars = stack.enter_context(uncompressed(sample, options.work))
            alone = stages(sample, address, target / "stage", tars)
            alone[START] = start(sample, address, target / "start")
        taken = compare(sample, address, target, found, alone, runs=options.runs)
    for title, ours, group in _groups(found, taken):
        title = f"{title}: {sample.name}, {sample.size / 1e6:.0f} MB, {options.fs}, median of {options.runs}"
        print(report.table(title, group, to=ours), file=sys.stderr)
    outcome = result(sample, options.fs, found, taken)
    report.publish(outcome, options.json)
    return 0 if all(bar.met for bar in bars_of(sample.name, taken)) else 1


if __name__ == "__main__":
    sys.exit(main())
