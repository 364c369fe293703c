"""Memory is one budget: a pull needs no more address space than it began with, the budget and a margin."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard

import fastoci
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.testing import layers
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, Seeded
from fastoci.testing.registry import Registry, serve
from support.sanitizers import SANITIZED

SOURCE = Path(fastoci.__file__).resolve().parents[1]
MIB = 1 << 20
ZEROS = 512 * MIB

# Beside the budget: the window of 8 MiB that a frame has without asking, libzstd's 1 MiB, ISA-L's 90 KB, and what
# Python, aiohttp and the tables of the extractor grow by.
MARGIN = 12 * MIB

# The warm-up has every module imported and every thread started; then the limit is set. One malloc arena and stacks of
# 1 MiB, since a thread else reserves 72 MiB of address space that it never touches.
CHILD = """
import asyncio, resource, sys, threading
from fastoci import Engine, RegistryOptions, Limits
from fastoci.errors import FastociError

memory, margin, registry, place = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
threading.stack_size(1 << 20)

def mapped():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()

async def main():
    limits = Limits(memory=memory, workers=2)
    async with Engine(place + "/store", limits=limits, registry=RegistryOptions(tls_verify=False)) as engine:
        for number in range(3):
            await engine.pull(registry + "/warm:up", rootfs=f"{place}/warm{number}")
        limit = mapped() + memory + margin
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            bytearray(memory + margin + (4 << 20))
        except MemoryError:
            print("limited")
        for name in sys.argv[5:]:
            try:
                await engine.pull(f"{registry}/{name}:t", rootfs=f"{place}/{name}")
                print(name, "done")
            except FastociError as error:
                print(name, error)

asyncio.run(main())
"""


@contextmanager
def _in_memory() -> Iterator[Path]:
    """A directory in memory where there is one: a test writes a gigabyte."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(prefix="fastoci-memory-", dir=memory) as name:
        yield Path(name)


def _zstd_layer(window_log: int, entries: list[Entry]) -> Layer:
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log, write_content_size=False)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    tar = b"".join(layers.tar(entries))
    content = stream.compress(tar) + stream.flush()
    digests = [Digest.parse(f"sha256:{hashlib.sha256(data).hexdigest()}") for data in (content, tar)]
    descriptor = Descriptor(f"{mediatype.OCI_LAYER}+zstd", digests[0], len(content))
    return Layer(descriptor, digests[1], content)


@pytest.fixture(scope="module")
def images() -> dict[str, Image]:
    """``bombs``: two layers of 512 MiB of zeros; ``window``: zstd with a window of 8 MiB; ``more``: of 32 MiB."""
    with _in_memory() as directory:
        zeros = directory / "zeros"
        zeros.touch()
        os.truncate(zeros, ZEROS)
        bombs = [Layer.build([Entry("zeros", data=zeros, mode=mode)]) for mode in (0o600, 0o644)]
        assert sum(bomb.descriptor.size for bomb in bombs) * 100 < ZEROS * 2
    files = [Entry(f"file{number}", data=Seeded(number, 24 * MIB)) for number in range(2)]
    small = [Layer.build(layers.from_seed(3, files=30, size=3 * MIB)), Layer.build([Entry("x")], "zstd")]
    return {
        "warm:up": Image.build(small),
        "bombs:t": Image.build(bombs),
        "window:t": Image.build([_zstd_layer(23, files)]),
        "more:t": Image.build([_zstd_layer(25, files)]),
    }


@pytest.fixture
def registry(images: dict[str, Image]) -> Iterator[Registry]:
    with serve(Registry()) as registry:
        for name, image in images.items():
            repository, _, tag = name.partition(":")
            registry.add_image(repository, tag, image)
        yield registry


def _pull(registry: Registry, memory: int, names: list[str]) -> list[str]:
    with _in_memory() as place:
        arguments = [str(memory), str(MARGIN), registry.address, str(place), *names]
        done = subprocess.run(
            [sys.executable, "-c", CHILD, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCE), "MALLOC_ARENA_MAX": "1"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for name, size in (("bombs", ZEROS), ("window", 48 * MIB)):
            if name in names:
                assert sum(file.stat().st_size for file in (place / name).iterdir()) == size
        return done.stdout.splitlines()


@pytest.mark.skipif(SANITIZED, reason="the sanitizers map terabytes")
def test_layers_far_larger_than_the_budget_are_unpacked_within_it(registry: Registry) -> None:
    for memory in (4 * MIB, 64 * MIB):
        assert _pull(registry, memory, ["bombs", "window"]) == ["limited", "bombs done", "window done"]


@pytest.mark.skipif(SANITIZED, reason="the sanitizers map terabytes")
def test_a_window_beyond_8_mib_is_part_of_the_budget(registry: Registry) -> None:
    assert _pull(registry, 64 * MIB, ["window", "more"]) == ["limited", "window done", "more done"]
    refused = _pull(registry, 4 * MIB, ["window", "more"])
    assert refused[:-1] == ["limited", "window done"]
    assert "window" in refused[-1]
