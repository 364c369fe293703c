"""Pulls and unpacks of all kinds, beside every tool that is on PATH: who is first, and what does it cost?

``python -m benchmarks.macro.race`` prints JSON on stdout and a table on stderr; ``--plot FILE`` draws it. nginx on
loopback serves. The bars are against the best of the others, and against the sum of the stages that a pull consists
of, each alone on one thread; the exit status is 1 when one is missed.

``sent / needed`` is the bytes of blobs that the server sent, by its own log, for one byte of the images' blobs, each
counted once: what arrives twice, or for nothing, is above 1.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch, server
from benchmarks.data import Sample
from benchmarks.macro import engines, image_set
from benchmarks.macro.latency import far
from benchmarks.macro.stages import SUM, Stage, stages, total, uncompressed
from benchmarks.measure import Usage, measure
from benchmarks.micro.lanes import load
from benchmarks.report import Bar
from benchmarks.server import Shape

OURS = "fastoci"
_MILLISECONDS = 30  # each way
_RATE = 20_000_000  # bytes a second of a connection
_TINY = 1000  # images
_SENT = 1.003  # of what is needed

_FREE = Shape()

Run = Callable[[Sequence[str], Path], Usage]  # the references; a directory


@dataclass(frozen=True, slots=True)
class Race:
    """One kind of work: what is pulled, from where, and what the best of the others may be held against."""

    samples: Callable[[Path, float], list[Sample]]
    shape: Shape = _FREE
    away: int = 0  # milliseconds, each way
    kind: str = "pull"  # or unpack, there, there by digest
    file_system: str = "tmpfs"
    wall: float = 0.0  # of the best's, at most; 0 for no bar
    cpu: float = 0.0
    most_cpu_s: float = 0.0  # of ours
    staged: bool = False  # whether the stages are measured, too; for one image without TLS
    of_stages: float = 0.0  # of their CPU, at most
    counted: bool = False  # what the server sends; its log is waited for after each run
    busy: int = 0  # processes on each core that have other work


@dataclass(frozen=True, slots=True)
class Taken:
    """The runs of all who took part: what each took, and what the server sent for one byte of the images."""

    usages: dict[str, list[Usage]] = field(default_factory=dict)
    sent: dict[str, list[float]] = field(default_factory=dict)


def _one(name: str) -> Callable[[Path, float], list[Sample]]:
    return lambda work, scale: [data.prepare(name, work, scale=scale)]


def _many_files(work: Path, scale: float) -> list[Sample]:
    return [data.prepare("small", work, scale=scale * 90 / 78)]


def _related(work: Path, scale: float) -> list[Sample]:
    return image_set.related(work, scale=scale)


def _tiny(work: Path, scale: float) -> list[Sample]:
    return image_set.many(work, images=max(4, round(_TINY * scale)), layers=3)


RACES = {
    "img8": Race(_one("img8"), wall=0.95, staged=True, counted=True),
    "img8, all cores busy": Race(_one("img8"), counted=True, busy=2),
    "img8, TLS 1.3": Race(_one("img8"), Shape(tls=True), wall=0.9, cpu=1.0),
    "one layer": Race(_one("big"), wall=0.75, cpu=1.0, staged=True),
    "one layer, TLS 1.3": Race(_one("big"), Shape(tls=True), wall=0.8),
    "there, by tag": Race(_one("img8"), kind="there", most_cpu_s=0.18),
    "there, by digest": Race(_one("img8"), kind="there by digest", most_cpu_s=0.12),
    "30 images": Race(_related, wall=0.9, counted=True),
    "1,000 tiny images": Race(_tiny, wall=0.8),
    "30 ms each way": Race(_one("img8"), away=_MILLISECONDS, wall=1.0, counted=True),
    "20 MB/s a connection": Race(_one("img8"), Shape(pacing=_RATE), counted=True),
    "img8, unpacked": Race(_one("img8"), kind="unpack", wall=1 / 2.2, staged=True, of_stages=1.08),
    "img8, unpacked, ext4": Race(
        _one("img8"), kind="unpack", file_system="ext4", wall=1 / 2.2, staged=True, of_stages=1.08
    ),
    "90,000 entries, unpacked": Race(_many_files, kind="unpack", wall=1 / 3.5, staged=True),
}


def contenders(race: Race) -> dict[str, Run]:
    """Who is on PATH and does this work. Everybody is told not to verify certificates."""
    if race.kind == "unpack":
        return _unpackers()
    many = race.samples in (_related, _tiny)
    found = {OURS: _prefetch if many else _each(_pull())}
    tls = race.shape.tls
    if installed("skopeo"):
        found["skopeo"] = _each(_SKOPEO)
    if installed("crane"):
        found["crane"] = _crane
    if installed("regctl"):
        host = f"reg={{address}},tls={'insecure' if tls else 'disabled'}"
        found["regctl"] = _each(
            ["regctl", "image", "copy", "--host", host, "{reference}", "ocidir://{target}/oci:{name}"]
        )
    if installed("oras"):
        insecure = "--from-insecure" if tls else "--from-plain-http"
        found["oras"] = _each(["oras", "copy", insecure, "{reference}", "--to-oci-layout", "{target}/oci:{name}"])
    return found


def _unpackers() -> dict[str, Run]:
    found = {OURS: _each(_pull("--rootfs", "{target}/root"))}
    if installed("skopeo", "umoci"):
        unpack = ["umoci", "raw", "unpack", "--image", "{target}/oci:{name}", "{target}/root"]
        found["skopeo + umoci"] = _each(_SKOPEO, unpack)
    if installed("crane", "tar"):
        piped = "mkdir {target}/root; crane export --insecure {reference} - | tar -x -C {target}/root"
        found["crane | tar"] = _each(["bash", "-euo", "pipefail", "-c", piped])
    if os.geteuid() != 0:
        print("podman, ctr: left out, they need root", file=sys.stderr)
        return found
    for name, engine in (("podman", engines.podman), ("ctr", engines.containerd)):
        if installed(name, *(["containerd"] if name == "ctr" else [])):
            found[name] = partial(engine, shutil.which(name) or name)
    return found


@cache
def installed(*programs: str) -> bool:
    """Whether all of these are on PATH; says on stderr which is not."""
    absent = [each for each in programs if shutil.which(each) is None]
    if absent:
        print(f"{programs[0]}: left out, {', '.join(absent)} not installed", file=sys.stderr)
    return not absent


_SKOPEO = shlex.split(
    "skopeo --insecure-policy copy -q --src-tls-verify=false docker://{reference} oci:{target}/oci:{name}"
)


def _pull(*more: str) -> list[str]:
    options = ["--tls-verify=false", "--progress", "none", "--store", "{target}/store"]
    return [sys.executable, "-m", "fastoci", "pull", "{reference}", *options, *more]


def _prefetch(references: Sequence[str], target: Path) -> Usage:
    return measure([*image_set.prefetch(references, target / "store"), "--tls-verify=false"])


def _crane(references: Sequence[str], target: Path) -> Usage:
    return measure(["crane", "pull", "--insecure", "--format=oci", *references, f"{target}/oci"])


def _each(*commands: Sequence[str]) -> Run:
    """The commands for each reference, one after the other."""

    def run(references: Sequence[str], target: Path) -> Usage:
        lines = [_filled(words, reference, target) for reference in references for words in commands]
        if len(lines) == 1:
            return measure(lines[0])
        script = target / "script"  # a thousand are too long for an argument
        script.write_text("\n".join(map(shlex.join, lines)))
        return measure(["sh", "-e", str(script)])

    return run


def _filled(words: Sequence[str], reference: str, target: Path) -> list[str]:
    address, _, rest = reference.partition("/")
    name = rest.replace("/", "-").replace(":", "-").replace("@", "-")
    return [word.format(reference=reference, target=target, address=address, name=name) for word in words]


@contextmanager
def _served(race: Race, samples: Sequence[Sample]) -> Iterator[tuple[str, Callable[[], float]]]:
    """The address, and what the server has sent for one byte since that was asked last; 0 when it is not counted."""
    needed = {blob.name: blob.stat().st_size for sample in samples for blob in sample.blobs}
    with ExitStack() as stack:
        log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastoci-race-"))) / "log"
        shape = replace(race.shape, log=log) if race.counted else race.shape
        address = stack.enter_context(server.serve(samples, shape=shape))
        seen = 0

        def sent() -> float:
            nonlocal seen
            if not race.counted:
                return 0.0
            asked, seen = server.asked(log, seen), log.stat().st_size
            return sum(each.sent for each in asked if "/blobs/" in each.path) / sum(needed.values())

        yield stack.enter_context(far(address, race.away)) if race.away else address, sent


@contextmanager
def _alone(race: Race, sample: Sample, address: str, place: Path, work: Path) -> Iterator[dict[str, Stage]]:
    """The stages of the race's work, when they are to be measured."""
    with ExitStack() as stack:
        tars = stack.enter_context(uncompressed(sample, work)) if race.staged and race.kind == "unpack" else ()
        yield stages(sample, address, place / "stage", tars) if race.staged else {}


