"""Fetches blobs: each digest in flight once, whoever asks, within the engine's limits.

A flight belongs to the engine, not to the task that asked first: it ends early only when its last waiter has gone.
What it begins in the store, it begins for one of those who still wait, so that the blob is always under a lease.
Knows neither registries nor references: a source and a store are protocols.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from typing import Final

import msgspec

from fastoci._core import Buffer
from fastoci.aio import wait_to_end
from fastoci.errors import FastociError, IntegrityError, SizeMismatchError, StoreBusyError, StoreError
from fastoci.events import BlobDone, BlobFailed, BlobProgress, BlobStarted, BlobWaiting, FetchDuplicated, Observer
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import (
    BlobSource,
    BufferSource,
    CorruptionAwareSource,
    ForewarnedSource,
    Ingest,
    SmallIngest,
    StoreWriter,
)
from fastoci.limits import Limits
from fastoci.slots import Slots
from fastoci.stream.inflate import HEAD
from fastoci.stream.verify import Verifier
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.pipeline import PushPipeline
from fastoci.transfer.tee import Tee
from fastoci.transfer.workers import WorkerPool

_LOG: Final = logging.getLogger(__name__)


class _Order(msgspec.Struct, frozen=True):
    """What one caller wants: a blob, from where, and how it is to arrive."""

    blob: Descriptor
    source: BlobSource
    image: str
    tee: Tee | None
    cached: bool


class _Flight:
    """One order under way, and the writers of all who wait for it."""

    def __init__(self, order: _Order, run: Callable[[_Flight], Coroutine[None, None, bytes]]) -> None:
        self.order = order
        self.writers: list[StoreWriter] = []
        self.task = asyncio.create_task(run(self))

    @property
    def writer(self) -> StoreWriter:
        """The writer of somebody who still waits: of the first."""
        return self.writers[0]


class BytesSource:
    """A ``BlobSource`` of one blob that is already in memory: a manifest on its way into the store."""

    name = "memory"

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield the bytes from ``offset`` on.

        Raises:
            SizeMismatchError: they are not as many as the descriptor says.
        """
        if len(self._data) != blob.size:
            text = f"{blob.digest}: expected {blob.size} bytes, got {len(self._data)}"
            raise SizeMismatchError(text, subject=str(blob.digest), expected=blob.size, actual=len(self._data))
        while offset < len(self._data):
            buffer = await buffers.take()
            offset += buffer.append(self._data, offset)
            yield buffer


class _Resumable:
    """The sink of a fetch: writes, and now and then leaves a resume point. What is under one survives ``abort``."""

    def __init__(self, ingest: Ingest, verifier: Verifier, every: int) -> None:
        self._ingest = ingest
        self._verifier = verifier
        self._every = every
        self._written = self._saved = ingest.offset

    def feed(self, buffer: Buffer) -> None:
        """Write, and leave a resume point every so many bytes."""
        self._ingest.sink.feed(buffer)
        self._written += len(buffer)
        if self._written - self._saved >= self._every:
            self._save()

    def finish(self) -> None:
        """Complete the file."""
        self._ingest.sink.finish()

    def abort(self) -> None:
        """Leave a last resume point and close the file."""
        with suppress(StoreError):  # a disk that refuses the resume point: the earlier one stays
            self._save()
        self._ingest.sink.abort()

    def _save(self) -> None:
        # after a failed write the hash is ahead of the file, and its state is worth nothing
        if self._saved < self._written == self._verifier.offset and (state := self._verifier.state()):
            self._ingest.checkpoint(self._written, state)
            self._saved = self._written


