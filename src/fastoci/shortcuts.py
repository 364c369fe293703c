"""What needs no engine of one's own: an image for programs that are not async, and layer files onto a directory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from fastoci import _core, path_walk
from fastoci.engine import Engine, Policy
from fastoci.events import Observer
from fastoci.image.platform import ALL, Platform
from fastoci.image.reference import Reference
from fastoci.limits import Limits
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.layer_reading import LayerReader
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
        reader = LayerReader(worker, Buffers(_core.Pool(limits.memory)), limits)
        unpacker = Unpacker(worker, reader, limits, observer or (lambda event: None))
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
    platform: str | Sequence[str] | None = None,
    rootfs: StrPath | None = None,
    same_owner: bool | None = None,
    policy: Policy = "always",
    **options: Unpack[EngineOptions],
) -> Path:
    """Pull one image, for programs that are not async; the store's directory.

    Args:
        platform: as ``Engine.pull`` takes it, or several as ``Engine.pull_platforms`` does.
        rootfs, same_owner, policy: as ``Engine.pull`` takes them; ``rootfs`` of one platform only.
        options: as ``Engine`` takes them.
    Raises:
        FastociError: as ``Engine.pull``; where the reference or platform does not parse, before a store is made.
        ValueError: ``rootfs`` with several platforms.
    """
    several = () if platform is None or isinstance(platform, str) else tuple(platform)
    if several and rootfs is not None:
        raise ValueError("rootfs takes one platform: a tree is of one")
    if policy != "never":
        Reference.parse(reference)
    for each in several or (platform,):
        if isinstance(each, str) and not (several and each == ALL):
            Platform.parse(each)

    async def run() -> Path:
        async with Engine(store, **options) as engine:
            if several:
                await engine.pull_platforms(reference, several, policy=policy)
            else:
                assert platform is None or isinstance(platform, str)
                await engine.pull(reference, platform=platform, rootfs=rootfs, same_owner=same_owner, policy=policy)
            return engine.store_path

    return asyncio.run(run())
