"""How much sooner are the layer directories of a ten-layer image there when all are made at once, not in their order?

A layer directory needs nothing of the layers below it, so layers share the cores; in a tree, each waits for those
below. All ways go by the machinery of a pull: inflate, hash, and make files. ``one thread`` is what a program does that
unpacks layer after layer. Two threads in order share each layer: one inflates, one hashes and makes files; where both
halves take as long, two cores have no more to give. ``python -m benchmarks.micro.layer_directories --fs ext4`` prints
JSON on stdout; the exit status is 1 when the bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import report, scratch
from benchmarks.measure import Usage, here
from benchmarks.report import Bar
from fastoci import _core
from fastoci.limits import Limits
from fastoci.stream.verify import Verifier
from fastoci.testing.layers import Layer, from_seed
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.layer_reading import LayerReader, OpenLayer
from fastoci.transfer.workers import WorkerPool
from fastoci.unpack.layer import LayerWriter
from fastoci.unpack.layer_directory import LayerDirectoryWriter, NewTree

LAYERS, FILES, SIZE = 10, 2000, 8_000  # of each layer; bytes of a file on average
AT_ONCE, ORDERED, ALONE, TREE = "at once", "in order", "in order, one thread", "one tree, in order"
BAR = 1.5  # wall time of ALONE, times AT_ONCE's
OWNERS = os.geteuid() == 0


def layers_of(scale: float) -> list[Layer]:
    """The layers, each with files of its own."""
    files = max(10, round(FILES * scale))
    return [
        Layer.build(list(from_seed(number, files=files, size=SIZE, at=f"layer{number}")), "gzip")
        for number in range(LAYERS)
    ]


class Making:
    """One image, made into an empty directory."""

    def __init__(self, files: Sequence[tuple[Path, Layer]], target: Path, threads: int) -> None:
        limits = Limits()
        self._files = files
        self._target = target
        self._workers = WorkerPool(threads)
        self._reader = LayerReader(self._workers, Buffers(_core.Pool(limits.memory), ahead=limits.ahead), limits)
        self._limits = {
            "max_entries": limits.unpacked_entries,
            "max_bytes": limits.unpacked_size,
            "max_directories": limits.layer_directories,
        }

    async def make(self, way: str) -> None:
        """Make it in one of the ways."""
        try:
            if way == TREE:
                await self._tree()
            elif way == AT_ONCE:
                await asyncio.gather(*(self._directory(number) for number in range(len(self._files))))
            else:
                for number in range(len(self._files)):
                    await self._directory(number)
        finally:
            self._workers.close()

    async def _directory(self, number: int) -> None:
        path = self._target / f"{number}"
        path.mkdir()
        fd = os.open(path, os.O_DIRECTORY)
        try:
            make = partial(LayerDirectoryWriter, fd, name=f"{number}", owners=OWNERS, **self._limits)
            await self._read(number, make)
        finally:
            os.close(fd)

    async def _tree(self) -> None:
        fd = os.open(self._target, os.O_DIRECTORY)
        tree = NewTree(fd)
        try:
            for number in range(len(self._files)):
                make = partial(LayerWriter, tree.fd, name=f"{number}", base=number > 0, owners=OWNERS, **self._limits)
                await self._read(number, make)
        finally:
            tree.close()
            os.close(fd)

    async def _read(self, number: int, make: partial[LayerDirectoryWriter] | partial[LayerWriter]) -> None:
        path, layer = self._files[number]
        async with self._reader.slots, self._reader.sink(make) as sink:
            await self._reader.from_file(
                lambda: OpenLayer(os.open(path, os.O_RDONLY | os.O_CLOEXEC)),
                sink,
                Verifier(layer.diff_id, None),
                lambda read, size: None,
            )


def compare(layers: Sequence[Layer], work: Path, runs: int) -> dict[str, list[Usage]]:
    """Run all ways in turns, each into a directory of its own."""
    files = []
    for number, layer in enumerate(layers):
        assert isinstance(layer.content, bytes)
        files.append((work / f"{number}.layer", layer))
        files[-1][0].write_bytes(layer.content)
    taken: dict[str, list[Usage]] = {way: [] for way in (AT_ONCE, ORDERED, ALONE, TREE)}
    target = work / "target"
    for _ in range(runs):
        for way, usages in taken.items():
            target.mkdir()
            usages.append(here(lambda way=way: asyncio.run(_made(files, target, way))))  # type: ignore[misc]
            shutil.rmtree(target)
    return taken


async def _made(files: Sequence[tuple[Path, Layer]], target: Path, way: str) -> None:
    await Making(files, target, 1 if way == ALONE else 2).make(way)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the ways, print, and compare with the bar."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fs", choices=scratch.FILE_SYSTEMS, default="tmpfs")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--work", type=Path, default=scratch.WORK)
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="layers-", dir=options.work) as folder,
        scratch.destination(options.fs, Path(folder), size=2 << 30) as work,
    ):
        taken = compare(layers_of(options.scale), work, options.runs)
    walls = {way: min(run.wall_s for run in runs) for way, runs in taken.items()}
    bars = [Bar(f"{ALONE} / {AT_ONCE}, wall", walls[ALONE] / walls[AT_ONCE], BAR, least=True)]
    document = {
        "benchmark": "micro/layer_directories",
        **report.circumstances(),
        "file_system": options.fs,
        "results": {way: report.summary(runs) for way, runs in taken.items()},
        "ratios": {way: walls[way] / walls[AT_ONCE] for way in walls},
        "bars": report.bars(bars),
    }
    report.publish(document, options.json)
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
