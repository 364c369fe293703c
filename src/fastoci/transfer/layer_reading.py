"""Read layers into sinks on the worker pool: inflated, hashed and used, a bounded number of them at a time.

A layer comes from a tee on its fetch, from the store's blob (in the page cache, as a rule), or from the tar in its
layer file. Knows no trees and no images.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    aclosing,
    asynccontextmanager,
    closing,
    contextmanager,
    suppress,
)
from functools import partial
from typing import Final, Protocol, TypeVar

import msgspec

from fastoci import files
from fastoci._core import BUFFER_SIZE, Buffer
from fastoci.errors import FastociError, UnpackError
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import BlobSource
from fastoci.limits import LAYER_MEMORY, Limits
from fastoci.stream.inflate import Inflate
from fastoci.stream.sink import StoppableSink
from fastoci.stream.verify import Verified, Verifier
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.layer_source import ArrivingTar, FileTar, TarPart
from fastoci.transfer.pipeline import PullPipeline
from fastoci.transfer.tee import SpoiledError, Tee
from fastoci.transfer.workers import WorkerPool
from fastoci.transfer.zstd_window import FREE_WINDOW, WindowBudget, WindowShare

_FREE_NAMES: Final = 4 << 20  # bytes beside the budget
_TAR_BUFFERS: Final = 4  # buffers of tar that one of several layers may hold; at least two
# That a layer may hold while it is the only one: inflating goes on while a hundred small files are made.
_TAR_BUFFERS_ALONE: Final = 16
_OTHERS: Final = 8 << 20  # bytes of the layers' memory that it leaves: for what it reads, and for another to begin

Progressed = Callable[[int, int], UnpackError | None]  # compressed bytes so far, bytes of tar since; why to stop


class LayerSink(StoppableSink, Protocol):
    """What a layer's tar goes into; ``name`` is the layer in messages."""

    @property
    def name(self) -> str:
        """A diff_id, or a file."""


class OpenLayer(msgspec.Struct, frozen=True):
    """A layer in an open file: compressed or not, all of it; or a plain tar, the ``size`` bytes from ``offset``.

    ``compressed``: bytes of the blob that such a tar came in.
    ``forget``: nobody reads it soon again, so it need not stay in the page cache.
    """

    fd: int
    offset: int = 0
    size: int | None = None
    compressed: int = 0
    forget: bool = False


Read = Callable[[LayerSink, Verifier | None, Progressed], Awaitable[Verified | None]]
S = TypeVar("S", bound=LayerSink)


class NamesMemory:
    """The memory that a layer's names take while it is read, beyond a part that every layer has beside the budget.

    It is in use when it is counted: while other layers have the budget's buffers, it is asked for again and again, and
    then nobody else gets more.
    """

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers
        self._taken = 0

    def hold(self, size: int) -> None:
        """So many bytes are in use now."""
        more = (size - _FREE_NAMES - self._taken) // BUFFER_SIZE * BUFFER_SIZE
        if more > 0 and self._buffers.try_aside(more):
            self._taken += more

    def release(self) -> None:
        """Nothing is in use any more."""
        if self._taken:
            self._buffers.put_back(self._taken)
        self._taken = 0


