"""Snapshots as containerd's overlayfs snapshotter has them, and layers that are applied to them in order."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastoci import _core
from fastoci.containerd.mounts import Target
from fastoci.image.digest import Digest
from fastoci.limits import Limits
from fastoci.stream.verify import Meter, Verified
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.layer_apply import LayerApply, LayerToApply
from fastoci.transfer.layer_reading import LayerReader, OpenLayer
from fastoci.transfer.unpack_totals import UnpackTotals
from fastoci.transfer.workers import WorkerPool

LIMITS = Limits(workers=2, memory=32 << 20)


class Applier:
    """Applies layers that are bytes in memory."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self._limits = limits
        self.workers = WorkerPool(limits.workers)
        self.reader = LayerReader(self.workers, Buffers(_core.Pool(limits.memory)), limits)
        self._apply = LayerApply(self.workers, self.reader, limits)
        self.reads = 0

    async def put(self, layer: bytes, target: Target) -> Verified:
        """Apply a layer to a target."""
        with tempfile.TemporaryFile() as file:
            file.write(layer)
            file.flush()
            read = partial(self.reader.from_file, partial(self._open, file.fileno()))
            totals = UnpackTotals(self._limits, "image", lambda event: None, base=False, owners=True)
            return await self._apply.apply(LayerToApply("layer", Digest.of(layer), read, read, Meter, totals), target)

    def _open(self, fd: int) -> OpenLayer:
        self.reads += 1
        return OpenLayer(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY))


@asynccontextmanager
async def applier(limits: Limits = LIMITS) -> AsyncIterator[Applier]:
    """An applier with threads of its own."""
    made = Applier(limits)
    try:
        yield made
    finally:
        made.workers.close()


def snapshot(work: Path, number: int, lowers: Sequence[Path], *, user_xattrs: bool = False) -> Target:
    """A new snapshot on top of others, the lowest first."""
    made = work / f"{number}"
    (made / "fs").mkdir(parents=True)
    (made / "work").mkdir()
    if not lowers:
        return Target("merged", str(made / "fs"))
    names = tuple(str(lower) for lower in reversed(lowers))
    return Target("upper", str(made / "fs"), names, str(made / "work"), user_xattrs)


async def stack(work: Path, layers: Sequence[bytes], *, user_xattrs: bool = False) -> tuple[list[Path], Applier]:
    """Snapshots of layers, the lowest first; and who made them."""
    made: list[Path] = []
    async with applier() as each:
        for number, layer in enumerate(layers):
            target = snapshot(work, number, made, user_xattrs=user_xattrs)
            await each.put(layer, target)
            made.append(Path(target.directory))
    return made, each


def stacked(work: Path, layers: Sequence[bytes], *, user_xattrs: bool = False) -> list[Path]:
    """``stack`` where no loop runs; the snapshots."""
    return asyncio.run(stack(work, layers, user_xattrs=user_xattrs))[0]
