"""A layer compressed anew while it arrives: held against its digest, inflated, compressed on all cores, into a file.

What the bytes are decides, and not their media type. The tar stays: its digest comes out, and nothing is known of it
before. Memory is bounded: one buffer that arrives, one that comes next, two that are hashed beside what was made of
them, and the packer's blocks.
Spec: image-spec v1.1 layer.md.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing, contextmanager
from functools import partial
from typing import Final

from fastoci._core import Buffer
from fastoci.aio import wait_to_end
from fastoci.errors import FormatError, LimitError, UnsupportedError
from fastoci.image.descriptor import Descriptor
from fastoci.image.mediatype import Compression
from fastoci.interfaces import BlobSource, BufferSource
from fastoci.stream.compress import Compressor
from fastoci.stream.inflate import Inflate, sniff
from fastoci.stream.verify import Verifier, hash_buffers
from fastoci.transfer.layer_reading import LayerReader
from fastoci.transfer.packer import Lanes, PackedLayer, Packer, PackerTurn
from fastoci.transfer.unpack_totals import tar_limit
from fastoci.transfer.workers import WorkerPool
from fastoci.transfer.zstd_window import FREE_WINDOW, WindowShare

_ASIDE: Final = 2  # buffers that were used and are not hashed


class Recompressor:
    """Compresses layers anew on an engine's threads, each in one of the slots for layers at once."""

    def __init__(self, workers: WorkerPool, buffers: BufferSource, reader: LayerReader, packer: Packer) -> None:
        self._workers = workers
        self._buffers = buffers
        self._reader = reader
        self._packer = packer

    @asynccontextmanager
    async def open(self, blob: Descriptor, source: BlobSource) -> AsyncIterator[ArrivingLayer]:
        """Let a layer begin to arrive; its source is closed at the end.

        Raises:
            RegistryError, TransportError, StoreError: it cannot be had.
            UnsupportedError: it is none that can be read.
        """
        async with AsyncExitStack() as opened:
            turn = await opened.enter_async_context(self._packer.turn())
            share = opened.enter_context(self._reader.window())
            inflate = opened.enter_context(closing(Inflate(window=FREE_WINDOW)))
            arriving = await opened.enter_async_context(aclosing(source.fetch(blob, 0, self._buffers)))
            buffers = await opened.enter_async_context(_OneAhead(arriving))
            layer = ArrivingLayer(blob, buffers, inflate, share, turn)
            opened.callback(layer.release)
            await layer.begin()
            yield layer


class _OneAhead:
    """The buffers of a fetch, the next of them on its way while one is used."""

    def __init__(self, arriving: AsyncGenerator[Buffer, None]) -> None:
        self._arriving = arriving
        self._next: asyncio.Task[Buffer | None] | None = None

    async def __aenter__(self) -> _OneAhead:
        return self

    async def take(self) -> Buffer | None:
        """The next buffer with its reference; None at the end."""
        self.ask()
        assert self._next is not None
        buffer = await asyncio.shield(self._next)
        self._next = None
        return buffer

    @property
    def ready(self) -> bool:
        """The next buffer is there."""
        return self._next is not None and self._next.done()

    def ask(self) -> None:
        """Let the next buffer come."""
        if self._next is None:
            self._next = asyncio.create_task(self._one())

    async def _one(self) -> Buffer | None:
        return await anext(self._arriving, None)

    async def __aexit__(self, *_: object) -> None:
        """Give back what came and was not taken."""
        if self._next is None:
            return
        self._next.cancel()
        await wait_to_end(asyncio.wait([self._next]))
        if not self._next.cancelled() and self._next.exception() is None and (buffer := self._next.result()):
            buffer.release()


