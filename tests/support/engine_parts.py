"""An engine taken apart, over a pool that poisons what it frees: for tests that look inside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fastoci import _core
from fastoci.events import Event
from fastoci.image.descriptor import Descriptor
from fastoci.image.reference import Reference
from fastoci.interfaces import BlobSource, StoreWriter
from fastoci.jobs.layers import Layering
from fastoci.jobs.outputs import Outputs
from fastoci.jobs.pull import PullContext
from fastoci.jobs.running import RunningJobs
from fastoci.jobs.stored import Stored
from fastoci.jobs.trust import Trust
from fastoci.limits import Limits
from fastoci.registry.auth.credentials import load
from fastoci.registry.client import Registry as Client
from fastoci.store.store import Store
from fastoci.testing.images import Image
from fastoci.testing.layers import Compression, Layer, from_seed
from fastoci.testing.registry import Registry
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.layer_reading import LayerReader
from fastoci.transfer.scheduler import Scheduler
from fastoci.transfer.streaming import Streams
from fastoci.transfer.tee import Tee
from fastoci.transfer.unpacker import Unpacker
from fastoci.transfer.workers import WorkerPool

NAMES = ("one", "two", "three")


def shared_images() -> dict[str, Image]:
    """Three images of three layers of 0.3 to 4.5 MB; each pair shares layers, and every compression is there."""
    kinds: list[tuple[int, Compression]] = [(60_000, "gzip"), (400_000, "zstd"), (600_000, "none"), (900_000, "gzip")]
    layers = [
        Layer.build(from_seed(number, files=5, size=size, compressibility=0.1, at=f"layer{number}"), kind)
        for number, (size, kind) in enumerate(kinds)
    ]
    chosen = ([0, 1, 2], [1, 2, 3], [0, 2, 3])
    return {
        name: Image.build([layers[number] for number in numbers]) for name, numbers in zip(NAMES, chosen, strict=True)
    }


def add_images(registry: Registry, images: dict[str, Image]) -> Registry:
    """Serve each as ``NAME:latest``."""
    for name, image in images.items():
        registry.add_image(name, "latest", image)
    return registry


class Events(list[Event]):
    """The events so far, and those to come."""

    def __init__(self) -> None:
        super().__init__()
        self._came = asyncio.Event()

    def append(self, event: Event) -> None:
        super().append(event)
        self._came.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the event after which ``condition`` holds."""
        while not condition():
            self._came.clear()
            await self._came.wait()


@dataclass
class EngineParts:
    """What an engine is made of, and the events so far."""

    store: Store
    pool: _core.Pool
    buffers: Buffers
    worker: WorkerPool
    scheduler: Scheduler
    job: PullContext
    client: Client
    events: Events = field(default_factory=Events)

    async def pull(self, address: str, name: str, rootfs: Path | None = None) -> None:
        """Pull ``NAME:latest`` from a registry."""
        reference = Reference.parse(f"{address}/{name}")
        source = self.client.repository(reference)
        await self.job.pull(reference, source, image=name, wanted=None, outputs=Outputs(rootfs))

    @asynccontextmanager
    async def writer(self, blobs: Sequence[Descriptor]) -> AsyncIterator[StoreWriter]:
        """Who may bring these blobs."""
        async with self.store.session(blobs) as session, session.reserve() as writer:
            yield writer

    async def fetch(
        self, blob: Descriptor, source: BlobSource, *, scheduler: Scheduler | None = None, tee: Tee | None = None
    ) -> None:
        """Bring a blob into the store, in a session of its own."""
        async with self.writer([blob]) as writer:
            await (scheduler or self.scheduler).fetch(writer, blob, source, tee=tee)


@asynccontextmanager
async def open_parts(directory: Path, limits: Limits | None = None) -> AsyncIterator[EngineParts]:
    """The parts over a store in ``directory``; at the end every buffer must be back."""
    limits = limits or Limits(checkpoint=1 << 20, memory=24 << 20)
    store = Store.at(directory, limits=limits)
    pool = _core.Pool(limits.memory, poison=True)
    worker, buffers = WorkerPool(limits.workers), Buffers(pool)
    events = Events()
    scheduler = Scheduler(worker, buffers, limits, events.append)
    stored = Stored(store, scheduler, worker, buffers, events.append)
    streams = Streams(worker, buffers, limits, events.append)
    reader = LayerReader(worker, buffers, limits)
    unpacker = Unpacker(worker, reader, limits, events.append)
    kept = str(directory / "layers")
    layering = Layering(
        store, lambda: store.layers, stored, worker, reader, lambda: unpacker, limits, events.append, kept
    )
    trust = Trust(None, buffers)
    job = PullContext(
        store, scheduler, stored, streams, layering, limits, events.append, directory, RunningJobs(), trust
    )
    try:
        async with Client(credentials=load(environ={})) as client:
            yield EngineParts(store, pool, buffers, worker, scheduler, job, client, events)
            await scheduler.close()
    finally:
        worker.close()
        store.close()
    assert pool.in_use == 0
