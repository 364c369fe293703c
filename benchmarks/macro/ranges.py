"""One layer of 400 MB over several connections: where each is slow, and where one is as fast as the machine.

``python -m benchmarks.macro.ranges`` prints ratios as JSON; the exit status is 1 when a bar is missed. Three servers,
all nginx: ``paced`` sends 20 MB/s on each connection, by the kernel; ``limited`` has nginx's own limit_rate of 20 MB/s,
which gives every request a second's worth at once, so that short ones are hardly slowed; ``free`` has no limit.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch, server
from benchmarks.measure import Usage, measure
from benchmarks.report import Bar
from benchmarks.server import Shape

_RATE = 20_000_000  # bytes a second
_SHAPES = {"paced": Shape(pacing=_RATE), "limited": Shape(limit_rate=_RATE), "free": Shape()}
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


def compare(sample: data.Sample, shape: Shape, work: Path, *, runs: int) -> dict[str, list[Usage]]:
    """Pull with each contender ``runs`` times, in turns, into memory."""
    taken: dict[str, list[Usage]] = {}
    target = work / "target"
    with server.serve([sample], shape=shape) as address:
        for _ in range(runs):
            for name, command in commands(f"{address}/{sample.name}:t", str(target)).items():
                target.mkdir()
                taken.setdefault(name, []).append(measure(command))
                shutil.rmtree(target)
    return taken


def bars_of(taken: dict[str, dict[str, list[Usage]]]) -> list[Bar]:
    """The ratios that matter."""

    def wall(shape: str, name: str) -> float:
        return statistics.median(run.wall_s for run in taken[shape][name])

    def cpu(shape: str, name: str) -> float:
        return statistics.median(run.cpu_s for run in taken[shape][name])

    bars = []
    for shape in ("paced", "limited"):
        bars.append(Bar(f"{shape}: {_ONE} / {_OURS}", wall(shape, _ONE) / wall(shape, _OURS), 4.0, least=True))
        if _SKOPEO in taken[shape]:
            bars.append(
                Bar(f"{shape}: {_SKOPEO} / {_OURS}", wall(shape, _SKOPEO) / wall(shape, _OURS), 3.0, least=True)
            )
    bars.append(Bar(f"free: {_OURS} / {_ONE}, wall", wall("free", _OURS) / wall("free", _ONE), 1.05))
    bars.append(Bar(f"free: {_OURS} / {_ONE}, CPU", cpu("free", _OURS) / cpu("free", _ONE), 1.05))
    return bars


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--runs", type=int, default=1, help="of the slow servers; the free one is asked five times as often"
    )
    parser.add_argument("--scale", type=float, default=0.4, help="multiplies 1 GB")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the image; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    sample = data.prepare("big", options.work, scale=options.scale)
    taken = {}
    for name, shape in _SHAPES.items():
        runs = options.runs * (5 if name == "free" else 1)
        taken[name] = compare(sample, shape, options.work, runs=runs)
        print(report.table(f"{name}: {sample.size / 1e6:.0f} MB", taken[name], to=_OURS), file=sys.stderr)
    judged = bars_of(taken)
    result = {
        "benchmark": "macro/ranges",
        **report.circumstances(),
        "bytes": sample.size,
        "results": {
            shape: {name: report.summary(runs) for name, runs in each.items()} for shape, each in taken.items()
        },
        "ratios": report.bars(judged),
    }
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