class LayerReader:
    """What all that read layers of an engine share: threads, memory, and slots for layers at once."""

    def __init__(self, workers: WorkerPool, buffers: Buffers, limits: Limits) -> None:
        slots = limits.layers_at_once
        self.slots = asyncio.Semaphore(max(1, slots))
        self._workers = workers
        self._buffers = buffers
        self._tees = slots > 0
        self._windows = WindowBudget(buffers, reserve=LAYER_MEMORY * max(1, slots))
        self._alone = min(_TAR_BUFFERS_ALONE, max(_TAR_BUFFERS, (LAYER_MEMORY * slots - _OTHERS) // BUFFER_SIZE))
        self._reading = 0  # layers
        self._pipelines = set[PullPipeline]()

    def window(self) -> AbstractContextManager[WindowShare]:
        """The memory for the windows of one layer's decoder."""
        return self._windows.share()

    async def tee(self) -> Tee | None:
        """A tee for a layer, to use it while it arrives; None while layers enough are used.

        It holds one of the slots for layers until a reader of it or ``close_tee`` gives it back.
        """
        if self.slots.locked() or not self._tees:
            return None
        await self.slots.acquire()
        return Tee()

    def close_tee(self, tee: Tee) -> None:
        """Give the slot back. Idempotent."""
        if not tee.closed:
            tee.close()
            self.slots.release()

    @contextmanager
    def names(self) -> Iterator[NamesMemory]:
        """What the names of one layer take, out of the budget of buffers."""
        memory = NamesMemory(self._buffers)
        try:
            yield memory
        finally:
            memory.release()

    @asynccontextmanager
    async def sink(self, make: Callable[[], S]) -> AsyncIterator[S]:
        """A sink, aborted at the end, also when it never came to a pipeline."""
        sink = make()
        try:
            yield sink
        except BaseException:
            await self._workers.finish(sink.abort)
            raise
        await self._workers.run(sink.abort)  # whoever cancels this task meanwhile is heard

    @asynccontextmanager
    async def arrived(
        self,
        tee: Tee | None,
        ready: Callable[[], Awaitable[None]],
        open_layer: Callable[[], OpenLayer],
    ) -> AsyncIterator[tuple[Read, AsyncExitStack]]:
        """Wait until a layer comes by its tee, or is in the store and has a slot; then it can be read.

        The slot is held to the end, unless the stack beside is closed before.

        Args:
            ready: returns when the layer is in the store, or raises why it will not be.
        """
        async with AsyncExitStack() as slot:
            if tee is not None and await tee.begins():
                slot.callback(self.close_tee, tee)
                yield partial(self._from_tee, tee, ready), slot
                return
            if tee is not None:
                self.close_tee(tee)  # a task that waits for a slot must not hold one
            await ready()
            await slot.enter_async_context(self.slots)
            yield partial(self.from_file, open_layer), slot

    async def _from_tee(
        self,
        tee: Tee,
        ready: Callable[[], Awaitable[None]],
        sink: LayerSink,
        verifier: Verifier | None,
        progressed: Progressed,
    ) -> Verified | None:
        """Read a layer while it is fetched; it counts only when its digest held too."""
        tar = ArrivingTar(Inflate(window=FREE_WINDOW))
        try:
            async with self._pipeline(tar, sink, verifier, progressed) as pipeline:
                async for buffer in tee.buffers():
                    tar.put(buffer)
                    await pipeline.run_while(lambda: not tar.hungry())
                tar.put(None)
                await pipeline.finish()
        except FastociError as error:
            await self._landed(tee, ready, error)  # wrong bytes are the better reason than what they parse as
            raise
        await self._landed(tee, ready, None)
        return pipeline.proof

    async def _landed(self, tee: Tee, ready: Callable[[], Awaitable[None]], error: FastociError | None) -> None:
        """Wait for the end of a tee's flight.

        Raises:
            SpoiledError: what came by the tee was wrong. FastociError: the blob cannot be had.
        """
        self.close_tee(tee)
        await ready()
        if tee.spoiled:
            raise SpoiledError from error

    async def from_file(
        self, open_layer: Callable[[], OpenLayer], sink: LayerSink, verifier: Verifier | None, progressed: Progressed
    ) -> Verified | None:
        """Read a layer that is in a file."""
        source = await self._buffers.take()
        with ExitStack() as opened:
            opened.callback(source.release)
            layer = open_layer()
            opened.callback(files.close, layer.fd)
            if layer.size is None:
                tar: FileTar | TarPart = FileTar(layer.fd, source, Inflate(window=FREE_WINDOW))
            else:
                tar = TarPart(layer.fd, source, layer.offset, layer.size, compressed=layer.compressed)
            opened.pop_all()  # both are the tar's now
        async with self._pipeline(tar, sink, verifier, progressed) as pipeline:
            await pipeline.finish()
            if layer.forget:
                with suppress(OSError):
                    os.posix_fadvise(layer.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return pipeline.proof

    async def from_source(
        self, source: BlobSource, blob: Descriptor, sink: LayerSink, verifier: Verifier | None, progressed: Progressed
    ) -> Verified | None:
        """Read a layer while a source yields its blob. The digest of that is not asked for."""
        tar = ArrivingTar(Inflate(window=FREE_WINDOW))
        async with self.slots, self._pipeline(tar, sink, verifier, progressed) as pipeline:
            async with aclosing(source.fetch(blob, 0, self._buffers)) as arriving:
                async for buffer in arriving:
                    tar.put(buffer)
                    await pipeline.run_while(lambda: not tar.hungry())
            tar.put(None)
            await pipeline.finish()
        return pipeline.proof

    @asynccontextmanager
    async def _pipeline(
        self, tar: ArrivingTar | FileTar | TarPart, sink: LayerSink, verifier: Verifier | None, progressed: Progressed
    ) -> AsyncIterator[PullPipeline]:
        """Two stages: inflate, and hash + what the sink does. Closes ``tar``."""

        def advanced(size: int) -> None:
            if (error := progressed(tar.offset, size)) is not None:
                pipeline.fail(error)

        async def grant(window: int) -> None:
            await share.take(window)
            tar.allow(window)

        with self.window() as share, closing(tar), self._one_more():
            buffers = await self._tar_buffers()
            pipeline = PullPipeline(
                self._workers, sink, verifier, maker=tar, buffers=buffers, grant=grant, progressed=advanced
            )
            self._pipelines.add(pipeline)
            try:
                yield pipeline
            except BaseException as error:
                await pipeline.abort()
                if isinstance(error, FastociError) and sink.name not in str(error):
                    error.args = (f"layer {sink.name}: {error.message}", *error.args[1:])
                raise
            finally:
                self._pipelines.discard(pipeline)

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        """While a layer is read: the others give back what they have because they were alone."""
        self._reading += 1
        for pipeline in self._pipelines:
            pipeline.keep(_TAR_BUFFERS)
        try:
            yield
        finally:
            self._reading -= 1

    async def _tar_buffers(self) -> list[Buffer]:
        """Buffers for the tar of one layer: two, and more when nobody waits for them."""
        buffers = [await self._buffers.take()]
        try:
            buffers.append(await self._buffers.take())
        except BaseException:
            buffers[0].release()
            raise
        most = self._alone if self._reading == 1 else _TAR_BUFFERS
        while len(buffers) < most and (buffer := self._buffers.spare()) is not None:
            buffers.append(buffer)
        return buffers
