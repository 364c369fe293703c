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
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from fastoci import files
from fastoci._extract import Stop
from fastoci.aio import all_or_first
from fastoci.errors import UnpackError
from fastoci.events import Observer, UnpackSkipped, UnpackStarted, Warned
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.limits import Limits
from fastoci.stream.verify import Verifier
from fastoci.transfer.layer_reading import LayerReader, OpenLayer, Read
from fastoci.transfer.tee import Tee
from fastoci.transfer.unpack_totals import UnpackTotals
from fastoci.transfer.workers import WorkerPool
from fastoci.unpack.layer import LayerStager, LayerWriter
from fastoci.unpack.marker import Contents
from fastoci.unpack.rootfs import Rootfs, open_directory

if TYPE_CHECKING:
    from fastoci.unpack.losses import Settled

_LOG: Final = logging.getLogger(__name__)

_MOVES = 4096  # entries moved into the tree at a time
_DISCARD_S = 0.25  # for the removal of a tree whose pull was cancelled: the user waits for it


class _Layer(msgspec.Struct):
    """One layer of a tree that grows."""

    number: int
    blob: Descriptor
    diff_id: Digest
    below: asyncio.Event  # all lower layers are in the tree
    complete: asyncio.Event  # and this one too


class Unpacker:
    """Turns layers into files on the worker pool, a bounded number of them at a time over all root file systems."""

    def __init__(self, workers: WorkerPool, reader: LayerReader, limits: Limits, observer: Observer) -> None:
        self._workers = workers
        self._reader = reader
        self._limits = limits
        self._observe = observer

    async def holds(self, target: Path, contents: Contents, *, image: str) -> bool:
        """Whether the rootfs is at ``target`` already, finished. Its files are not looked at.

        Raises:
            RootfsOccupiedError: something else is there. StoreError: the disk refused.
        """
        found = await self.finds(target, contents)
        if found:
            self._observe(UnpackSkipped(image, str(target), str(contents.manifest)))
        return found

    async def finds(self, target: Path, contents: Contents) -> bool:
        """``holds``, for a plan."""
        stop = Stop()
        return await self._workers.run(partial(Rootfs.find, target, contents, stop=stop), stop=stop.set)

    async def rootfs(
        self,
        target: Path,
        contents: Contents,
        layers: Sequence[tuple[Descriptor, Digest]],
        open_layer: Callable[[Descriptor, Digest], OpenLayer],
        *,
        image: str,
        ready: Callable[[Descriptor], Awaitable[None]],
        tee: Tee | None = None,
    ) -> int:
        """Make ``target`` out of layers and their diff_ids, named when all of them held; the bytes of its files.

        Args:
            contents: what the layers are together.
            open_layer: on a thread, opens one in the store; ``ready`` returns when it is there, or raises.
            tee: on the first layer while it is fetched.
        Raises:
            SpoiledError: what came by the tee was wrong; nothing is left under ``target``.
            UnpackError, FormatError, IntegrityError, StoreError: nothing is left under ``target``.
        """
        self._observe(UnpackStarted(image, str(target), len(layers), sum(layer.size for layer, _ in layers)))
        rootfs = await self._begin(target, contents, image)
        totals = UnpackTotals(
            self._limits, image, self._observe, base=False, owners=contents.owners, notes=rootfs.notes
        )
        done = [asyncio.Event() for _ in range(len(layers) + 1)]
        done[0].set()
        tasks = []
        try:
            for number, (blob, diff_id) in enumerate(layers):
                layer = _Layer(number, blob, diff_id, done[number], done[number + 1])
                arriving = tee if number == 0 else None
                tasks.append(asyncio.create_task(self._layer(layer, rootfs, totals, open_layer, ready, arriving)))
            if tasks:
                await all_or_first(tasks)
            settled = await self._end(rootfs, totals.left, image)
        except asyncio.CancelledError:
            await self._discard(rootfs, image, within=_DISCARD_S)
            raise
        except BaseException:
            await self._discard(rootfs, image)
            raise
        return totals.done(str(target), settled)

    async def _begin(self, target: Path, contents: Contents, image: str) -> Rootfs:
        stop = Stop()
        begin = partial(Rootfs.begin, target, contents, stop=stop)
        rootfs = await self._workers.acquire(begin, Rootfs.discard, stop=stop.set)
        if rootfs.replaces:
            text = f"{target} was not synced before the machine was started anew: it is unpacked again"
            self._observe(Warned(image, text))
        return rootfs

    async def _end(self, rootfs: Rootfs, limit: int, image: str) -> Settled | None:
        """Give the tree its name; what it lost, when that was looked for, in at most ``limit`` bytes."""
        stop = Stop()
        settled = await self._workers.run(partial(rootfs.settle, limit, stop=stop), stop=stop.set)
        if settled is not None and settled.warning:
            self._observe(Warned(image, settled.warning))
        await self._workers.run(partial(rootfs.publish, sync=self._limits.durability == "commit"))
        return settled

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
                async with self._reader.sink(partial(totals.writer, number, root_fd, str(path))) as writer:
                    open_layer, progressed = partial(_open_layer, path), partial(totals.progress, number)
                    await self._reader.from_file(open_layer, writer, None, progressed)
                totals.layer_done(number, _size(path))
        finally:
            files.close(root_fd)
        totals.done(str(directory))

    async def _layer(
        self,
        layer: _Layer,
        rootfs: Rootfs,
        totals: UnpackTotals,
        open_layer: Callable[[Descriptor, Digest], OpenLayer],
        ready: Callable[[Descriptor], Awaitable[None]],
        tee: Tee | None,
    ) -> None:
        """Bring one layer into the tree."""
        arrived = self._reader.arrived(tee, partial(ready, layer.blob), partial(open_layer, layer.blob, layer.diff_id))
        async with arrived as (read, slot):
            await self._unpack(layer, rootfs, totals, read, slot)
        totals.layer_done(layer.number, layer.blob.size)
        layer.complete.set()

    async def _unpack(
        self, layer: _Layer, rootfs: Rootfs, totals: UnpackTotals, read: Read, slot: AsyncExitStack
    ) -> None:
        verifier = Verifier(layer.diff_id, None)
        name = str(layer.diff_id)
        progressed = partial(totals.progress, layer.number)
        write = partial(totals.writer, layer.number, rootfs.fd, name)
        if layer.below.is_set():
            _LOG.debug("%s: made in the tree", layer.diff_id)
            async with self._reader.sink(write) as writer:
                await read(writer, verifier, progressed)
            return
        _LOG.debug("%s: made aside, the layers below are not complete", layer.diff_id)
        directory_fd = await self._workers.acquire(partial(rootfs.stage, layer.number), files.close)
        try:
            async with self._reader.sink(partial(totals.stager, layer.number, directory_fd, name)) as stager:
                await read(stager, verifier, progressed)
                await slot.aclose()  # a task that waits for lower layers must not hold a slot
                await layer.below.wait()
                async with self._reader.sink(write) as writer:
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


def _size(path: Path) -> int:
    fd = _open_layer(path).fd  # a layer that is not there is found before the first is applied
    try:
        return os.fstat(fd).st_size
    finally:
        files.close(fd)


def _open_layer(path: Path) -> OpenLayer:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # of a pipe without a writer, it would wait
    except OSError as error:
        raise UnpackError(f"{path}: {error.strerror}", path=str(path)) from error
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        files.close(fd)
        raise UnpackError(f"{path}: a layer is read from a file, not from a pipe", path=str(path))
    return OpenLayer(fd)
