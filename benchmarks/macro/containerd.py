"""What does it cost to bring images into containerd, beside what containerd does itself?

``python -m benchmarks.macro.containerd`` prints JSON on stdout and tables on stderr; the exit status is 1 when a bar is
missed. As root, with containerd and ctr on PATH; daemons are counted with the commands that ask them, and each run has
a containerd of its own. Five parts:

- ``record``: blobs into the content store: ``fastoci prefetch --into`` beside ``ctr content fetch``, and an image of
  1 GB that the store has already; whether a pull after that asks for a blob.
- ``unpack``: with snapshots: ``fastoci pull --into`` beside ``ctr images pull`` and ``fastoci pull --rootfs``.
- ``differ``: ``ctr images pull`` with ``fastoci differ`` and with containerd's own (containerd 1.7.4).
- ``many``: an image of 127 tiny layers through the differ, and the differ at rest (containerd 1.7.4).
- ``cache``: the erofs snapshotter over the layers of a store, and how many of them it asks for (containerd 2.4).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch, server
from benchmarks.data import Sample
from benchmarks.macro import contenders, engines
from benchmarks.measure import Usage, measure
from benchmarks.report import Bar, Part
from benchmarks.server import Shape
from fastoci.configure.containerd import CACHE_SINCE, DIFFERS_SINCE
from fastoci.image.platform import Platform
from fastoci.jobs.configure import release_of
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, from_seed

OURS, FETCH, PULL, ROOTFS = "fastoci --into", "ctr content fetch", "ctr images pull", "fastoci --rootfs"
DIFFER = "ctr images pull, fastoci differ"
FROM_STORE, CONVERTED = "ctr images pull, from the store", "ctr images pull, converted"
EROFS = "erofs"
LAYERS = 127
# Of img8 and of others, which have small files as node-app has: CPU at most, and how many times faster at least.
INTO = {"img8": (0.55, 2.0)}
INTO_OTHERS = (0.4, 3.0)
BY_DIFFER = {"img8": (0.52, 2.0)}
BY_DIFFER_OTHERS = (0.35, 3.0)
_TRANSFER = 'plugins."io.containerd.transfer.v1.local"'
_DIFFER = """\
[[{transfer}.unpack_config]]
platform = "{platform}"
snapshotter = "{snapshotter}"
differ = "{differ}"
"""
_PROXY = """\
[proxy_plugins.fastoci]
type = "diff"
address = "{socket}"
"""
_CACHE = """\
[plugins."io.containerd.snapshotter.v1.erofs"]
layer_content_caches = ["{layers}"]
"""

Run = Callable[[str, Path], Usage]  # the reference; an empty directory


class Setting(NamedTuple):
    """What was asked for."""

    work: Path
    runs: int
    scale: float
    kinds: Sequence[str]  # of file systems


def unpacked_by(differ: str, snapshotter: str = "overlayfs") -> str:
    """The lines of a configuration that has layers unpacked by this differ."""
    platform = Platform.host()
    return _DIFFER.format(transfer=_TRANSFER, platform=platform, snapshotter=snapshotter, differ=differ)


def ctr(address: str, *arguments: str) -> list[str]:
    """A command of ``ctr``."""
    return ["ctr", "--address", address, *arguments]


def pull(address: str, reference: str, snapshotter: str = "overlayfs") -> list[str]:
    """The command by which containerd pulls and unpacks."""
    return ctr(address, "images", "pull", "--plain-http", f"--snapshotter={snapshotter}", reference)


def into(running: engines.Daemon, reference: str, target: Path, *more: str) -> list[str]:
    """The command by which fastoci pulls into a containerd and a store beside it."""
    command = [sys.executable, "-m", "fastoci", "pull", reference, "--store", f"{target}/store", "--progress", "none"]
    return [*command, "--into", "containerd", "--containerd-address", running.address, *more]


def fetched(reference: str, target: Path) -> Usage:
    """Blobs by containerd itself."""
    with engines.daemon(target, unpacks=1) as running:
        command = ctr(running.address, "content", "fetch", "--plain-http", reference)
        return engines.counted(command, running.pid)


def recorded(reference: str, target: Path) -> Usage:
    """Blobs by fastoci."""
    with engines.daemon(target, unpacks=1) as running:
        return engines.counted(into(running, reference, target, "--no-unpack"), running.pid)


def walked(reference: str, target: Path) -> Usage:
    """Pulled and unpacked by containerd, one layer at a time, as it is by default."""
    more = unpacked_by("walking") if release() >= DIFFERS_SINCE else ""
    with engines.daemon(target, unpacks=1, more=more) as running:
        return engines.counted(pull(running.address, reference), running.pid)


def brought(reference: str, target: Path) -> Usage:
    """Pulled and unpacked by fastoci."""
    with engines.daemon(target, unpacks=1) as running:
        return engines.counted(into(running, reference, target, "--snapshotter=overlayfs"), running.pid)


def rootfs(reference: str, target: Path) -> Usage:
    """Pulled by fastoci, and unpacked into one tree."""
    command = [sys.executable, "-m", "fastoci", "pull", reference, "--store", f"{target}/store", "--progress", "none"]
    return measure([*command, "--rootfs", f"{target}/tree"])


@contextmanager
def differ(target: Path) -> Iterator[tuple[engines.Daemon, int]]:
    """A containerd that unpacks by a differ of fastoci; and the process of that."""
    socket = target / "differ.sock"
    more = _PROXY.format(socket=socket) + unpacked_by("fastoci")
    with engines.daemon(target, unpacks=1, more=more) as running:
        command = [sys.executable, "-m", "fastoci", "differ", f"--socket={socket}"]
        with engines.process([*command, f"--containerd-address={running.address}"], target, socket) as pid:
            yield running, pid


def differed(reference: str, target: Path) -> Usage:
    """Pulled by containerd, and unpacked by the differ."""
    with differ(target) as (running, pid):
        return engines.counted(pull(running.address, reference), running.pid, pid)


def in_turns(sample: Sample, work: Path, runs: Mapping[str, Run], *, times: int, kind: str) -> dict[str, list[Usage]]:
    """What each took, in turns, in an empty directory of a file system of this kind."""
    found: dict[str, list[Usage]] = {}
    with server.serve([sample]) as address, scratch.destination(kind, work, size=12 * sample.size) as place:
        for _ in range(times):
            for name, run in runs.items():
                target = place / "run"
                target.mkdir()
                found.setdefault(name, []).append(run(f"{address}/{sample.name}:t", target))
                scratch.clear(target)
    return found


def compared(
    part: str, sample: Sample, setting: Setting, runs: Mapping[str, Run], *, to: str
) -> dict[str, dict[str, list[Usage]]]:
    """``in_turns`` on each kind of file system, with a table."""
    found = {}
    for kind in setting.kinds:
        found[kind] = in_turns(sample, setting.work, runs, times=setting.runs, kind=kind)
        print(report.table(f"{part}: {sample.name}, {kind}", found[kind], to=to), file=sys.stderr)
    return found


def summaries(found: Mapping[str, Mapping[str, Sequence[Usage]]]) -> dict[str, object]:
    """All that was measured, by the kind of file system."""
    return {kind: {name: report.summary(each) for name, each in runs.items()} for kind, runs in found.items()}


def ratio(runs: Mapping[str, Sequence[Usage]], name: str, to: str, what: str) -> float:
    """The median of one, by that of another."""
    one, other = (statistics.median(float(getattr(run, what)) for run in runs[each]) for each in (name, to))
    return one / other


def record_part(sample: Sample, setting: Setting) -> Part:
    """Blobs into the content store."""
    found = compared("record", sample, setting, {FETCH: fetched, OURS: recorded}, to=FETCH)
    bars = [
        Bar(f"{kind}: {OURS} / {FETCH}, CPU", ratio(found[kind], OURS, FETCH, "cpu_s"), 0.7) for kind in setting.kinds
    ]
    big = data.prepare("big", setting.work, scale=setting.scale)
    log = setting.work / "record.log"
    stored = list[Usage]()
    with (
        server.serve([big], shape=Shape(log=log)) as address,
        scratch.destination("ext4", setting.work, size=4 * big.size) as at,
    ):
        reference = f"{address}/{big.name}:t"
        measure([*contenders.fastoci(big, address, at)])
        for number in range(setting.runs):
            target = at / f"{number}"
            target.mkdir()
            with engines.daemon(target, unpacks=1) as running:
                stored.append(engines.counted(into(running, reference, at, "--no-unpack", "--offline"), running.pid))
                before = log.stat().st_size
                measure(ctr(running.address, "content", "fetch", "--plain-http", reference))
                asked = [each.path for each in server.asked(log, before) if "/blobs/" in each.path]
                copies = sum(not is_link(at / "store", target / "root", blob.name) for blob in big.blobs)
            scratch.clear(target)
    log.unlink()
    bars.append(Bar("record a stored image, CPU s", statistics.median(run.cpu_s for run in stored), 0.2))
    bars.append(Bar("blobs that are not the store's own files", copies, 0))
    bars.append(Bar("blobs that a fetch after that asks for", len(asked), 0))
    return Part({**summaries(found), "stored": report.summary(stored), "bytes": big.size}, bars)


def is_link(store: Path, root: Path, name: str) -> bool:
    """Whether a blob of containerd's is the file that the store has."""
    content = root / "io.containerd.content.v1.content" / "blobs" / "sha256" / name
    return os.path.samefile(store / "blobs" / "sha256" / name, content)


