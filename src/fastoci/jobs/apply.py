"""Layers that somebody else keeps become files where somebody else says: the work of a differ, without a store.

Opens threads, a budget of memory and limits, which all layers under way share.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import msgspec

from fastoci import _core
from fastoci.containerd.mounts import Target
from fastoci.events import Event, UnpackDone
from fastoci.image.digest import Digest
from fastoci.limits import Limits
from fastoci.stream.verify import Meter
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.layer_apply import LayerApply, LayerToApply
from fastoci.transfer.layer_reading import LayerReader, OpenLayer
from fastoci.transfer.packer import Packer
from fastoci.transfer.unpack_totals import UnpackTotals
from fastoci.transfer.workers import WorkerPool


class Applied(msgspec.Struct, frozen=True):
    """What a layer was: the digest of its whole tar, and how much it is. ``skipped`` could not be given to files."""

    diff_id: Digest
    tar_size: int
    entries: int
    skipped: dict[str, int]


class Applying:
    """What applies layers, on one event loop; ``workers`` are its threads, and ``packer`` makes layers on them.

    Raises:
        RuntimeError: not even one thread can be started.
    """

    def __init__(self, limits: Limits) -> None:
        self.workers = WorkerPool(limits.workers)
        buffers = Buffers(_core.Pool(limits.memory))
        self._reader = LayerReader(self.workers, buffers, limits)
        self.packer = Packer(self.workers, buffers, self._reader, limits)
        self._layers = LayerApply(self.workers, self._reader, limits)
        self._limits = limits

    async def apply(
        self, blob: Digest, open_layer: Callable[[], OpenLayer], target: Target, *, sync: bool = False
    ) -> Applied:
        """Bring a layer into a snapshot, when one of the slots for layers at once is free.

        Args:
            open_layer: opens it, on the event loop; may be called again.
            sync: the file system of the target is on the disk when this returns.
        Raises:
            UnpackError, FormatError, UnsupportedError, StoreError: the snapshot holds what was made before.
        """
        done: list[UnpackDone] = []

        def observe(event: Event) -> None:
            if isinstance(event, UnpackDone):
                done.append(event)

        name = str(blob)
        totals = UnpackTotals(self._limits, name, observe, base=False, owners=os.geteuid() == 0)
        read = partial(self._reader.from_file, open_layer)
        layer = LayerToApply(name=name, blob=blob, read=read, again=read, verifier=Meter, totals=totals)
        async with self._reader.slots:
            proof = await self._layers.apply(layer, target)
        if sync:
            await self._layers.sync(target)
        totals.done(target.directory)
        return Applied(proof.digest, proof.size, done[0].entries, done[0].skipped)

    async def clear(self, target: Target) -> None:
        """Empty a snapshot that a layer could not become, so that another can be tried.

        What lower layers hold in a merged view cannot be told from it: a layer applied twice is what it is once.

        Raises:
            StoreError: the disk refused.
        """
        await self._layers.clear(target)

    def close(self) -> None:
        """End the threads; nothing may be under way."""
        self.workers.close()
