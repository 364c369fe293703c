"""What a pull consists of, each stage alone on one thread: the least that their sum can cost.

Receiving is fastoci's own client on a fresh process that lets go of what comes (``micro/receive.py`` holds it against
C); the hash is one lane over bytes in the cache; the write is the store's, to the disk and synced; inflating and
extracting are the core's, on one thread.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.data import Sample
from benchmarks.macro.contenders import fastoci
from benchmarks.measure import Usage, call, here, measure
from benchmarks.micro.extract import extract
from benchmarks.micro.inflate import lane, pipeline
from fastoci import _core
from fastoci.directory import Directory
from fastoci.store.ingest.data_file import DataFile, open_data

RECEIVE, HASH, WRITE = "receive", "hash, one lane", "write"
INFLATE, HASH_TAR, EXTRACT = "inflate", "hash the tar, one lane", "extract"
SUM, START = "sum of the stages", "start-up"

Stage = Callable[[], Usage]


def stages(sample: Sample, address: str, target: Path, tars: Sequence[Path] = ()) -> dict[str, Stage]:
    """The stages of a pull, and of unpacking when there are ``tars``; ``target`` is made for each and removed."""
    size = sum(layer.stat().st_size for layer in sample.layers)
    found: dict[str, Stage] = {
        RECEIVE: lambda: _receive(sample, address),
        HASH: lambda: here(lambda: lane(size)),
        WRITE: lambda: _fresh(target, lambda: _write_all(sample.layers, target)),
    }
    if tars:
        unpacked = sum(tar.stat().st_size for tar in tars)
        found[INFLATE] = lambda: here(lambda: pipeline(sample, hashed=False, parsed=False))
        found[HASH_TAR] = lambda: here(lambda: lane(unpacked))
        found[EXTRACT] = lambda: _fresh(target, lambda: _extract_all(tars, target))
    return found


def total(taken: Mapping[str, Sequence[Usage]], names: Sequence[str]) -> list[Usage]:
    """Run by run, what these stages took one after the other."""
    runs = zip(*(taken[name] for name in names), strict=True)
    return [
        Usage(sum(run.wall_s for run in each), sum(run.cpu_s for run in each), max(run.rss for run in each))
        for each in runs
    ]


@contextmanager
def uncompressed(sample: Sample, work: Path) -> Iterator[tuple[Path, ...]]:
    """The layers as tars; gone afterwards."""
    tars = []
    with tempfile.TemporaryDirectory(prefix="tars-", dir=work) as folder:  # not that of a run that was killed
        for number, path in enumerate(sample.layers):
            tars.append(Path(folder, f"{number}.tar"))
            with gzip.open(path) as layer, tars[-1].open("wb") as tar:
                shutil.copyfileobj(layer, tar, 1 << 20)
        yield tuple(tars)


def start(sample: Sample, address: str, target: Path) -> Stage:
    """What a pull costs however large the image is: the pull of one that is there already, into ``target``."""
    command = fastoci(sample, address, target)
    measure(command)
    return lambda: measure(command)


def _receive(sample: Sample, address: str) -> Usage:
    """The client counts from its second request on, when everything is imported. Its wall time is not known."""
    base = f"http://{address}/v2/{sample.name}"
    blobs = [[(f"sha256:{each.name}", each.stat().st_size) for each in (sample.config, it)] for it in sample.layers]
    cpu_s = sum(call("benchmarks.micro.receive", "fastoci", base, each, "uvloop") for each in blobs)
    return Usage(cpu_s, cpu_s, 0)


def _fresh(target: Path, work: Callable[[], object]) -> Usage:
    target.mkdir()
    try:
        return here(work)
    finally:
        shutil.rmtree(target)


def _write_all(layers: Sequence[Path], target: Path) -> None:
    """Write as a store does, from one buffer: the content does not matter."""
    buffer = _core.Pool(_core.BUFFER_SIZE).take()
    assert buffer is not None
    buffer.append(os.urandom(_core.BUFFER_SIZE))
    with Directory(os.open(target, os.O_PATH), str(target)) as directory:
        for layer in layers:
            size = layer.stat().st_size
            fd = open_data(directory, layer.name)
            sink = DataFile(fd, directory.at(layer.name), offset=0, size=size, cached=False)
            while sink.offset < size:
                sink.feed(buffer)
            sink.sync()
            sink.abort()
    buffer.release()


def _extract_all(tars: Sequence[Path], target: Path) -> None:
    """Each into a directory of its own."""
    for tar in tars:
        (target / tar.stem).mkdir()
        extract(tar, target / tar.stem)