def unpack_part(sample: Sample, setting: Setting) -> Part:
    """Images into snapshots."""
    every: dict[str, Run] = {PULL: walked, OURS: brought, ROOTFS: rootfs}
    found = compared("unpack", sample, setting, every, to=PULL)
    cpu, faster = INTO.get(sample.name, INTO_OTHERS)
    bars = []
    for kind in setting.kinds:
        bars.append(Bar(f"{kind}: {OURS} / {PULL}, CPU", ratio(found[kind], OURS, PULL, "cpu_s"), cpu))
        times = ratio(found[kind], PULL, OURS, "wall_s")
        bars.append(Bar(f"{kind}: {PULL} / {OURS}, wall", times, faster, least=True))
        for what in ("cpu_s", "wall_s"):
            taken = ratio(found[kind], OURS, ROOTFS, what)
            bars.append(Bar(f"{kind}: {OURS} / {ROOTFS}, {what}", taken, 1.15))
    return Part(summaries(found), bars)


def differ_part(sample: Sample, setting: Setting) -> Part:
    """Pulls of containerd's own, by either differ."""
    if left_out("differ", DIFFERS_SINCE):
        return Part({}, [])
    found = compared("differ", sample, setting, {PULL: walked, DIFFER: differed}, to=PULL)
    cpu, faster = BY_DIFFER.get(sample.name, BY_DIFFER_OTHERS)
    bars = []
    for kind in setting.kinds:
        bars.append(Bar(f"{kind}: {DIFFER} / {PULL}, CPU", ratio(found[kind], DIFFER, PULL, "cpu_s"), cpu))
        times = ratio(found[kind], PULL, DIFFER, "wall_s")
        bars.append(Bar(f"{kind}: {PULL} / {DIFFER}, wall", times, faster, least=True))
    return Part(summaries(found), bars)


