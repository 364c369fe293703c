"""All layers of an image into snapshots of containerd, each from its tee or from the store; the names in order.

Where layers can be written alone, all are written side by side while they arrive, and wait for the one below only for
their name, and for what it says of directories that they do not name. A layer that lower layers have more of a say in
is written once more when these are there. Else a layer is begun when the one below it has its name.
Spec: image-spec v1.1 layer.md; containerd core/unpack/unpacker.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from typing import Final

import msgspec

from fastoci import files
from fastoci.aio import all_or_first, wait_to_end
from fastoci.containerd import mounts
from fastoci.containerd.mounts import Target
from fastoci.containerd.places import demand_same
from fastoci.containerd.rpc import Code
from fastoci.containerd.snapshots import Active, Chained, Snapshots
from fastoci.errors import ContainerdError, FormatError, UnsupportedError
from fastoci.events import Observer, UnpackSkipped, UnpackStarted
from fastoci.image.config import chain_ids
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.limits import Limits
from fastoci.stream.verify import Verifier
from fastoci.transfer.layer_apply import LayerApply, LayerToApply, open_target
from fastoci.transfer.layer_making import LayerJob
from fastoci.transfer.layer_reading import LayerReader, OpenLayer, Read
from fastoci.transfer.tee import Tee
from fastoci.transfer.unpack_totals import UnpackTotals
from fastoci.transfer.workers import WorkerPool
from fastoci.unpack.rights import is_machine_root
from fastoci.unpack.snapshot import move_all

_LOG: Final = logging.getLogger(__name__)


OpenBlob = Callable[[Descriptor, Digest], OpenLayer]  # on a thread: a layer in the store


class _Layer(msgspec.Struct, frozen=True):
    """One layer that is to be a snapshot, its number among these; ``below``: the one below it has its name."""

    number: int
    blob: Descriptor
    chained: Chained
    tee: Tee | None
    below: asyncio.Event
    done: asyncio.Event


class _Image(msgspec.Struct, frozen=True):
    """What the layers of one image share."""

    job: LayerJob
    open_blob: OpenBlob
    totals: UnpackTotals


class SnapshotLayers:
    """Makes the snapshots of a job's images with one snapshotter; each once, however many images share it.

    ``tees`` is how many of an image's lowest layers are read while they arrive, None: all.
    """

    def __init__(
        self, snapshots: Snapshots, workers: WorkerPool, reader: LayerReader, limits: Limits, observer: Observer
    ) -> None:
        self._snapshots = snapshots
        self._workers = workers
        self._reader = reader
        self._apply = LayerApply(workers, reader, limits)
        self._limits = limits
        self._observe = observer
        self._in_parallel = snapshots.in_parallel and is_machine_root()
        self.tees = None if self._in_parallel else 1
        self._making: defaultdict[Digest, asyncio.Lock] = defaultdict(asyncio.Lock)  # by ChainID
        self._user_xattrs: bool | None = None  # whether overlayfs is told by ``user.overlay.*``, once that is known

    async def make(self, job: LayerJob, open_blob: OpenBlob) -> None:
        """Have a snapshot of each layer of an image; what is there already is not made again.

        Raises:
            SpoiledError: what came by a tee was wrong; the snapshots that have their names stay, others are removed.
            ContainerdError, UnpackError, FormatError, IntegrityError, StoreError: likewise.
        """
        totals = UnpackTotals(self._limits, job.image, self._observe, base=False, owners=True)
        image, layers = _Image(job, open_blob, totals), await self._absent(job)
        if not layers:
            self._observe(UnpackSkipped(job.image, job.root, str(job.manifest)))
            return
        self._observe(UnpackStarted(job.image, job.root, len(layers), sum(layer.blob.size for layer in layers)))
        await all_or_first([asyncio.create_task(self._layer(image, layer)) for layer in layers])
        totals.done(job.root)

    async def _absent(self, job: LayerJob) -> list[_Layer]:
        """The layers without a snapshot. Tees that no layer reads are closed, so that their fetches go on."""
        chain, parent = [], None
        diff_ids = [diff_id for _, diff_id in job.layers]
        for diff_id, chain_id in zip(diff_ids, chain_ids(diff_ids), strict=True):
            chain.append(Chained(diff_id, chain_id, parent))
            parent = chain_id
        held = await self._snapshots.count_held(chain)
        tees, below = dict(job.tees), asyncio.Event()
        below.set()
        layers: list[_Layer] = []
        for (blob, _), chained in zip(job.layers[held:], chain[held:], strict=True):
            tee = tees.pop(blob.digest, None) if self._in_parallel or not layers else None
            layers.append(_Layer(len(layers), blob, chained, tee, below, asyncio.Event()))
            below = layers[-1].done
        for tee in tees.values():
            self._reader.close_tee(tee)
        return layers

    async def _layer(self, image: _Image, layer: _Layer) -> None:
        """Have one layer's snapshot: written as soon as the layer comes, or when the one below it has its name."""
        making = self._making[layer.chained.chain_id]
        if making.locked() and layer.tee is not None:
            self._reader.close_tee(layer.tee)  # whoever makes it may wait for the same fetch
            layer = msgspec.structs.replace(layer, tee=None)
        async with making:
            if not self._in_parallel:
                await self._on_top(image, layer)
            elif not await self._alone(image, layer):
                _LOG.debug("%s: lower layers have a say in it, so it is unpacked anew", layer.chained.diff_id)
                await self._on_top(image, msgspec.structs.replace(layer, tee=None))
        image.totals.layer_done(layer.number, layer.blob.size)
        layer.done.set()

    async def _alone(self, image: _Image, layer: _Layer) -> bool:
        """Write a layer by itself; False when that is not what it is on top of others."""
        is_lowest = layer.chained.parent is None
        async with self._arrived(image, layer) as (read, slot), AsyncExitStack() as undo:
            active = await self._prepare(layer, undo, alone=True)
            if active is None:
                return True
            target = await self._target(active)
            written = await self._apply.alone(self._task(image, layer, read), target, mendable=not is_lowest)
            if written is None:
                return False
            await slot.aclose()  # a task that waits for lower layers must not hold a slot
            await layer.below.wait()
            if active.is_alone and not self._snapshots.can_rebase:
                return await self._move(layer, target, written.implied)
            if active.is_alone and not await self._fits(layer, target, written.implied):
                return False
            await self._snapshots.commit(active)
            undo.pop_all()
        return True

    async def _on_top(self, image: _Image, layer: _Layer) -> None:
        """Write a layer when the one below it has its name."""
        await layer.below.wait()
        async with self._arrived(image, layer) as (read, _), AsyncExitStack() as undo:
            active = await self._prepare(layer, undo)
            if active is not None:
                await self._apply.apply(self._task(image, layer, read), await self._target(active))
                await self._snapshots.commit(active)
                undo.pop_all()

    async def _fits(self, layer: _Layer, target: Target, implied: Sequence[bytes]) -> bool:
        """Whether a layer that was written alone is right on the one below: a snapshot on top of that one says so."""
        if implied or self._user_xattrs is None:
            async with AsyncExitStack() as undo:
                probe = await self._prepare(layer, undo)
                if probe is None:
                    return True
                above = await self._target(probe)
                self._user_xattrs = above.user_xattrs
                if not await self._apply.mend(target, implied, above):
                    return False
        return self._user_xattrs == target.user_xattrs

    async def _move(self, layer: _Layer, source: Target, implied: Sequence[bytes]) -> bool:
        """Have what was written alone in a snapshot on top of the one below; False: it is not right there."""
        async with AsyncExitStack() as undo:
            active = await self._prepare(layer, undo)
            if active is None:
                return True
            target = await self._target(active)
            if target.user_xattrs != source.user_xattrs or not await self._apply.mend(source, implied, target):
                return False
            await self._workers.run(partial(_move, source, target))
            await self._snapshots.commit(active)
            undo.pop_all()
        return True

    async def _prepare(self, layer: _Layer, undo: AsyncExitStack, *, alone: bool = False) -> Active | None:
        """A new snapshot, which ``undo`` removes; None when the layer is there."""
        preparing = self._snapshots.prepare(layer.chained, alone=alone)
        active, cancelled = await wait_to_end(preparing)
        if active is not None:
            undo.push_async_callback(self._remove, active)
        if cancelled:
            raise asyncio.CancelledError
        return active

    async def _target(self, active: Active) -> Target:
        """Where the layer goes: the same directory here and for containerd."""
        try:
            target = mounts.parse(active.mounts, alone=active.is_alone)
        except (FormatError, UnsupportedError) as error:
            text = f"snapshotter {self._snapshots.name}: {error.message}; leave unpacking to containerd (--no-unpack)"
            raise ContainerdError(text, code=Code.UNIMPLEMENTED, path="") from error
        await self._workers.run(partial(_demand_same, target, self._snapshots.pid))
        return target

    async def _remove(self, active: Active) -> None:
        await wait_to_end(self._snapshots.remove(active))

    @asynccontextmanager
    async def _arrived(self, image: _Image, layer: _Layer) -> AsyncIterator[tuple[Read, AsyncExitStack]]:
        opener = partial(image.open_blob, layer.blob, layer.chained.diff_id)
        async with self._reader.arrived(layer.tee, partial(image.job.ready, layer.blob), opener) as reading:
            yield reading

    def _task(self, image: _Image, layer: _Layer, read: Read) -> LayerToApply:
        diff_id = layer.chained.diff_id
        again = partial(self._reader.from_file, partial(image.open_blob, layer.blob, diff_id))
        verifier = partial(Verifier, diff_id, None)
        return LayerToApply(str(diff_id), layer.blob.digest, read, again, verifier, image.totals, layer.number)


def _demand_same(target: Target, pid: int) -> None:
    fd = open_target(target)
    try:
        demand_same(target.directory, fd, pid)
    finally:
        files.close(fd)


def _move(source: Target, target: Target) -> None:
    """On a thread: the files of one snapshot to another."""
    with ExitStack() as opened:
        fds = []
        for each in (source, target):
            fds.append(open_target(each))
            opened.callback(files.close, fds[-1])
        move_all(*fds)
