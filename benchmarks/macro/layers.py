"""What do layer files cost to make, to delete and to read, beside the files of a tree?

``python -m benchmarks.macro.layers`` prints JSON on stdout and a table on stderr; the exit status is 1 when a bar is
missed. Three parts:

- ``pipeline``: one layer of 78,000 files is hashed, inflated, hashed again, and then nothing, written as a raw tar, as
  a layer file, or extracted, in one process.
- ``gc``: that image is deleted from a store.
- ``cold``: ``find`` and ``grep -r`` over its tree and over a mount of it, on ext4 that was mounted anew (as root): what
  the disk is asked for, and warm, their CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import data, report, scratch, server
from benchmarks.measure import Usage, here, measure
from benchmarks.report import Bar, Part
from fastoci import Engine, Layers, _core, umount
from fastoci._core import Buffer
from fastoci.image.digest import Digest
from fastoci.limits import Limits
from fastoci.stream.verify import Verifier, hash_buffers
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.layer_reading import LayerReader, LayerSink, OpenLayer
from fastoci.transfer.workers import WorkerPool
from fastoci.unpack.erofs import LayerFileWriter
from fastoci.unpack.layer import LayerWriter

NOTHING, RAW, FILE, TREE = "hashed and inflated", "raw tar", "layer file", "extracted"
EXTRACTED = {"tmpfs": 0.8, "ext4": 0.55}
BOUNDS = {"max_entries": 1 << 20, "max_bytes": 1 << 40}


class RawTar:
    """Writes the tar as it is."""

    name = "raw"

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._offset = 0

    def feed(self, buffer: Buffer) -> None:
        """Write, and leave the page cache alone, as a layer file does."""
        if buffer.pwrite(self._fd, self._offset, uncached=True) and (code := buffer.pwrite(self._fd, self._offset)):
            raise OSError(-code, os.strerror(-code))
        self._offset += len(buffer)

    def finish(self) -> None:
        """All is written."""

    def stop(self) -> None:
        """Nothing takes long."""

    def abort(self) -> None:
        """The descriptor is the caller's."""


class Nothing(RawTar):
    """Does nothing."""

    def feed(self, buffer: Buffer) -> None:
        """Drop it."""


def pipeline(sample: data.Sample, target: Path, what: str) -> Usage:
    """Hash, inflate and hash each layer, and make what is asked for; what that took in this process."""
    target.mkdir()
    diff_ids = [Digest.parse(each) for each in json.loads(sample.config.read_bytes())["rootfs"]["diff_ids"]]
    try:
        return here(lambda: asyncio.run(_make(sample, diff_ids, target, what)))
    finally:
        scratch.clear(target)


