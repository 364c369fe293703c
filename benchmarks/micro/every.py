"""What a run of ``prefetch --every`` costs over images that did not change: with an engine made anew, and one kept.

``python -m benchmarks.micro.every`` prints JSON on stdout: CPU seconds of each run, descriptors that are open between
two runs, and how much the memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # also when run as a file

from benchmarks import report
from fastoci import Engine, PrefetchRequest, RegistryOptions
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve

BAR_MS = 5.0  # of CPU an image
TAGS = 10  # of one repository


def answer(count: int, pipe: Connection) -> None:
    """Serve so many images until the pipe ends: a process of its own, whose CPU does not count."""
    base = Layer.build([Entry("base", data=bytes(5000))])
    with serve(Registry()) as registry:
        for number in range(count):
            own = Layer.build([Entry("own", data=str(number).encode())])
            registry.add_image(f"app{number // TAGS}", str(number % TAGS), Image.build([base, own]))
        pipe.send(registry.address)
        pipe.poll(None)


@contextmanager
def served(count: int) -> Iterator[str]:
    """The address of a registry with so many images."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=answer, args=(count, theirs))
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.close()
        process.join()


def memory() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def measured(address: str, count: int, store: str, runs: int) -> dict[str, dict[str, object]]:
    """Both ways, by name."""
    requests = [PrefetchRequest(f"{address}/app{number // TAGS}:{number % TAGS}") for number in range(count)]
    cpu: dict[str, list[float]] = {"anew": [], "kept": []}
    descriptors, before = {"anew": 0, "kept": 0}, 0

    async def once(engine: Engine) -> None:
        assert not (await engine.prefetch(requests)).failed

    def made() -> Engine:
        return Engine(store, registry=RegistryOptions(tls_verify=False))

    async with made() as engine:
        await once(engine)
    grown = {}
    for name in cpu:
        kept = await made().__aenter__() if name == "kept" else None
        for number in range(runs + 1):
            began = time.process_time()
            if kept is not None:
                await once(kept)
            else:
                async with made() as engine:
                    await once(engine)
            descriptors[name] = len(os.listdir("/proc/self/fd"))
            if number:
                cpu[name].append(time.process_time() - began)
            else:
                before = memory()
        grown[name] = memory() - before
        if kept is not None:
            await kept.__aexit__(None, None, None)
    return {
        name: {
            "cpu_s": {"min": min(taken), "median": statistics.median(taken), "max": max(taken)},
            "descriptors_between_runs": descriptors[name],
            "memory_grown": grown[name],
        }
        for name, taken in cpu.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both, print, and compare with the bar."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="the file for the result; stdout without it")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as store, served(options.images) as address:
        results = asyncio.run(measured(address, options.images, store, options.runs))
    result = {"benchmark": "micro/every", **report.circumstances(), "images": options.images, "results": results}
    report.publish(result, options.json)
    median = results["anew"]["cpu_s"]["median"]  # type: ignore[index]
    return 0 if median * 1000 / options.images <= BAR_MS else 1


if __name__ == "__main__":
    sys.exit(main())
