"""Unpack an image's layers into a rootfs: all of them side by side, and the tree as if one after the other.

Each layer is a pipeline that inflates, hashes and makes files. The lowest one that is not complete makes its files in
the tree; those above it make theirs aside, and move them into the tree when all below is complete. A layer comes from a
tee on its fetch, or from the store's file (in the page cache, as a rule). Fetches nothing and names no images.
Spec: image-spec v1.1 layer.md, "Applying Changesets".
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from fastoci import files
from fastoci._core import Buffer
from fastoci._extract import Stop
from fastoci.aio import all_or_first
from fastoci.errors import FastociError, UnpackError
from fastoci.events import Observer, UnpackSkipped, UnpackStarted, Warned
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import BlobStore
from fastoci.limits import LAYER_MEMORY, Limits
from fastoci.stream.inflate import Inflate
from fastoci.stream.verify import Verifier
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.layer_source import ArrivingTar, FileTar
from fastoci.transfer.pipeline import PullPipeline
from fastoci.transfer.tee import SpoiledError, Tee
from fastoci.transfer.unpack_totals import UnpackTotals
from fastoci.transfer.workers import WorkerPool
from fastoci.transfer.zstd_window import FREE_WINDOW, WindowBudget
from fastoci.unpack.layer import LayerStager, LayerWriter
from fastoci.unpack.marker import Contents
from fastoci.unpack.rootfs import Rootfs, open_directory

_LOG: Final = logging.getLogger(__name__)

_TAR_BUFFERS = 4  # buffers of tar that one layer may hold; at least two
_MOVES = 4096  # entries moved into the tree at a time
_DISCARD_S = 0.25  # for the removal of a tree whose pull was cancelled: the user waits for it

S = TypeVar("S", LayerWriter, LayerStager)
_Progressed = Callable[[int, int], UnpackError | None]  # compressed bytes so far, bytes of tar since; why to stop
_Read = Callable[[LayerWriter | LayerStager, Verifier, _Progressed], Awaitable[None]]


class _Layer(msgspec.Struct):
    """One layer of a tree that grows."""

    number: int
    blob: Descriptor
    diff_id: Digest
    below: asyncio.Event  # all lower layers are in the tree
    complete: asyncio.Event  # and this one too


class Unpacker:
    """Turns layers into files on the worker pool, a bounded number of them at a time over all root file systems."""

    def __init__(self, workers: WorkerPool, buffers: Buffers, limits: Limits, observer: Observer) -> None:
        self._workers = workers
        self._buffers = buffers
        self._limits = limits
        self._observe = observer
        slots = limits.layers_at_once
        self._tees = slots > 0
        self._slots = asyncio.Semaphore(max(1, slots))
        self._windows = WindowBudget(buffers, reserve=LAYER_MEMORY * max(1, slots))

    async def tee(self) -> Tee | None:
        """A tee for the first layer, to unpack it while it arrives; None while layers enough are unpacked.

        It holds one of the slots for layers until ``rootfs`` or ``close_tee`` gives it back.
        """
        if self._slots.locked() or not self._tees:
            return None
        await self._slots.acquire()
        return Tee()

    def close_tee(self, tee: Tee) -> None:
        """Give the slot back. Idempotent."""
        if not tee.closed:
            tee.close()
            self._slots.release()

    async def holds(self, target: Path, contents: Contents, *, image: str) -> bool:
        """Whether the rootfs is at ``target`` already, finished. Its files are not looked at.

        Raises:
            RootfsOccupiedError: something else is there. StoreError: the disk refused.
        """
        stop = Stop()
        found = await self._workers.run(partial(Rootfs.find, target, contents, stop=stop), stop=stop.set)
        if found:
            self._observe(UnpackSkipped(image, str(target), str(contents.manifest)))
        return found

    async def rootfs(
        self,
        target: Path,
        contents: Contents,
        layers: Sequence[tuple[Descriptor, Digest]],
        store: BlobStore,
        *,
        image: str,
        ready: Callable[[Descriptor], Awaitable[None]],
        tee: Tee | None = None,
    ) -> None:
        """Make ``target`` out of layers and their diff_ids; it has its name only when all of them held.

        Args:
            contents: what the layers are together.
            ready: returns when a layer is in the store, or raises why it will not be.
            tee: on the first layer while it is fetched.
        Raises:
            SpoiledError: what came by the tee was wrong; nothing is left under ``target``.
            UnpackError, FormatError, IntegrityError, StoreError: nothing is left under ``target``.
        """
        self._observe(UnpackStarted(image, str(target), len(layers), sum(layer.size for layer, _ in layers)))
        totals = UnpackTotals(self._limits, image, self._observe, base=False, owners=contents.owners)
        rootfs = await self._begin(target, contents, image)
        done = [asyncio.Event() for _ in range(len(layers) + 1)]
        done[0].set()
        tasks = []
        try:
            for number, (blob, diff_id) in enumerate(layers):
                layer = _Layer(number, blob, diff_id, done[number], done[number + 1])
                arriving = tee if number == 0 else None
                tasks.append(asyncio.create_task(self._layer(layer, rootfs, totals, store, ready, arriving)))
            if tasks:
                await all_or_first(tasks)
            await self._workers.run(partial(rootfs.publish, sync=self._limits.durability == "commit"))
        except asyncio.CancelledError:
            await self._discard(rootfs, image, within=_DISCARD_S)
            raise
        except BaseException:
            await self._discard(rootfs, image)
            raise
        totals.done(str(target))

    async def _begin(self, target: Path, contents: Contents, image: str) -> Rootfs:
        stop = Stop()
        begin = partial(Rootfs.begin, target, contents, stop=stop)
        rootfs = await self._workers.acquire(begin, Rootfs.discard, stop=stop.set)
        if rootfs.replaces:
            text = f"{target} was not synced before the machine was started anew: it is unpacked again"
            self._observe(Warned(image, text))
        return rootfs

    async def _discard(self, rootfs: Rootfs, image: str, *, within: float | None = None) -> None:
        left: list[str] = []
        stop = Stop()
        await self._workers.finish(lambda: left.append(rootfs.discard(within=within, stop=stop)), stop=stop.set)
        if any(left):
            text = f"{rootfs.area / left[0]} is left; the next unpack to {rootfs.target} removes it"
            self._observe(Warned(image, text))

    async def apply(self, directory: Path, layers: Sequence[Path], *, owners: bool) -> None:
        """Apply layer files in order onto a directory, in place.

        Args:
            owners: files are given to the owners that entries name.
        Raises:
            UnpackError, FormatError, StoreError: the directory holds what was extracted before.
        """
        size = sum(_size(path) for path in layers)
        self._observe(UnpackStarted(str(directory), str(directory), len(layers), size))
        root_fd, base = await self._workers.acquire(
            lambda: open_directory(directory), lambda opened: files.close(opened[0])
        )
        totals = UnpackTotals(self._limits, str(directory), self._observe, base=base, owners=owners)
        try:
            for number, path in enumerate(layers):
                async with self._sink(partial(totals.writer, number, root_fd, str(path))) as writer:
                    await self._from_file(partial(_open_layer, path), writer, None, partial(totals.progress, number))
                totals.layer_done(number, _size(path))
        finally:
            files.close(root_fd)
        totals.done(str(directory))

    async def _layer(
        self,
        layer: _Layer,
        rootfs: Rootfs,
        totals: UnpackTotals,
        store: BlobStore,
        ready: Callable[[Descriptor], Awaitable[None]],
        tee: Tee | None,
    ) -> None:
        """Bring one layer into the tree."""
        async with AsyncExitStack() as slot:
            if tee is not None and await tee.begins():
                _LOG.debug("%s: unpacked while it arrives", layer.blob.digest)
                slot.callback(self.close_tee, tee)
                read = partial(self._from_tee, tee, partial(ready, layer.blob))
            else:
                if tee is not None:
                    self.close_tee(tee)  # a task that waits for a slot must not hold one
                await ready(layer.blob)
                await slot.enter_async_context(self._slots)
                read = partial(self._from_file, partial(store.open, layer.blob))
            await self._unpack(layer, rootfs, totals, read, slot)
        totals.layer_done(layer.number, layer.blob.size)
        layer.complete.set()

    async def _unpack(
        self, layer: _Layer, rootfs: Rootfs, totals: UnpackTotals, read: _Read, slot: AsyncExitStack
    ) -> None:
        verifier = Verifier(layer.diff_id, None)
        name = str(layer.diff_id)
        progressed = partial(totals.progress, layer.number)
        write = partial(totals.writer, layer.number, rootfs.fd, name)
        if layer.below.is_set():
            _LOG.debug("%s: made in the tree", layer.diff_id)
            async with self._sink(write) as writer:
                await read(writer, verifier, progressed)
            return
        _LOG.debug("%s: made aside, the layers below are not complete", layer.diff_id)
        directory_fd = await self._workers.acquire(partial(rootfs.stage, layer.number), files.close)
        try:
            async with self._sink(partial(totals.stager, layer.number, directory_fd, name)) as stager:
                await read(stager, verifier, progressed)
                await slot.aclose()  # a task that waits for lower layers must not hold a slot
                await layer.below.wait()
                async with self._sink(write) as writer:
                    await self._adopt(stager, writer)
        finally:
            files.close(directory_fd)
        stop = Stop()
        await self._workers.run(partial(rootfs.unstage, layer.number, stop=stop), stop=stop.set)

    async def _adopt(self, stager: LayerStager, writer: LayerWriter) -> None:
        """Move what was made aside into the tree."""
        while await self._workers.run(partial(writer.adopt, stager, _MOVES), stop=writer.stop):
            pass
        await self._workers.run(writer.finish, stop=writer.stop)

    @asynccontextmanager
    async def _sink(self, make: Callable[[], S]) -> AsyncIterator[S]:
        """A sink, aborted at the end, also when it never came to a pipeline."""
        sink = make()
        try:
            yield sink
        finally:
            await self._workers.finish(sink.abort)

    async def _from_tee(
        self,
        tee: Tee,
        ready: Callable[[], Awaitable[None]],
        sink: LayerWriter | LayerStager,
        verifier: Verifier | None,
        progressed: _Progressed,
    ) -> None:
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

    async def _landed(self, tee: Tee, ready: Callable[[], Awaitable[None]], error: FastociError | None) -> None:
        """Wait for the end of a tee's flight.

        Raises:
            SpoiledError: what came by the tee was wrong. FastociError: the blob cannot be had.
        """
        self.close_tee(tee)
        await ready()
        if tee.spoiled:
            raise SpoiledError from error

    async def _from_file(
        self,
        open_layer: Callable[[], int],
        sink: LayerWriter | LayerStager,
        verifier: Verifier | None,
        progressed: _Progressed,
    ) -> None:
        """Read a layer's file."""
        source = await self._buffers.take()
        with ExitStack() as opened:
            opened.callback(source.release)
            fd = open_layer()
            opened.callback(files.close, fd)
            tar = FileTar(fd, source, Inflate(window=FREE_WINDOW))
            opened.pop_all()  # both are the tar's now
        async with self._pipeline(tar, sink, verifier, progressed) as pipeline:
            await pipeline.finish()

    @asynccontextmanager
    async def _pipeline(
        self,
        tar: ArrivingTar | FileTar,
        sink: LayerWriter | LayerStager,
        verifier: Verifier | None,
        progressed: _Progressed,
    ) -> AsyncIterator[PullPipeline]:
        """Two stages: inflate, and hash + make files. Closes ``tar``."""

        def advanced(size: int) -> None:
            if (error := progressed(tar.offset, size)) is not None:
                pipeline.fail(error)

        async def grant(window: int) -> None:
            await share.take(window)
            tar.allow(window)

        with self._windows.share() as share, closing(tar):
            buffers = await self._tar_buffers()
            pipeline = PullPipeline(
                self._workers, sink, verifier, maker=tar, buffers=buffers, grant=grant, progressed=advanced
            )
            try:
                yield pipeline
            except BaseException as error:
                await pipeline.abort()
                if isinstance(error, FastociError) and sink.name not in str(error):
                    error.args = (f"layer {sink.name}: {error.message}", *error.args[1:])
                raise

    async def _tar_buffers(self) -> list[Buffer]:
        """Buffers for the tar of one layer: two, and more when nobody waits for them."""
        buffers = [await self._buffers.take()]
        try:
            buffers.append(await self._buffers.take())
        except BaseException:
            buffers[0].release()
            raise
        while len(buffers) < _TAR_BUFFERS and (buffer := self._buffers.spare()) is not None:
            buffers.append(buffer)
        return buffers


def _size(path: Path) -> int:
    fd = _open_layer(path)  # a layer that is not there is found before the first is applied
    try:
        return os.fstat(fd).st_size
    finally:
        files.close(fd)


def _open_layer(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # of a pipe without a writer, it would wait
    except OSError as error:
        raise UnpackError(f"{path}: {error.strerror}", path=str(path)) from error
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        files.close(fd)
        raise UnpackError(f"{path}: a layer is read from a file, not from a pipe", path=str(path))
    return fd