async def _make(sample: data.Sample, diff_ids: Sequence[Digest], target: Path, what: str) -> None:
    limits = Limits(workers=1)
    workers, pool = WorkerPool(1), _core.Pool(limits.memory)
    try:
        reader = LayerReader(workers, Buffers(pool), limits)
        for number, (path, diff_id) in enumerate(zip(sample.layers, diff_ids, strict=True)):
            await workers.run(lambda path=path: _hash(path, pool))  # type: ignore[misc]
            with _place(target, number, what) as fd:
                sink = _sink(what, fd, diff_id)

                def open_layer(path: Path = path) -> OpenLayer:
                    return OpenLayer(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

                await reader.from_file(open_layer, sink, Verifier(diff_id, None), lambda offset, size: None)
    finally:
        workers.close()


def _hash(path: Path, pool: _core.Pool) -> None:
    """As the fetch of a blob does."""
    buffer = pool.take()
    assert buffer is not None
    verifier = Verifier(Digest.parse(f"sha256:{path.name}"), path.stat().st_size)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    while buffer.pread(fd, verifier.offset) > 0:
        hash_buffers([(verifier, buffer)])
        buffer.clear()
    os.close(fd)
    buffer.release()
    verifier.proof()


@contextmanager
def _place(target: Path, number: int, what: str) -> Iterator[int]:
    """The descriptor of a new file, or of the directory of the tree."""
    if what == TREE:
        (target / "tree").mkdir(exist_ok=True)
        fd = os.open(target / "tree", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        fd = os.open(target / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _sink(what: str, fd: int, diff_id: Digest) -> LayerSink:
    if what == FILE:
        return LayerFileWriter(fd, layer=diff_id, form="tar", max_memory=1 << 30, **BOUNDS)
    if what == TREE:
        owners = os.geteuid() == 0
        return LayerWriter(fd, name=str(diff_id), base=True, owners=owners, max_directories=1 << 20, **BOUNDS)
    return RawTar(fd) if what == RAW else Nothing(fd)


def pipeline_part(sample: data.Sample, work: Path, *, runs: int) -> Part:
    """All of them in turns, on tmpfs and, as root, on ext4."""
    results, bars = {}, []
    for kind in ("tmpfs", "ext4")[: 1 + (os.geteuid() == 0)]:
        with scratch.destination(kind, work, size=12 * sample.size) as place:
            taken: dict[str, list[Usage]] = {}
            for _ in range(runs):
                for what in (NOTHING, RAW, FILE, TREE):
                    taken.setdefault(what, []).append(pipeline(sample, place / "made", what))
        results[kind] = {name: report.summary(each) for name, each in taken.items()}
        print(report.table(f"pipeline: {sample.name}, {kind}", taken, to=FILE), file=sys.stderr)
        cpu = {name: 1 / each["cpu"] for name, each in report.ratios(taken, FILE).items()}
        bars.append(Bar(f"{kind}: {FILE} / {RAW}, CPU", cpu[RAW], 1.10))
        bars.append(Bar(f"{kind}: {FILE} / {TREE}, CPU", cpu[TREE], EXTRACTED[kind]))
    return Part(results, bars)


def gc_part(sample: data.Sample, work: Path, *, runs: int) -> Part:
    """Seconds that the deletion of the image's layers takes, when its blobs are gone."""

    async def once(address: str, place: Path) -> float:
        async with Engine(place / "store") as engine:
            name = f"{address}/{sample.name}:t"
            await engine.pull(name, layers=Layers("erofs", only=True))
            await engine.remove(name)
            began = time.perf_counter()
            deleted = await engine.gc()
            assert any(item.kind == "layer" for item in deleted)
            return time.perf_counter() - began

    taken = []
    kind = "ext4" if os.geteuid() == 0 else "tmpfs"
    with server.serve([sample]) as address, scratch.destination(kind, work, size=12 * sample.size) as place:
        for _ in range(runs):
            taken.append(asyncio.run(once(address, place)))
            scratch.clear(place / "store")
    return Part({kind: report.spread(taken)}, [Bar("gc of the image, s", sorted(taken)[len(taken) // 2], 0.05)])


class Device:
    """What was asked of the disk below a file system on a loop device."""

    def __init__(self, place: Path) -> None:
        info = os.stat(place)
        self._stat = Path(f"/sys/dev/block/{os.major(info.st_dev)}:{os.minor(info.st_dev)}/stat")

    def requests(self) -> int:
        """Reads that were completed."""
        return int(self._stat.read_text().split()[0])


def cold_part(sample: data.Sample, work: Path, *, runs: int) -> Part:
    """Read the tree and the mount on ext4 whose pages are not in memory; then again, warm."""
    if os.geteuid() != 0:
        print("cold: left out, it needs root", file=sys.stderr)
        return Part({}, [])
    found: dict[str, dict[str, list[float]]] = {}
    with server.serve([sample]) as address, scratch.destination("ext4", work, size=12 * sample.size) as place:
        asyncio.run(_fill(f"{address}/{sample.name}:t", place))
        os.sync()
        for _ in range(runs):
            for what in (TREE, FILE):
                for name, command in _READERS.items():
                    cold, warm = _read(place, what, command)
                    found.setdefault(f"{name}, {what}, requests", {}).setdefault("cold", []).append(cold)
                    found.setdefault(f"{name}, {what}, CPU", {}).setdefault("warm", []).append(warm)
        asyncio.run(_mounted(place, mount=False))
    middle = {name: sorted(each)[len(each) // 2] for name, kinds in found.items() for each in kinds.values()}
    bars = []
    for name, requests in (("find", 1 / 4), ("grep -r", 1 / 20)):
        for unit, limit in (("requests", requests), ("CPU", 1.05)):
            ratio = middle[f"{name}, {FILE}, {unit}"] / middle[f"{name}, {TREE}, {unit}"]
            bars.append(Bar(f"{name}: {FILE} / {TREE}, {unit}", ratio, limit))
    return Part(found, bars)


_READERS = {"find": ["find", ".", "-printf", "%s\n"], "grep -r": ["grep", "-r", "no such text in it", "."]}


async def _fill(name: str, place: Path) -> None:
    async with Engine(place / "store") as engine:
        image = await engine.pull(name, layers=Layers("erofs"), rootfs=place / "tree")
        await image.mount(place / "mount")


async def _mounted(place: Path, *, mount: bool) -> None:
    """Mount the image on ``mount``, or take the mount away."""
    if not mount:
        umount(place / "mount")
        return
    async with Engine(place / "store") as engine:
        (stored,) = await engine.images()
        await (await engine.image(stored.name)).mount(place / "mount")


def _read(place: Path, what: str, command: Sequence[str]) -> tuple[int, float]:
    """Requests of one reading with nothing in memory, and CPU seconds of the next."""
    directory = place / ("tree" if what == TREE else "mount")
    asyncio.run(_mounted(place, mount=False))
    asyncio.run(_mounted(place, mount=True))
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    device = Device(place)
    before = device.requests()
    _run(command, directory)
    requests = device.requests() - before
    return requests, _run(command, directory).cpu_s


def _run(command: Sequence[str], directory: Path) -> Usage:
    shell = ["sh", "-c", 'cd "$1" && shift && "$@" >/dev/null || test $? = 1', "sh", str(directory), *command]
    return measure(shell)


PARTS: dict[str, Callable[..., Part]] = {"pipeline": pipeline_part, "gc": gc_part, "cold": cold_part}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, run the parts, print, and compare with the bars."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=PARTS, action="append", help="one of the parts only")
    parser.add_argument("--image", choices=data.NAMES, default="small")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the size of a generated image")
    parser.add_argument("--work", type=Path, default=scratch.WORK, help="keeps the images; in memory, please")
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    sample = data.prepare(options.image, options.work, scale=options.scale)
    parts = {name: PARTS[name](sample, options.work, runs=options.runs) for name in options.part or PARTS}
    bars = [bar for part in parts.values() for bar in part.bars]
    result = {
        "benchmark": "macro/layers",
        **report.circumstances(),
        "image": {"name": sample.name, "bytes": sample.size, "layers": len(sample.layers)},
        "results": {name: part.results for name, part in parts.items()},
        "bars": report.bars(bars),
    }
    report.publish(result, options.json)
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
