"""A layer out of a tar that is made on threads: compressed on all cores, hashed before and after, in a file.

Three stages, a block of tar at a time: one thread makes a block; any number of them compress; one seals blocks in their
order: hashes the tar and the compressed bytes, in shared lanes, and writes the file. Blocks in flight, and what is made
of them, are in the budget of memory. Knows no trees and no images. Spec: image-spec v1.1 layer.md.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Final, Protocol, TypeVar

import msgspec

from fastoci import files
from fastoci._core import BUFFER_SIZE, Buffer
from fastoci.aio import all_or_first, wait_to_end
from fastoci.errors import StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import BufferSource
from fastoci.limits import Limits
from fastoci.stream.compress import Compressor
from fastoci.stream.verify import Meter, Verifier, hash_buffers
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.layer_reading import LayerReader
from fastoci.transfer.workers import WorkerPool

T = TypeVar("T")

_COMPRESSED: Final = BUFFER_SIZE  # bytes of memory for what is made of a block
Lanes = list[tuple[Verifier, Buffer | bytes]]
Fill = Callable[[Buffer], Awaitable[bool]]  # fills a buffer with the next bytes of a tar; False when that has ended


class TarBlocks(Protocol):
    """Makes a tar, on one thread at a time: ``pack.tar.TarMaker``."""

    def fill(self, out: Buffer) -> bool:
        """Fill ``out``; False when the tar has ended."""

    def stop(self) -> None:
        """From any thread: let ``fill`` end soon, with an exception."""


class Beside(Protocol):
    """Has something of its own to hash, for a lane that is free."""

    def lane(self) -> AbstractContextManager[Lanes]:
        """On a thread: what is hashed inside."""


class PackedLayer(msgspec.Struct, frozen=True):
    """A layer that was made: its blob with the hasher's state at its end, and the digest and size of its tar."""

    blob: Descriptor
    hash_state: bytes
    diff_id: Digest
    tar_size: int