def many_part(sample: Sample, setting: Setting) -> Part:
    """Very many layers, and a differ that nobody asks."""
    if left_out("many", DIFFERS_SINCE):
        return Part({}, [])

    def build(parts: Path) -> dict[str, Image]:
        layers = [Layer.build([Entry(f"file{number}", data=b"x")]) for number in range(LAYERS)]
        return {"tiny": Image.build(layers, platform=Platform.host())}

    (tiny,) = data.samples(data.kept(setting.work, f"tiny-{LAYERS}", build))
    spent, idle = list[float](), 0
    with server.serve([tiny]) as address, scratch.destination("tmpfs", setting.work, size=1 << 30) as place:
        for _ in range(setting.runs):
            target = place / "run"
            target.mkdir()
            with differ(target) as (running, pid):
                idle = engines.peak(pid)
                before = engines.cpu_s(pid)
                measure(pull(running.address, f"{address}/{tiny.name}:t"))
                spent.append((engines.cpu_s(pid) - before) / LAYERS * 1000)
            scratch.clear(target)
    bars = [
        Bar("CPU of the differ, ms a layer", statistics.median(spent), 2.0),
        Bar("the differ at rest, MiB", idle / (1 << 20), 60),
    ]
    return Part({"layers": LAYERS, "cpu_ms": report.spread(spent), "idle_mib": idle / (1 << 20)}, bars)


