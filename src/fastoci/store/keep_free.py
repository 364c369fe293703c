"""Space that stays free beside a job: what it takes is held against what is free, and what nobody pinned makes way.

Spec: docs/store-format.md 8.
"""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from fastoci.errors import SpaceRequirement, StoreError, StoreFullError
from fastoci.image.descriptor import Descriptor
from fastoci.store.free_space import UNLIMITED, allocated, capacity, space
from fastoci.store.gc.eviction import Shortage
from fastoci.store.store import Store

if TYPE_CHECKING:
    from fastoci.store.gc.collect import GcItem

_LOOKS: Final = 20  # at what is free after an eviction: some file systems give blocks back a little later
_PAUSE_S: Final = 0.05


class Demand(msgspec.Struct, frozen=True):
    """What a job takes, and what has to stay.

    Args:
        keep_free, keep_free_percent: bytes, and percent of the file system: the larger stays free.
        missing: blobs that come.
        needed: all blobs of the job.
        names: references of the job.
        given_up: references that go after the job.
        root, unpacked: a directory that gets files, and their bytes by estimate.
    """

    keep_free: int
    keep_free_percent: float
    missing: tuple[Descriptor, ...]
    needed: tuple[Descriptor, ...]
    names: frozenset[str]
    given_up: frozenset[str] = frozenset()
    root: Path | None = None
    unpacked: int = 0


class _Figures(msgspec.Struct, frozen=True):
    needed: int
    free: int
    keep: int

    @property
    def lacking(self) -> int:
        return self.needed + self.keep - self.free


async def plan_space(store: Store, demand: Demand) -> tuple[GcItem, ...]:
    """What ``make_space`` would delete.

    Raises:
        StoreFullError: the job does not fit, whatever may go; ``requirements`` has the numbers.
        StoreError: a reference or a document is broken, or the disk refused.
    """
    return await _space(store, demand, execute=False)


async def make_space(store: Store, demand: Demand) -> tuple[GcItem, ...]:
    """Delete what nothing needs, and evict references, when a job does not fit otherwise; what was deleted.

    Nothing goes when that would not suffice. A job that takes nothing evicts as well, and is not refused.

    Raises:
        StoreFullError: it does not fit, whatever may go; ``requirements`` has the numbers.
        StoreBusyError: another collection is under way.
        StoreError: a reference or a document is broken, or the disk refused.
    """
    return await _space(store, demand, execute=True)


async def _space(store: Store, demand: Demand, *, execute: bool) -> tuple[GcItem, ...]:
    threads = store.blobs.threads
    figures = await threads.run(lambda: _figures(store, demand))
    if figures.lacking <= 0:
        return ()
    blobs = frozenset(blob.digest for blob in demand.needed)
    plan, freed = await store.plan_eviction(Shortage(figures.lacking, demand.names, blobs, demand.given_up))
    if freed < figures.lacking:
        if figures.needed:
            raise _too_little(store, figures, freed)
        return ()
    if not execute:
        return plan.items
    gone = await store.gc(plan)
    for _ in range(_LOOKS):
        figures = await threads.run(lambda: _figures(store, demand))
        if figures.lacking <= 0 or not figures.needed:
            return gone
        await asyncio.sleep(_PAUSE_S)
    raise _too_little(store, figures, 0)


def _figures(store: Store, demand: Demand) -> _Figures:
    here = space(store.paths.top)
    if here.size == UNLIMITED:
        return _Figures(0, here.size, 0)
    needed = sum(max(0, blob.size - allocated(store.paths, blob.digest)) for blob in demand.missing)
    if demand.root is not None and space(str(demand.root)).device == here.device:
        needed += demand.unpacked
    share = math.ceil(capacity(store.paths.top) * demand.keep_free_percent / 100)
    return _Figures(needed, here.size, max(demand.keep_free, share))


def _too_little(store: Store, figures: _Figures, evictable: int) -> StoreError:
    at = store.paths.root
    usable = max(0, figures.free - figures.keep)
    text = (
        f"not enough space at {at}: {figures.needed} bytes needed, {figures.free} free of which {figures.keep} stay"
        f" free, {evictable} could be evicted"
    )
    requirement = SpaceRequirement(f"bytes beside the {figures.keep} that stay free", at, figures.needed, usable)
    return StoreFullError(text, path=at, requirements=(requirement,))