class Packer:
    """Packs layers on an engine's threads, each in one of the slots for layers at once."""

    def __init__(self, workers: WorkerPool, buffers: Buffers, reader: LayerReader, limits: Limits) -> None:
        self._workers = workers
        self._buffers = buffers
        self._slots = reader.slots
        # as many as threads can work on, and one that is made, and one that is sealed
        self._blocks = max(1, min(limits.workers + 2, limits.memory // (4 * BUFFER_SIZE)))

    async def pack(self, tar: TarBlocks, compressor: Compressor, fd: int) -> PackedLayer:
        """Write a layer into an empty file.

        Raises:
            StoreError: the disk refused. Whatever ``tar`` raises.
        """

        async def fill(block: Buffer) -> bool:
            return await self._workers.run(partial(tar.fill, block), stop=tar.stop)

        async with self.turn() as turn:
            return await turn.pack(fill, compressor, fd)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[PackerTurn]:
        """Wait for a slot and its memory: what a layer is made of has them before it begins to come."""
        async with self._slots, self._memory() as buffers:
            yield PackerTurn(self._workers, buffers)

    async def acquire(self, work: Callable[[], T], undo: Callable[[T], object]) -> T:
        """Open something on a thread: ``undo`` it when this task was cancelled meanwhile."""
        return await self._workers.acquire(work, undo)

    async def finish(self, work: Callable[[], object]) -> None:
        """Close something on a thread, whatever happens to this task."""
        await self._workers.finish(work)

    def source(self, fd: int, packed: PackedLayer | None = None) -> FileSource:
        """What a file has as a blob's source; ``packed`` when it has just that."""
        return FileSource(self._workers, fd, packed)

    @asynccontextmanager
    async def _memory(self) -> AsyncIterator[list[Buffer]]:
        """A buffer for each block in flight: one at least, more out of what is ahead."""
        await self._buffers.set_aside(_COMPRESSED)
        aside = _COMPRESSED
        own: list[Buffer] = []
        more: list[Buffer] = []
        try:
            own.append(await self._buffers.take())
            while len(more) < self._blocks - 1 and (buffer := self._buffers.spare_ahead(_COMPRESSED)) is not None:
                if not self._buffers.set_aside_now(_COMPRESSED):
                    self._buffers.give_back(buffer)
                    break
                more.append(buffer)
                aside += _COMPRESSED
            yield [*own, *more]
        finally:
            for buffer in own:
                buffer.release()
            for buffer in more:
                self._buffers.give_back(buffer)
            self._buffers.put_back(aside)


class PackerTurn(msgspec.Struct, frozen=True):
    """A slot for one layer, with its memory."""

    workers: WorkerPool
    buffers: list[Buffer]

    async def pack(self, fill: Fill, compressor: Compressor, fd: int, *, beside: Beside | None = None) -> PackedLayer:
        """``Packer.pack`` of a tar that may come by and by. Only the buffer at its end is not full."""
        return await _Layer(self, fill, compressor, fd, beside).run()


class _Layer:
    """One layer on its way. The buffers of its turn are those of the tar."""

    def __init__(self, turn: PackerTurn, fill: Fill, compressor: Compressor, fd: int, beside: Beside | None) -> None:
        self._workers = turn.workers
        self._fill = fill
        self._compressor = compressor
        self._fd = fd
        self._beside = beside
        self._free: asyncio.Queue[Buffer] = asyncio.Queue()
        self._made: asyncio.Queue[tuple[Buffer, asyncio.Task[bytes]] | None] = asyncio.Queue()
        for block in turn.buffers:
            self._free.put_nowait(block)
        self._compressing: set[asyncio.Task[bytes]] = set()
        self._tar_meter, self._blob_meter = Meter(), Meter()

    async def run(self) -> PackedLayer:
        try:
            await all_or_first([asyncio.create_task(self._make()), asyncio.create_task(self._seal_all())])
        finally:
            await self._end_compression()
        tar, blob = self._tar_meter.proof(), self._blob_meter.proof()
        descriptor = Descriptor(self._compressor.media_type, blob.digest, blob.size)
        return PackedLayer(descriptor, self._blob_meter.state(), tar.digest, tar.size)

    async def _end_compression(self) -> None:
        """Wait for threads that still compress what nobody wants any more."""
        tasks, self._compressing = self._compressing, set()
        for task in tasks:
            task.cancel()
        if tasks:
            await wait_to_end(asyncio.wait(tasks))
        for task in tasks:
            if not task.cancelled():
                task.exception()  # seen

    async def _make(self) -> None:
        """Make the tar, and let each block be compressed."""
        more = True
        while more:
            block = await self._free.get()
            more = await self._fill(block)
            compress = self._workers.run(partial(self._compressor.block, block)) if len(block) else _nothing()
            task = asyncio.create_task(compress)
            self._compressing.add(task)
            self._made.put_nowait((block, task))
        self._made.put_nowait(None)

    async def _seal_all(self) -> None:
        head = self._compressor.head  # with the first block
        while (made := await self._made.get()) is not None:
            block, task = made
            data = head + await task
            head = b""
            self._compressing.discard(task)
            await self._workers.run(partial(self._seal, block, data))
            block.clear()
            self._free.put_nowait(block)
        await self._workers.run(lambda: self._write(head + self._compressor.tail(), []))

    def _seal(self, block: Buffer, data: bytes) -> None:
        """On a thread: one block is next."""
        self._compressor.count(block)
        with nullcontext([]) if self._beside is None else self._beside.lane() as more:
            self._write(data, [(self._tar_meter, block), *more])

    def _write(self, data: bytes, lanes: Lanes) -> None:
        """Hash what is to be written, and what else there is; write."""
        offset, view = self._blob_meter.offset, memoryview(data)
        hash_buffers([*lanes, (self._blob_meter, data)])
        path = f"/proc/self/fd/{self._fd}"
        while view:
            with files.translated("write", os.readlink(path), wanted=len(view)):
                count = os.pwrite(self._fd, view, offset)
            offset, view = offset + count, view[count:]


async def _nothing() -> bytes:
    return b""


class FileSource:
    """A ``BlobSource`` of one blob that is in an open file, which stays the caller's."""

    name = "file"

    def __init__(self, workers: WorkerPool, fd: int, packed: PackedLayer | None) -> None:
        self._workers = workers
        self._fd = fd
        self._packed = packed

    def spooled(self, blob: Descriptor) -> tuple[int, bytes] | None:
        """The file, when the blob was packed into it: ``SpoolingSource.spooled``."""
        if self._packed is None or self._packed.blob.digest != blob.digest:
            return None
        return self._fd, self._packed.hash_state

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield the bytes from ``offset`` on. Raises StoreError: the disk refused."""
        while offset < blob.size:
            buffer = await buffers.take()
            read: Callable[[], int] = partial(buffer.pread, self._fd, offset)
            try:
                count = await self._workers.run(read)
                if count <= 0:
                    raise StoreError(f"cannot read what was packed: {os.strerror(-count)}", path=str(blob.digest))
            except BaseException:
                buffer.release()
                raise
            offset += count
            yield buffer
