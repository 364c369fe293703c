"""One layer of 400 MB over several connections: where each is slow, and where one is as fast as the machine.

``python -m benchmarks.macro.ranges`` prints ratios as JSON; the exit status is 1 when a bar is missed. Three servers,
all nginx: ``paced`` sends 20 MB/s on each connection, by the kernel; ``limited`` has nginx's own limit_rate of 20 MB/s,
which gives every request a second's worth at once, so that short ones are hardly slowed; ``free`` has no limit.

``sent / needed`` is the bytes of the blobs' bodies that the server handed to its kernel, by its own log, for one byte
of the image: what arrives twice, or for nothing, is above 1.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch, server
from benchmarks.measure import Usage, measure
from benchmarks.report import Bar
from benchmarks.server import Shape

_RATE = 20_000_000  # bytes a second
_SHAPES = {"paced": Shape(pacing=_RATE), "limited": Shape(limit_rate=_RATE), "free": Shape()}
_SENT = 1.003  # of what is needed
_OURS, _ONE, _SKOPEO = "fastoci", "fastoci, one connection", "skopeo"
_PULL = "import sys, fastoci; fastoci.pull(sys.argv[1], store=sys.argv[2], limits=fastoci.Limits({}))"


def commands(reference: str, target: str) -> dict[str, list[str]]:
    """The contenders that are installed."""
    found = {
        name: [sys.executable, "-c", _PULL.format(limits), reference, f"{target}/store"]
        for name, limits in ((_OURS, ""), (_ONE, "connections=1"))
    }
    if shutil.which("skopeo"):
        copy = "skopeo --insecure-policy copy -q --src-tls-verify=false"
        found[_SKOPEO] = shlex.split(f"{copy} docker://{reference} oci:{target}/oci:t")
    return found


@dataclass(frozen=True, slots=True)
class Taken:
    """The runs of one contender: what each took, and what the server sent for one byte of the image."""

    usages: list[Usage] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)


def compare(sample: data.Sample, shape: Shape, work: Path, *, runs: int) -> dict[str, Taken]:
    """Pull with each contender ``runs`` times, in turns, into memory."""
    taken: dict[str, Taken] = {}
    target, log = work / "target", work / "ranges.log"
    log.write_text("")
    with server.serve([sample], shape=replace(shape, log=log)) as address:
        for _ in range(runs):
            for name, command in commands(f"{address}/{sample.name}:t", str(target)).items():
                target.mkdir()
                each, before = taken.setdefault(name, Taken()), log.stat().st_size
                each.usages.append(measure(command))
                each.sent.append(sent_since(log, before) / sample.size)
                shutil.rmtree(target)
    return taken


def sent_since(log: Path, before: int) -> int:
    """Bytes of blobs that the server sent, by the lines of its log behind ``before``."""
    return sum(each.sent for each in server.asked(log, before) if "/blobs/" in each.path)


def bars_of(taken: dict[str, dict[str, Taken]]) -> list[Bar]:
    """The ratios that matter."""

    def wall(shape: str, name: str) -> float:
        return statistics.median(run.wall_s for run in taken[shape][name].usages)

    def cpu(shape: str, name: str) -> float:
        return statistics.median(run.cpu_s for run in taken[shape][name].usages)

    bars = [
        Bar(f"{shape}: sent / needed, {name}", max(each.sent), _SENT)
        for shape, contenders in taken.items()
        for name, each in contenders.items()
        if name != _SKOPEO
    ]
    for shape in ("paced", "limited"):
        bars.append(Bar(f"{shape}: {_ONE} / {_OURS}", wall(shape, _ONE) / wall(shape, _OURS), 4.0, least=True))
        if _SKOPEO in taken[shape]:
            bars.append(
                Bar(f"{shape}: {_SKOPEO} / {_OURS}", wall(shape, _SKOPEO) / wall(shape, _OURS), 3.0, least=True)
            )
    bars.append(Bar(f"free: {_OURS} / {_ONE}, wall", wall("free", _OURS) / wall("free", _ONE), 1.05))
    bars.append(Bar(f"free: {_OURS} / {_ONE}, CPU", cpu("free", _OURS) / cpu("free", _ONE), 1.05))
    return bars


def _table(title: str, taken: dict[str, Taken]) -> str:
    lines = [f"  {name}: sent / needed {max(each.sent):.4f}" for name, each in taken.items()]
    return "\n".join([report.table(title, {name: each.usages for name, each in taken.items()}, to=_OURS), *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--runs", type=int, default=5, help="of the free server; the slow ones are asked a fifth as often, and once"
    )
    parser.add_argument("--scale", type=float, default=0.4, help="multiplies 1 GB")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the image; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    sample = data.prepare("big", options.work, scale=options.scale)
    taken = {}
    for name, shape in _SHAPES.items():
        runs = options.runs if name == "free" else max(1, options.runs // 5)
        taken[name] = compare(sample, shape, options.work, runs=runs)
        print(_table(f"{name}: {sample.size / 1e6:.0f} MB", taken[name]), file=sys.stderr)
    judged = bars_of(taken)
    result = {
        "benchmark": "macro/ranges",
        **report.circumstances(),
        "bytes": sample.size,
        "results": {
            shape: {name: {**report.summary(runs.usages), "sent": runs.sent} for name, runs in each.items()}
            for shape, each in taken.items()
        },
        "ratios": report.bars(judged),
    }
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
