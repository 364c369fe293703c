"""What does it take until podman can run an image: shown out of a store, pulled by podman, or imported by podman load?

Each begins with nothing, in turns; one more shows an image that the store has unpacked. The import is the pull into a
store, an OCI layout, and ``podman load`` of its tar. ``python -m benchmarks.macro.podman`` prints JSON on stdout; the
exit status is 1 when a bar is missed. Needs root, nginx and podman.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch, server
from benchmarks.data import Sample
from benchmarks.macro import engines
from benchmarks.macro.contenders import fastoci
from benchmarks.measure import Usage, measure
from benchmarks.report import Bar

SHOWN, AGAIN, PULL, LOAD = "pull --into podman", "the same again", "podman pull", "podman load"
LIMITS = {PULL: 1.0, LOAD: 1.0}  # how much of each, wall and CPU, showing takes at most

Run = Callable[[Sample, str, Path], Usage]


def _shown(sample: Sample, address: str, target: Path) -> Usage:
    return measure(fastoci(sample, address, target, "--into", "podman"))


def _again(sample: Sample, address: str, target: Path) -> Usage:
    _shown(sample, address, target)
    return _shown(sample, address, target)


def _pull(sample: Sample, address: str, target: Path) -> Usage:
    return engines.podman("podman", [f"{address}/{sample.name}:t"], target)


def _load(sample: Sample, address: str, target: Path) -> Usage:
    """The pull, and the import of what it brought."""
    pulled = shlex.join(fastoci(sample, address, target))
    view = shlex.join([sys.executable, "-m", "fastoci", "view", "--store", f"{target}/store", f"{target}/layout"])
    (target / "tmp").mkdir()
    with tempfile.TemporaryDirectory(prefix="fastoci-") as run:  # podman takes 50 characters
        podman = f"podman --root={target}/root --runroot={run}/run --storage-driver=overlay load --quiet"
        script = f"{pulled} && {view} && tar -C {target}/layout -c . | TMPDIR={target}/tmp {podman}"
        return measure(["sh", "-ec", script])


RUNS: Mapping[str, Run] = {SHOWN: _shown, AGAIN: _again, PULL: _pull, LOAD: _load}


def compare(sample: Sample, address: str, target: Path, runs: int) -> dict[str, list[Usage]]:
    """What each took, in turns, each time into an empty directory."""
    taken: dict[str, list[Usage]] = {name: [] for name in RUNS}
    for _ in range(runs):
        for name, run in RUNS.items():
            place = target / "place"
            place.mkdir()
            taken[name].append(run(sample, address, place))
            scratch.clear(place)
    return taken


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all in turns, print, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--image", choices=data.NAMES, default="node-app")
    parser.add_argument("--fs", choices=scratch.FILE_SYSTEMS, default="ext4", help="where the images are kept")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the image's size, but for node-app")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the image; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    if shutil.which("podman") is None:
        parser.error("needs podman on PATH")
    options.work.mkdir(parents=True, exist_ok=True)
    sample = data.prepare(options.image, options.work, scale=options.scale)
    with (
        server.serve([sample]) as address,
        scratch.destination(options.fs, options.work, size=16 * sample.size) as target,
    ):
        taken = compare(sample, address, target, options.runs)
    title = f"{sample.name}: {sample.size / 1e6:.0f} MB, {options.fs}, median of {options.runs}"
    print(report.table(title, taken, to=SHOWN), file=sys.stderr)
    times = report.ratios(taken, SHOWN)
    bars = [
        Bar(f"{SHOWN} / {name}, {kind}", 1 / times[name][kind], limit)
        for name, limit in LIMITS.items()
        for kind in ("wall", "cpu")
    ]
    result = {
        "benchmark": "macro/podman",
        **report.circumstances(),
        "bytes": sample.size,
        "file_system": options.fs,
        "results": {name: report.summary(runs) for name, runs in taken.items()},
        "ratios": times,
        "bars": report.bars(bars),
    }
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