def run(race: Race, options: argparse.Namespace) -> Taken:
    """What each took, in turns."""
    samples = race.samples(options.work, options.scale)
    size = 12 * sum(sample.size for sample in samples)
    taken = Taken()
    with (
        load(race.busy * len(os.sched_getaffinity(0))),
        _served(race, samples) as (address, sent),
        scratch.destination(race.file_system, options.work, size=size) as place,
        _alone(race, samples[0], address, place, options.work) as alone,
    ):
        references = image_set.references(samples, address)
        if race.kind == "there by digest":
            references = [f"{address}/{each.name}@sha256:{each.manifest.name}" for each in samples]
        found = contenders(race)
        there = race.kind.startswith("there")
        parts: dict[str, list[Usage]] = {}
        for number in range(options.runs + there):
            for name, each in found.items():
                target = place / name.replace(" | ", "-").replace(" ", "-")
                target.mkdir(exist_ok=there)
                usage = each(references, target)
                if not there or number:  # the first brings it
                    taken.usages.setdefault(name, []).append(usage)
                    taken.sent.setdefault(name, []).append(sent())
                if not there:
                    scratch.clear(target)
            for name, stage in alone.items():
                parts.setdefault(name, []).append(stage())
                sent()
    if parts:
        taken.usages[SUM] = total(parts, list(parts))
    return taken


