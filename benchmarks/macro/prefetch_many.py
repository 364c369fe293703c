"""Prefetches of very many images: what they cost for one image and one descriptor.

Run as a file it plans images from recorded manifests, without a network: ``prefetch_many.py MANIFESTS STORE``.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import report, server
from benchmarks.macro import image_set
from benchmarks.measure import Usage, measure
from benchmarks.report import Bar, Part
from benchmarks.server import Shape
from fastoci import Limits, PrefetchRequest
from fastoci._core import Buffer
from fastoci.engine_parts import EngineParts
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.mediatype import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST
from fastoci.image.reference import Reference
from fastoci.interfaces import BufferSource

_IMAGES, _PLANNED = 1000, 100_000
_MIB = 1 << 20


def many(work: Path, *, scale: float, runs: int) -> Part:
    """A thousand images of ten small layers, of which 3,000 blobs differ; and again, when they are there."""
    samples = image_set.many(work, images=max(5, round(_IMAGES * scale)))
    first, again = list[Usage](), list[Usage]()
    manifests = blobs = 0
    with tempfile.TemporaryDirectory(dir=work) as name:
        log, store = Path(name) / "log", Path(name) / "store"
        with server.serve(samples, shape=Shape(log=log)) as address:
            command = image_set.prefetch(image_set.references(samples, address), store)
            for _ in range(runs):
                first.append(measure(command))
                before = log.stat().st_size
                again.append(measure(command))
                asked = server.asked(log, before)
                manifests += sum(each.sent > 0 and "/manifests/" in each.path for each in asked)
                blobs += sum("/blobs/" in each.path for each in asked)
                shutil.rmtree(store)
    descriptors = sum(len(sample.layers) for sample in samples)
    bars = [
        Bar("CPU ms of a descriptor", 1000 * _cpu_s(first) / descriptors, 1.5),
        Bar("peak MiB", max(run.rss for run in first) / _MIB, 200),
        Bar("again: CPU ms of an image", 1000 * _cpu_s(again) / len(samples), 5),
        Bar("again: requests for blobs", blobs, 0),
    ]
    results = {
        "images": len(samples),
        "descriptors": descriptors,
        "blobs": len({blob.name for sample in samples for blob in sample.blobs}),
        "first": report.summary(first),
        "again": {**report.summary(again), "manifests": manifests},
    }
    return Part(results, bars)


def _cpu_s(runs: list[Usage]) -> float:
    return statistics.median(run.cpu_s for run in runs)


def planned(work: Path, *, scale: float, runs: int) -> Part:
    """A hundred thousand images, planned from recorded manifests: no network."""
    images = max(4, round(_PLANNED * scale))
    usages = list[Usage]()
    with tempfile.TemporaryDirectory(dir=work) as name:
        recorded = Path(name) / "manifests"
        _record(recorded, images)
        for run in range(runs):
            usages.append(measure([sys.executable, __file__, str(recorded), f"{name}/store{run}"]))
    bars = [
        Bar("plan, wall s", statistics.median(run.wall_s for run in usages), 60),
        Bar("plan, peak MiB", max(run.rss for run in usages) / _MIB, 1024),
    ]
    return Part({"images": images, "plan": report.summary(usages)}, bars)


def _record(path: Path, images: int) -> None:
    """Manifests of ten layers, a line each: seven of 0.3 for each image, and three of its own."""
    pool = max(7, 3 * images // 10)
    with path.open("w") as file:
        for number in range(images):
            shared = (f"shared {(7 * number + 31 * step * step) % pool}" for step in range(7))
            layers = [_form(each, OCI_LAYER_GZIP) for each in (*shared, *(f"own {number} {at}" for at in range(3)))]
            config = _form(f"config {number}", OCI_CONFIG)
            document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
            file.write(json.dumps(document) + "\n")


def _form(name: str, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(Digest.of(name.encode())), "size": 10_000 + len(name)}


class _Recorded:
    """A registry that has recorded manifests: the tag is the number of one."""

    def __init__(self, path: Path) -> None:
        self.name = "registry.test/app"
        self._file = path.open("rb")
        self._ends = [0]
        for line in self._file:
            self._ends.append(self._ends[-1] + len(line))

    def __len__(self) -> int:
        return len(self._ends) - 1

    async def resolve(
        self, reference: Reference, held: tuple[Descriptor, bytes] | None = None
    ) -> tuple[Descriptor, bytes]:
        """The manifest; from the file, so that the recording takes no memory."""
        number = int(reference.tag or 0)
        start, end = self._ends[number], self._ends[number + 1]
        data = os.pread(self._file.fileno(), end - 1 - start, start)
        return Descriptor.of(data, OCI_MANIFEST), data

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """None is asked for: there are no indexes."""
        raise NotImplementedError

    def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """None is asked for: a plan fetches no blob."""
        raise NotImplementedError


async def _plan(recorded: Path, store: Path) -> None:
    source = _Recorded(recorded)

    async def opened(reference: Reference, image: str) -> _Recorded:
        return source

    parts = await EngineParts.open(store, [], limits=Limits(), observer=lambda event: None, options=None)
    requests = [PrefetchRequest(f"{source.name}:{number}") for number in range(len(source))]
    plan = await parts.prefetch(opened).plan(requests)
    await parts.close()
    if len(plan.images) != len(source) or plan.refused:
        raise RuntimeError(f"{len(plan.images)} images of {len(source)} are planned")


if __name__ == "__main__":
    asyncio.run(_plan(Path(sys.argv[1]), Path(sys.argv[2])))
