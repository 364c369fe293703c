"""What needs no engine of one's own: an image for programs that are not async, and layer files onto a directory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from fastoci import _core, path_walk
from fastoci.engine import Engine
from fastoci.events import Observer
from fastoci.image.platform import Platform
from fastoci.image.reference import Reference
from fastoci.limits import Limits
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.unpacker import Unpacker
from fastoci.transfer.workers import WorkerPool

if TYPE_CHECKING:
    from fastoci.registry.options import RegistryOptions

StrPath = str | os.PathLike[str]


async def apply(
    directory: StrPath,
    layers: Sequence[StrPath],
    *,
    same_owner: bool | None = None,
    limits: Limits | None = None,
    observer: Observer | None = None,
) -> None:
    """Apply layer files (tar, gzip or zstd) in order onto a directory, in place.

    Args:
        same_owner: give files to the owners that layers name; by default as root only.
    Raises:
        UnpackError, FormatError, StoreError: the directory holds what was extracted before.
    """
    limits = limits or Limits()
    target, paths = path_walk.absolute(directory), [path_walk.absolute(layer) for layer in layers]
    worker = WorkerPool(limits.workers)
    try:
        unpacker = Unpacker(worker, Buffers(_core.Pool(limits.memory)), limits, observer or (lambda event: None))
        await unpacker.apply(target, paths, owners=os.geteuid() == 0 if same_owner is None else same_owner)
    finally:
        worker.close()


class EngineOptions(TypedDict, total=False):
    """What ``Engine`` takes by name, for ``pull``."""

    registry: RegistryOptions | None
    limits: Limits | None
    additional: Sequence[StrPath]
    observer: Observer | None


def pull(
    reference: str,
    *,
    store: StrPath | None = None,
    platform: str | None = None,
    rootfs: StrPath | None = None,
    same_owner: bool | None = None,
    **options: Unpack[EngineOptions],
) -> Path:
    """Pull one image, for programs that are not async; the store's directory.

    Args:
        platform, rootfs, same_owner: as ``Engine.pull`` takes them.
        options: as ``Engine`` takes them.
    Raises:
        FastociError: as ``Engine.pull``; where the reference or platform does not parse, before a store is made.
    """
    Reference.parse(reference)
    if platform is not None:
        Platform.parse(platform)

    async def run() -> Path:
        async with Engine(store, **options) as engine:
            await engine.pull(reference, platform=platform, rootfs=rootfs, same_owner=same_owner)
            return engine.store_path

    return asyncio.run(run())