class Scheduler:
    """The flights of one engine into its one store, over all images of its jobs."""

    def __init__(self, workers: WorkerPool, buffers: Buffers, limits: Limits, observer: Observer) -> None:
        self._workers = workers
        self._buffers = buffers
        self._limits = limits
        self._observe = observer
        self._slots = Slots(limits.flights, limits.connections)
        self._active = 0  # flights that have a slot
        self._flights: dict[Digest, _Flight] = {}

    async def fetch(
        self,
        writer: StoreWriter,
        blob: Descriptor,
        source: BlobSource,
        *,
        image: str = "",
        tee: Tee | None = None,
        cached: bool = False,
    ) -> bytes:
        """Bring a blob of the writer's session into the store, once for all tasks that want it.

        Args:
            tee: gets the buffers too, when this call starts the flight and the blob comes from its beginning; ended in
                any case.
            cached: it is read back soon, so its file stays in the page cache.
        When another task's flight fails and it used another source, or fails in a way that nobody expected, this one's
        source is tried as well.

        Returns:
            the first bytes of the blob, when it came as a whole; else none.
        Raises:
            FastociError: the blob could not be fetched, verified or stored.
        """
        try:
            return await self._fetch(writer, _Order(blob, source, image, tee, cached))
        finally:
            if tee is not None:
                tee.end()

    async def _fetch(self, writer: StoreWriter, order: _Order) -> bytes:
        while True:
            flight = self._flights.get(order.blob.digest)
            if flight is None:
                flight = self._start(order)
            elif flight.task.cancelling() or flight.task.done():  # let it clean up and land, then begin anew
                await asyncio.wait([flight.task])
                continue
            else:
                _LOG.debug("%s: %s joins the flight for %s", order.blob.digest, order.image, flight.order.image)
            try:
                return await self._join(flight, writer)
            except FastociError as error:
                if flight.order.source.name == order.source.name:
                    raise copy.copy(error) from error  # each waiter's names its image
            except Exception:
                if flight.order is order:
                    raise
                # of another's source or observer, or a fault: it harms none but its own job

    def _start(self, order: _Order) -> _Flight:
        digest = order.blob.digest
        flight = self._flights[digest] = _Flight(order, self._fly)
        flight.task.add_done_callback(lambda task: self._landed(digest, task))
        return flight

    def _landed(self, digest: Digest, task: asyncio.Task[bytes]) -> None:
        del self._flights[digest]
        if not task.cancelled():
            task.exception()  # retrieved: the waiters that are left have it too

    async def _join(self, flight: _Flight, writer: StoreWriter) -> bytes:
        flight.writers.append(writer)
        try:
            return await asyncio.shield(flight.task)
        except (KeyboardInterrupt, SystemExit) as error:  # it has left the loop once, and would for each waiter
            raise RuntimeError(f"the fetch of {flight.order.blob.digest} was interrupted") from error
        finally:
            flight.writers.remove(writer)
            if not flight.writers and not flight.task.done():
                flight.task.cancel()
                await wait_to_end(asyncio.wait([flight.task]))

    async def _fly(self, flight: _Flight) -> bytes:
        blob = flight.order.blob
        try:
            head = await self._fetch_until_right(flight)
        except FastociError as error:
            error.blob = error.blob or str(blob.digest)
            self._observe(BlobFailed(str(blob.digest), str(error), type(error).__name__, error.exit_code))
            raise
        except asyncio.CancelledError as error:
            self._observe(BlobFailed(str(blob.digest), "cancelled", "cancelled", None))
            if not flight.task.cancelling():  # but something that the source waited for was
                raise RuntimeError(f"{flight.order.source.name} ended the fetch of {blob.digest} by itself") from error
            raise
        _LOG.debug("%s: in the store", blob.digest)
        self._observe(BlobDone(str(blob.digest), blob.size))
        return head

    async def _fetch_until_right(self, flight: _Flight) -> bytes:
        """Fetch the blob; after wrong bytes once more, as long as a server sent them that had sent none before."""
        blob, source, tee = flight.order.blob, flight.order.source, flight.order.tee
        corrupt: set[str] = set()
        while True:
            try:
                return await self._fetch_or_wait(flight, tee)
            except IntegrityError:
                servers = set(_served_by(source, blob))
                _LOG.debug("%s: wrong bytes from %s", blob.digest, ", ".join(servers) or source.name)
                if servers <= corrupt or not isinstance(source, CorruptionAwareSource):
                    raise
                corrupt |= servers
                source.report_corrupt(blob, servers)
                self._duplicated(flight, 0, blob.size, "wrong bytes", server=", ".join(sorted(servers)))
            if tee is not None and tee.used:
                tee.spoil()
                tee = None

    async def _fetch_or_wait(self, flight: _Flight, tee: Tee | None) -> bytes:
        """Fetch the blob, or wait while another process does: that takes no connection. Its first bytes, if known."""
        order, blob = flight.order, flight.order.blob
        elsewhere = 0  # bytes that another process had

        def progressed(size: int) -> None:
            nonlocal elsewhere
            elsewhere = size
            self._observe(BlobProgress(str(blob.digest), size))

        while True:
            busy = False
            async with self._slot(order.source, blob):
                try:
                    small = flight.writer.begin_small(blob)
                    if small is not None:
                        return await self._take_whole(flight, small, tee, elsewhere)
                    ingest = await flight.writer.begin(blob, cached=order.cached)
                except StoreBusyError:
                    busy = True
                else:
                    if ingest is None or await self._ingest(flight, ingest, tee, elsewhere):
                        return b""
                    elsewhere = 0
            if busy:
                _LOG.debug("%s: another process fetches it", blob.digest)
                self._observe(BlobWaiting(order.image, str(blob.digest), blob.size))
                if await flight.writer.wait(blob, progressed):
                    return b""

    @asynccontextmanager
    async def _slot(self, source: BlobSource, blob: Descriptor) -> AsyncIterator[None]:
        """Hold one of the flights of the source's registry, and of all; each may need a buffer."""
        announced = source.expecting(blob) if isinstance(source, ForewarnedSource) else nullcontext()
        with announced:
            async with self._slots.held(source.name.partition("/")[0]):
                self._active += 1
                self._buffers.streams = max(0, self._active - self._limits.connections)
                try:
                    yield
                finally:
                    self._active -= 1
                    self._buffers.streams = max(0, self._active - self._limits.connections)

    def _duplicated(self, flight: _Flight, offset: int, size: int, reason: str, *, server: str = "") -> None:
        digest = str(flight.order.blob.digest)
        self._observe(FetchDuplicated(flight.order.image, digest, server, offset, size, reason))

    async def _ingest(self, flight: _Flight, ingest: Ingest, tee: Tee | None, elsewhere: int) -> bool:
        """Fetch what is left of a blob; False when it became wrong on what an earlier attempt had left.

        Then nobody knows whose bytes are the wrong ones, and no server is blamed.

        Args:
            elsewhere: bytes that another process had.
        """
        blob, source = ingest.blob, flight.order.source
        try:
            pipeline = self._pipeline(ingest)
        except BaseException:
            await wait_to_end(ingest.abort(discard=True))
            raise
        try:
            if ingest.corrupt_servers and isinstance(source, CorruptionAwareSource):
                source.report_corrupt(blob, ingest.corrupt_servers)
            self._begun(flight, ingest.offset, elsewhere)
            if ingest.offset < blob.size:
                await self._receive(ingest, source, pipeline, tee if ingest.offset == 0 else None)
            await pipeline.finish()
        except BaseException as error:
            # bytes that are not the promised ones must not be resumed from
            wrong = isinstance(error, IntegrityError)
            servers = _served_by(source, blob) if wrong and not ingest.offset else ()
            try:
                await pipeline.abort(keep=True)
            finally:
                with suppress(StoreError):  # the first error is the reason; what is left on the disk is swept later
                    await wait_to_end(ingest.abort(discard=wrong, corrupt=servers))
            if wrong and ingest.offset:
                self._duplicated(flight, 0, blob.size, "what an earlier attempt left is wrong")
                return False
            raise
        assert pipeline.proof is not None
        _, cancelled = await wait_to_end(ingest.commit(pipeline.proof))
        if cancelled:
            raise asyncio.CancelledError
        return True

    async def _take_whole(self, flight: _Flight, ingest: SmallIngest, tee: Tee | None, elsewhere: int) -> bytes:
        """Fetch a small blob, and let the store have it when all of it is there; its first bytes."""
        blob, source = ingest.blob, flight.order.source
        buffer = None
        try:
            verifier = Verifier(blob.digest, blob.size)
            self._begun(flight, 0, elsewhere)
            data = await self._all_of(blob, source)
            buffer = await self._buffers.take()
            buffer.append(data)
            if tee is not None and data:
                await tee.feed(buffer.retain())
            committed, buffer = ingest.commit(buffer, verifier), None
            _, cancelled = await wait_to_end(committed)
            self._observe(BlobProgress(str(blob.digest), blob.size))
        except BaseException as error:
            if buffer is not None:
                buffer.release()
            servers = _served_by(source, blob) if isinstance(error, IntegrityError) else ()
            with suppress(StoreError):
                await wait_to_end(ingest.abort(corrupt=servers))
            raise
        if cancelled:
            raise asyncio.CancelledError
        return bytes(data[:HEAD])

    async def _all_of(self, blob: Descriptor, source: BlobSource) -> bytearray:
        """The bytes of a small blob. No buffer is held while another is asked for, so little memory does for many."""
        data = bytearray()
        async with aclosing(arriving(source, blob, 0, self._buffers)) as buffers:
            async for part in buffers:
                data += memoryview(part)[: blob.size + 1 - len(data)]  # one byte too many is as wrong as all
                part.release()
        return data

    def _begun(self, flight: _Flight, offset: int, elsewhere: int) -> None:
        """Tell what is known of a blob before its first byte comes."""
        order, blob = flight.order, flight.order.blob
        if elsewhere > offset:
            self._duplicated(flight, offset, elsewhere - offset, "the fetch of another process was lost")
        _LOG.debug("%s: fetched from %d on, of %d bytes", blob.digest, offset, blob.size)
        self._observe(BlobStarted(order.image, str(blob.digest), blob.size, offset))

    def _pipeline(self, ingest: Ingest) -> PushPipeline:
        blob, offset = ingest.blob, ingest.offset

        def progressed(size: int) -> None:
            nonlocal offset
            offset += size
            self._observe(BlobProgress(str(blob.digest), offset))

        verifier = Verifier(blob.digest, blob.size, offset=offset, state=ingest.hash_state)
        sink = _Resumable(ingest, verifier, self._limits.checkpoint)
        return PushPipeline(self._workers, sink, verifier, depth=self._limits.buffer_queue, progressed=progressed)

    async def _receive(self, ingest: Ingest, source: BlobSource, pipeline: PushPipeline, tee: Tee | None) -> None:
        """Feed what the source yields to the pipeline and the tee."""
        async with aclosing(arriving(source, ingest.blob, ingest.offset, self._buffers)) as buffers:
            async for buffer in buffers:
                if tee is None:
                    await pipeline.feed(buffer)
                else:
                    await self._feed_both(buffer, pipeline, tee)

    async def _feed_both(self, buffer: Buffer, pipeline: PushPipeline, tee: Tee) -> None:
        again = buffer.retain()
        try:
            await pipeline.feed(buffer)
        except BaseException:
            again.release()
            raise
        await tee.feed(again)

    async def close(self) -> None:
        """Cancel every flight and wait until each has cleaned up."""
        flights = [flight.task for flight in self._flights.values()]
        for task in flights:
            task.cancel()
        if flights:
            await wait_to_end(asyncio.wait(flights))


async def arriving(
    source: BlobSource, blob: Descriptor, offset: int, buffers: BufferSource
) -> AsyncGenerator[Buffer, None]:
    """What a source yields; it may be anybody's.

    Raises:
        TypeError: it is no source.
        FastociError: as it says.
    """
    given = source.fetch(blob, offset, buffers)
    if not (hasattr(given, "__aiter__") and hasattr(given, "aclose")):
        text = f"fetch of {source.name} gives {type(given).__name__}, and is to be an async generator"
        raise TypeError(text)
    async with aclosing(given) as yielded:
        async for buffer in yielded:
            if not isinstance(buffer, Buffer):
                text = f"{source.name} yields {type(buffer).__name__}, not the Buffers that it is given"
                raise TypeError(text)
            yield buffer


def _served_by(source: BlobSource, blob: Descriptor) -> tuple[str, ...]:
    """The servers that sent the bytes of the last fetch, as far as they are known."""
    return source.served_by(blob) if isinstance(source, CorruptionAwareSource) else ()