def bars_of(name: str, race: Race, taken: Taken) -> Iterator[Bar]:
    """Against the best of the others in wall and in CPU, each the best for itself; the stages; and what is ours."""

    def medians(kind: str) -> dict[str, float]:
        return {who: statistics.median(getattr(each, kind) for each in runs) for who, runs in taken.usages.items()}

    for what, kind, limit in (("wall", "wall_s", race.wall), ("CPU", "cpu_s", race.cpu)):
        found = medians(kind)
        own, _ = found.pop(OURS), found.pop(SUM, None)
        if limit and found:
            best = min(found, key=lambda who: found[who])
            yield Bar(f"{name}: {OURS} / {best}, {what}", own / found[best], limit)
    if race.of_stages:
        yield Bar(f"{name}: {OURS} / {SUM}, CPU", medians("cpu_s")[OURS] / medians("cpu_s")[SUM], race.of_stages)
    if race.most_cpu_s:
        yield Bar(f"{name}: CPU s", medians("cpu_s")[OURS], race.most_cpu_s)
    if race.counted:
        yield Bar(f"{name}: sent / needed", max(taken.sent[OURS]), _SENT)


def table(title: str, race: Race, taken: Taken) -> str:
    """The figures, for people."""
    counted = taken.sent.items() if race.counted else ()
    lines = [f"  {who}: sent / needed {max(sent):.4f}" for who, sent in counted]
    return "\n".join([report.table(title, taken.usages, to=OURS), *lines])


def plot(results: Mapping[str, Mapping[str, Sequence[Usage]]], to: Path) -> None:
    """Wall times as bars, in parts of ours; says so when matplotlib is not there."""
    try:
        from matplotlib import pyplot  # type: ignore[import-not-found]
    except ImportError:
        print("matplotlib is not installed: no plot", file=sys.stderr)
        return
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.6 * len(results)), layout="constrained")
    who = [name for name in dict.fromkeys(name for taken in results.values() for name in taken) if name != SUM]
    height = 0.8 / len(who)
    for offset, name in enumerate(who):
        rows = [
            (row, report.ratios(taken, OURS)[name]["wall"])
            for row, taken in enumerate(results.values())
            if name in taken
        ]
        axes.barh([row + offset * height for row, _ in rows], [wall for _, wall in rows], height, label=name)
    axes.set_yticks([row + 0.4 for row in range(len(results))], list(results))
    axes.axvline(1, color="black", linewidth=0.5)
    axes.set_xlabel(f"wall time, in those of {OURS}; shorter is faster")
    axes.legend()
    axes.invert_yaxis()
    figure.savefig(to)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the races, print, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--race", choices=RACES, action="append", help="one of them only")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies sizes and counts")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the images; in memory, please")
    parser.add_argument("--plot", type=Path, help="the file of a picture")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    results = dict[str, dict[str, list[Usage]]]()
    sent = dict[str, dict[str, list[float]]]()
    judged = list[Bar]()
    for name in options.race or RACES:
        taken = run(RACES[name], options)
        results[name] = taken.usages
        if RACES[name].counted:
            sent[name] = taken.sent
        print(table(f"{name}, median of {options.runs}", RACES[name], taken), file=sys.stderr)
        judged += bars_of(name, RACES[name], taken)
    if options.plot is not None:
        plot(results, options.plot)
    outcome = {
        "benchmark": "macro/race",
        **report.circumstances(),
        "results": {
            name: {who: report.summary(each) for who, each in taken.items()} for name, taken in results.items()
        },
        "sent": {name: {who: report.spread(each) for who, each in found.items()} for name, found in sent.items()},
        "bars": report.bars(judged),
    }
    report.publish(outcome, options.json)
    return 0 if all(bar.met for bar in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
