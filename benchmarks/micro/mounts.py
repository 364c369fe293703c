"""How long does it take to mount an image of 60 and of 127 layers, and to take it away?

The image's layer files and merged metadata are in a store on ext4 on a loop device (as root), so that the kernel mounts
the files themselves. Timed is all that ``Image.mount`` does with layers that are there: the lock, the checks of the
directories, the shared mount, the bind; and ``fastoci.umount`` with its sweep. ``kernel`` is the file system alone.
``python -m benchmarks.micro.mounts`` prints JSON on stdout; the exit status is 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

import fastoci
from benchmarks import report, scratch
from benchmarks.report import Bar
from fastoci.jobs import mounting
from fastoci.jobs.mount_image import layer_files
from fastoci.mount import erofs
from fastoci.store.store import Store
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve

BARS_MS = {60: (2.0, 20.0), 127: (4.0, 20.0)}  # layers: mount, umount


def image_of(layers: int) -> Image:
    """An image of small layers."""
    return Image.build([Layer.build([Entry(f"file-{number}", data=b"x" * 1000)], "none") for number in range(layers)])


async def stored(store: Path, image: Image) -> fastoci.Digest:
    """Have an image's layer files in a store; the digest of its manifest."""
    with serve(Registry()) as registry:
        registry.add_image("app", "1", image)
        async with fastoci.Engine(store) as engine:
            pulled = await engine.pull(f"{registry.address}/app:1")
            await pulled.make_layers(fastoci.Layers("erofs"))
            return pulled.manifest_descriptor.digest


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    begin = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begin)


def runs_of(store: Path, manifest: fastoci.Digest, directory: Path, runs: int) -> dict[str, list[float]]:
    """Milliseconds of each run, by what is done."""
    found: dict[str, list[float]] = {"mount": [], "umount": [], "kernel": []}
    request = mounting.Request(image=manifest.hex, reference="app:1", directory=directory)
    opened = Store.at(store)
    try:
        with layer_files(opened.layers, manifest) as sources:
            for _ in range(runs):
                found["mount"].append(timed(lambda: mounting.mount(request, sources)))
                found["umount"].append(timed(lambda: fastoci.umount(directory)))
                found["kernel"].append(timed(lambda: os.close(erofs.make(sources.metadata, sources.devices)[0])))
    finally:
        opened.close()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was measured; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args(arguments)
    if os.geteuid() != 0:
        parser.error("only root mounts images")
    results, bars = {}, []
    scratch.WORK.mkdir(exist_ok=True)
    with scratch.destination("ext4", scratch.WORK, size=512 << 20) as place:
        for layers, (mount_ms, umount_ms) in BARS_MS.items():
            manifest = asyncio.run(stored(place / "store", image_of(layers)))
            found = runs_of(place / "store", manifest, place / f"root-{layers}", options.runs)
            results[f"{layers} layers, ms"] = {name: report.spread(each) for name, each in found.items()}
            for name, limit in (("mount", mount_ms), ("umount", umount_ms)):
                bars.append(Bar(f"{name} of {layers} layers, ms", report.spread(found[name])["median"], limit))
    print(json.dumps({**report.circumstances(), "results": results, "bars": report.bars(bars)}, indent=1))
    return 0 if all(bar.met for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
