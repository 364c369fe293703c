"""Many processes on one store: each blob is fetched once; who waits sees how far it is and takes over from the dead.

``make crowd`` runs 64 processes and 30 images; the short form is part of ``make test``.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fastoci.events import BlobProgress, BlobStarted, BlobWaiting
from fastoci.image.descriptor import Descriptor
from fastoci.limits import Limits
from fastoci.testing.images import Image
from fastoci.testing.layers import Layer
from fastoci.testing.registry import Registry, serve
from fastoci.transfer.scheduler import BytesSource
from support import pull_process
from support.engine_parts import add_images, open_parts, shared_images
from support.images import made
from support.store_shelf import Shelf

LONG = os.environ.get("FASTOCI_CROWD") == "1"
PROCESSES = 64 if LONG else 6
PULLERS, IMAGES = (8, 30) if LONG else (3, 8)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        yield registry


def fetched(registry: Registry) -> Counter[str]:
    """How often each blob was asked for from its beginning: a large one may come in several parts."""
    first = [record for record in registry.log if not record.range or record.range.startswith("bytes=0-")]
    paths = [record.path for record in first if "/blobs/" in record.path and record.method == "GET"]
    return Counter(path.rpartition("/")[2] for path in paths)


def crowd(store: Path, number: int, references: list[str]) -> None:
    """Run so many processes that pull the same, from the same moment on."""
    command = [sys.executable, pull_process.__file__, str(store), *references]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(number)
    ]
    failed = []
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        _, errors = child.communicate(timeout=500)
        if child.returncode:
            failed.append(errors)
    assert not failed, failed[0]


@pytest.mark.timeout(600)
def test_many_processes_that_want_one_image_fetch_each_blob_once(registry: Registry, tmp_path: Path) -> None:
    image = Image.build([Layer.build(made(1, size=3_000_000, compressibility=0.0), "none")])
    registry.add_image("one", "latest", image)
    crowd(tmp_path / "store", PROCESSES, [f"{registry.address}/one"])
    assert set(fetched(registry).values()) == {1}
    assert len(fetched(registry)) == 2


@pytest.mark.timeout(600)
def test_processes_that_pull_images_that_share_layers_fetch_each_blob_once(registry: Registry, tmp_path: Path) -> None:
    layers = [Layer.build(made(number, files=2, size=200_000), "gzip") for number in range(12)]
    for number in range(IMAGES):
        parts = [layers[number % 2], layers[2 + number % 5], layers[7 + number % 5]]
        registry.add_image(f"image{number}", "latest", Image.build(parts, command=[str(number)]))
    references = [f"{registry.address}/image{number}" for number in range(IMAGES)]
    crowd(tmp_path / "store", PULLERS, references)
    assert set(fetched(registry).values()) == {1}
    assert len(fetched(registry)) == 12 + IMAGES


async def test_who_waits_takes_no_connection_sees_progress_and_goes_on_where_the_dead_left_off(
    registry: Registry, tmp_path: Path
) -> None:
    images = shared_images()
    add_images(registry, images)
    layer = images["one"].layers[1]  # which "three" does not have
    assert isinstance(layer.content, bytes)
    shelf = Shelf(tmp_path / "store")
    ingest = await shelf.begin(layer.descriptor)
    assert ingest is not None
    blob = str(layer.descriptor.digest)
    async with open_parts(tmp_path / "store", Limits(connections=1)) as parts:
        pull = asyncio.create_task(parts.pull(registry.address, "one"))
        await parts.events.until(lambda: BlobWaiting("one", blob, layer.descriptor.size) in parts.events)
        await parts.pull(registry.address, "three")
        verifier = shelf.feed(ingest, layer.content, until=1 << 20)
        ingest.checkpoint(verifier.offset, verifier.state())
        await parts.events.until(lambda: BlobProgress(blob, 1 << 20) in parts.events)
        await ingest.abort()
        await pull
        began = [event.offset for event in parts.events if isinstance(event, BlobStarted) and event.blob == blob]
        assert began == [1 << 20]
    shelf.store.close()


HOLDER = """
import sys
from fastoci.store.ingest import ingest
from fastoci.store.opening import existing_store
paths = existing_store(sys.argv[1])
held = [ingest.hold(paths, name) for name in sys.stdin.readline().split()]
assert all(held)
print("held", flush=True)
sys.stdin.readline()
"""


@contextmanager
def held(store: Path, blobs: Sequence[Descriptor]) -> Iterator[subprocess.Popen[str]]:
    """A process that holds these digests."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(" ".join(blob.digest.hex for blob in blobs) + "\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


async def test_a_thousand_digests_of_other_processes_cost_few_descriptors_and_threads(tmp_path: Path) -> None:
    contents = [b"%d" % number for number in range(1000)]
    blobs = [Descriptor.of(content, "a/b") for content in contents]
    async with open_parts(tmp_path / "store") as parts:
        with ExitStack() as stack:
            holders = [stack.enter_context(held(parts.store.path, blobs[at : at + 200])) for at in range(0, 1000, 200)]
            fetches = [
                asyncio.create_task(parts.fetch(blob, BytesSource(content)))
                for blob, content in zip(blobs, contents, strict=True)
            ]
            await parts.events.until(lambda: sum(isinstance(event, BlobWaiting) for event in parts.events) == 1000)
            most = 0
            for _ in range(30):
                await asyncio.sleep(0.01)
                most = max(most, len(os.listdir("/proc/self/fd")))
            assert most < 50 + 2 * len(holders)  # their pipes are not the waiters'
            assert threading.active_count() < 10
            assert not any(fetch.done() for fetch in fetches)
        await asyncio.gather(*fetches)
        assert await parts.store.missing(blobs) == []