class _Used:
    """Buffers of a blob in their order that were used, until they are hashed: in a lane that is free, or alone.

    Any thread hashes them, one at a time.
    """

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._buffers: deque[Buffer] = deque()
        self._turn = threading.Lock()

    def __len__(self) -> int:
        return len(self._buffers)

    def add(self, buffer: Buffer) -> None:
        """One more, with its reference."""
        self._buffers.append(buffer)

    @contextmanager
    def lane(self) -> Iterator[Lanes]:
        """On a thread: ``Beside.lane``, with the next buffer, unless another thread hashes them.

        Raises:
            SizeMismatchError: more came than was promised.
        """
        if not self._turn.acquire(blocking=False):
            yield []
            return
        try:
            with self._next() as lanes:
                yield lanes
        finally:
            self._turn.release()

    def hash_all(self) -> None:
        """On a thread: hash what is left. Raises: as ``lane``."""
        with self._turn:
            while self._buffers:
                with self._next() as lanes:
                    hash_buffers(lanes)

    @contextmanager
    def _next(self) -> Iterator[Lanes]:
        if not self._buffers:
            yield []
            return
        buffer = self._buffers.popleft()
        try:
            self._verifier.expect(buffer)
            yield [(self._verifier, buffer)]
        finally:
            buffer.release()

    def release(self) -> None:
        """Give back what nobody will hash."""
        while self._buffers:
            self._buffers.popleft().release()


class ArrivingLayer:
    """One layer on its way. ``compression`` is what its first bytes are."""

    compression: Compression

    def __init__(
        self, blob: Descriptor, buffers: _OneAhead, inflate: Inflate, share: WindowShare, turn: PackerTurn
    ) -> None:
        self._buffers = buffers
        self._inflate = inflate
        self._share = share
        self._turn = turn
        self._verifier = Verifier(blob.digest, blob.size)
        self._used = _Used(self._verifier)
        self._came = 0  # bytes
        self._current: Buffer | None = None
        self._is_new = True  # the inflater does not have what is current
        self._at = 0  # bytes of it that were used, of a plain tar
        self._made = 0  # bytes of tar
        self.compression = "none"

    async def begin(self) -> None:
        """Wait for the first bytes."""
        await self._take()
        if self._current is not None:
            self.compression = sniff(bytes(memoryview(self._current)[:4]))

    async def pack(self, compressor: Compressor, fd: int) -> PackedLayer:
        """Write the layer's tar, compressed, into an empty file; what came was the blob, to its end.

        Raises:
            IntegrityError: other bytes came. FormatError, UnsupportedError: they are damaged, or cannot be read.
            LimitError: they become too many.
            RegistryError, TransportError: the rest cannot be had. StoreError: the disk refused.
        """
        try:
            return await self._turn.pack(self._fill, compressor, fd, beside=self._used)
        except (FormatError, UnsupportedError, LimitError):
            await self._read_rest()  # wrong bytes are the better reason than what they parse as
            raise

    async def _fill(self, out: Buffer) -> bool:
        """Fill ``out`` with tar; False when that has ended, and the blob was what its digest says."""
        while out.room:
            if self._current is None:
                await self._take()
            if self._current is None:
                await self._turn.workers.run(self._end)
                return False
            self._buffers.ask()
            left = await self._turn.workers.run(partial(self._use, self._current, out))
            if self._inflate.demanded:
                window = self._inflate.demanded
                await self._share.take(window)
                self._inflate.allow(window)
            elif not left:
                self._put_aside(self._current)
        self._made += len(out)
        if self._made > (limit := tar_limit(self._came)):
            raise LimitError(f"{self._came} bytes become more than {limit} bytes of tar")
        return True

    async def _take(self) -> None:
        """Have the next buffer. Who waits for one holds none that could be given back."""
        if len(self._used) >= _ASIDE or (len(self._used) and not self._buffers.ready):
            await self._turn.workers.run(self._used.hash_all)
        self._current = await self._buffers.take()
        self._came += 0 if self._current is None else len(self._current)

    def _put_aside(self, buffer: Buffer) -> None:
        self._used.add(buffer)
        self._current, self._is_new, self._at = None, True, 0

    async def _read_rest(self) -> None:
        """Hold all of the blob against its digest."""
        while True:
            if self._current is not None:
                self._put_aside(self._current)
            await self._turn.workers.run(self._used.hash_all)
            await self._take()
            if self._current is None:
                self._verifier.proof()
                return

    def release(self) -> None:
        """Give back all buffers."""
        if self._current is not None:
            self._put_aside(self._current)
        self._used.release()

    def _use(self, source: Buffer, out: Buffer) -> bool:
        """On a thread: whether more is left of a buffer."""
        if self._is_new:
            self._inflate.take(source)
            self._is_new = False
        if self.compression != "none":
            return self._inflate.fill(out)
        self._at += out.append(source, self._at)
        return self._at < len(source)

    def _end(self) -> None:
        self._used.hash_all()
        self._inflate.finish()
        self._verifier.proof()
