"""Make something of each layer of an image that the store keeps, by itself, side by side, once for all who want it.

What is made is a layer file (``layer_files``) or a layer directory (``layer_directories``). Fetches nothing and names
no images. Spec: image-spec v1.1 layer.md; docs/store-format.md 9.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final, Protocol, TypeVar

import msgspec

from fastoci.aio import wait_to_end
from fastoci.errors import StoreBusyError, UnpackError
from fastoci.events import Observer, UnpackSkipped, UnpackStarted
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.layer_interfaces import LayerStore
from fastoci.limits import Limits
from fastoci.stream.verify import Verified, Verifier
from fastoci.transfer.layer_reading import LayerReader, LayerSink, OpenLayer, Read
from fastoci.transfer.tee import Tee
from fastoci.transfer.unpack_totals import CountingSink, UnpackTotals
from fastoci.transfer.workers import WorkerPool

_LOG: Final = logging.getLogger(__name__)

Ready = Callable[[Descriptor], Awaitable[None]]
Reading = tuple[Read, AsyncExitStack]  # reads the layer; the stack holds the slot for that


class Ingest(Protocol):
    """What is on its way into a store."""

    async def abort(self) -> None:
        """Let go and delete it. Idempotent."""


class LayerWriter(LayerSink, CountingSink, Protocol):
    """A sink that counts what it makes of a layer, and the memory that it takes for the names in it."""

    @property
    def memory(self) -> int:
        """Bytes, beside buffers."""


W = TypeVar("W", bound=LayerWriter)
Begun = TypeVar("Begun", bound=Ingest)


class LayerJob(msgspec.Struct, frozen=True):
    """The layers of one image that are to be made.

    ``root`` is where they are kept, for events. ``ready`` returns when a blob is in the store, or raises why it will
    not be; ``tees`` are on blobs that are fetched meanwhile. ``verity``: what is made is held against its digest.
    """

    image: str
    root: str
    manifest: Digest
    layers: Sequence[tuple[Descriptor, Digest]]
    ready: Ready
    tees: Mapping[Digest, Tee]
    verity: bool = False


class Layer(msgspec.Struct, frozen=True):
    """One layer of a job, its number among those that are made."""

    job: LayerJob
    totals: UnpackTotals
    number: int
    blob: Descriptor
    diff_id: Digest


class LayerMaking(ABC):
    """What both makers of layers share; a bounded number of layers is read at a time, over all images."""

    def __init__(
        self,
        layers: LayerStore,
        open_layer: Callable[[Descriptor, Digest], OpenLayer],
        workers: WorkerPool,
        reader: LayerReader,
        limits: Limits,
        observer: Observer,
    ) -> None:
        self._layers = layers
        self._open = open_layer
        self._workers = workers
        self._reader = reader
        self._limits = limits
        self._observe = observer

    @abstractmethod
    async def make(self, job: LayerJob) -> None:
        """Have all layers of an image in the store; what is there already is not made again.

        Raises:
            SpoiledError: what came by a tee was wrong; the layers that are whole stay.
            UnpackError, FormatError, IntegrityError, StoreError: likewise.
        """

    async def _absent(self, job: LayerJob, is_there: Callable[[Digest], bool], totals: UnpackTotals) -> list[Layer]:
        """The layers that are not there, each once. Tees on the others are closed, so that their fetches go on."""

        def find() -> list[Layer]:
            unique = {diff_id: blob for blob, diff_id in job.layers}
            absent = [(blob, diff_id) for diff_id, blob in unique.items() if not is_there(diff_id)]
            return [Layer(job, totals, number, *layer) for number, layer in enumerate(absent)]

        layers = await self._workers.run(find)
        wanted = {layer.blob.digest for layer in layers}
        for digest, tee in job.tees.items():
            if digest not in wanted:
                self._reader.close_tee(tee)
        if layers:
            size = sum(layer.blob.size for layer in layers)
            self._observe(UnpackStarted(job.image, job.root, len(layers), size))
        return layers

    def _end(self, job: LayerJob, layers: Sequence[Layer], totals: UnpackTotals) -> None:
        """Tell that all is there."""
        if layers:
            totals.done(job.root)
        else:
            self._observe(UnpackSkipped(job.image, job.root, str(job.manifest)))

    async def _once(
        self,
        layer: Layer,
        begin: Callable[[], Awaitable[Begun | None]],
        wait: Callable[[], Awaitable[bool]],
        fill: Callable[[Layer, Begun, Reading], Awaitable[None]],
    ) -> None:
        """Make one layer, unless somebody else does: who waits for that one holds no slot."""
        blob, tee, is_there = layer.blob, layer.job.tees.get(layer.blob.digest), False
        while not is_there:
            ready, open_layer = partial(layer.job.ready, blob), partial(self._open, blob, layer.diff_id)
            async with self._reader.arrived(tee, ready, open_layer) as reading:
                try:
                    ingest = await begin()
                except StoreBusyError:
                    _LOG.debug("%s: somebody else unpacks it", layer.diff_id)
                else:
                    if ingest is not None:
                        await self._held(ingest, fill(layer, ingest, reading))
                    break
            tee = None
            is_there = await wait()
        layer.totals.layer_done(layer.number, blob.size)

    async def _held(self, ingest: Ingest, work: Awaitable[None]) -> None:
        """Let go of what is being made when it cannot be."""
        try:
            await work
        except BaseException:
            await wait_to_end(ingest.abort())
            raise

    async def _read(self, layer: Layer, make: Callable[[int, int], W], reading: Reading) -> tuple[W, Verified]:
        """Read a layer into a writer; both are done then, and the slot is free."""
        read, slot = reading
        verifier = Verifier(layer.diff_id, None)
        async with self._reader.sink(partial(layer.totals.counted, layer.number, make)) as writer:
            with self._reader.names() as names:

                def progressed(offset: int, size: int) -> UnpackError | None:
                    names.hold(writer.memory)
                    return layer.totals.progress(layer.number, offset, size)

                proof = await read(writer, verifier, progressed)
            await slot.aclose()  # a task that waits for the disk must not hold a slot
        assert proof is not None
        return writer, proof