def cache_part(sample: Sample, setting: Setting) -> Part:
    """The erofs snapshotter over the layers of a store: of an image whose layers are all exact alone."""
    if left_out("cache", CACHE_SINCE):
        return Part({}, [])
    sample = seeded(setting.work, setting.scale)
    log, asked, usages = setting.work / "cache.log", set[str](), dict[str, list[Usage]]()
    with (
        server.serve([sample], shape=Shape(log=log)) as address,
        scratch.destination("ext4", setting.work, size=12 * sample.size) as place,
    ):
        measure(contenders.fastoci(sample, address, place, "--layers", "erofs-4k"))
        walking = unpacked_by("walking", EROFS)
        kinds = {FROM_STORE: _CACHE.format(layers=place / "store/layers") + walking, CONVERTED: walking}
        for _ in range(setting.runs):
            for name, more in kinds.items():
                target = place / "run"
                target.mkdir()
                before = log.stat().st_size
                with engines.daemon(target, unpacks=4, more=more) as running:
                    command = pull(running.address, f"{address}/{sample.name}:t", EROFS)
                    usages.setdefault(name, []).append(engines.counted(command, running.pid))
                if name == FROM_STORE:
                    asked |= {each.path.rpartition("sha256:")[2] for each in server.asked(log, before)}
                scratch.clear(target)
    log.unlink()
    print(report.table(f"cache: {sample.name}, ext4", usages, to=CONVERTED), file=sys.stderr)
    bars = [Bar("layers of the store that are asked for", len(asked & {layer.name for layer in sample.layers}), 0)]
    return Part({name: report.summary(each) for name, each in usages.items()}, bars)


def seeded(work: Path, scale: float) -> Sample:
    """An image of eight layers that name all their directories."""

    def build(parts: Path) -> dict[str, Image]:
        files = max(1, round(2_000 * scale))
        layers = [
            Layer.build(from_seed(seed, files=files, size=20_000, at=f"d{seed}"), into=parts) for seed in range(8)
        ]
        return {"seeded": Image.build(layers, platform=Platform.host())}

    (sample,) = data.samples(data.kept(work, f"seeded-{scale:g}", build))
    return sample


def release() -> tuple[int, int, int]:
    """Of the containerd on PATH."""
    said = subprocess.run(["containerd", "--version"], capture_output=True, text=True, check=True).stdout
    return release_of(said)


def left_out(part: str, since: tuple[int, int, int]) -> bool:
    """Whether this containerd is too old for a part; says so on stderr."""
    if release() >= since:
        return False
    print(f"{part}: left out, needs containerd {'.'.join(map(str, since))}", file=sys.stderr)
    return True


PARTS: dict[str, Callable[..., Part]] = {
    "record": record_part,
    "unpack": unpack_part,
    "differ": differ_part,
    "many": many_part,
    "cache": cache_part,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, run the parts, print, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=PARTS, action="append", help="one of the parts only")
    parser.add_argument("--fs", choices=scratch.FILE_SYSTEMS, action="append", help="[default: tmpfs and ext4]")
    parser.add_argument("--image", choices=data.NAMES, default="img8")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the sizes of generated images")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the images; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    if os.geteuid() != 0 or shutil.which("containerd") is None or shutil.which("ctr") is None:
        parser.error("needs root, containerd and ctr")
    options.work.mkdir(parents=True, exist_ok=True)
    sample = data.prepare(options.image, options.work, scale=options.scale)
    setting = Setting(options.work, options.runs, options.scale, options.fs or ("tmpfs", "ext4"))
    parts = {name: PARTS[name](sample, setting) for name in options.part or PARTS}
    bars = [bar for part in parts.values() for bar in part.bars]
    result = {
        "benchmark": "macro/containerd",
        **report.circumstances(),
        "containerd": ".".join(map(str, release())),
        "image": {"name": sample.name, "bytes": sample.size, "layers": len(sample.layers)},
        "results": {name: part.results for name, part in parts.items()},
        "bars": report.bars(bars),
    }
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
