"""Snapshots of one snapshotter, in a client's namespace and under its lease.

A layer becomes files in an active snapshot, which then gets the ChainID as its name. Each call here can be made twice:
containerd may have been restarted between the call and its answer. Whoever has made the same snapshot meanwhile is as
good: ours goes then.
Spec: containerd API v1, ``services.snapshots.v1``; core/metadata/snapshot.go, core/unpack/unpacker.go.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from fastoci.containerd import labels, methods
from fastoci.containerd.client import Client
from fastoci.containerd.messages import (
    COMMITTED,
    CommitRequest,
    Empty,
    Mount,
    MountsResponse,
    PrepareRequest,
    SnapshotRequest,
    SnapshotResponse,
)
from fastoci.containerd.rpc import Code
from fastoci.errors import ContainerdError, UnsupportedError
from fastoci.image.digest import Digest

DEFAULT: Final = "overlayfs"  # as containerd's own clients have it
_DEFAULT_LABEL: Final = "containerd.io/defaults/snapshotter"  # of a namespace
_REMOVE_S: Final = 5.0  # a user may wait for the end
_TRIES: Final = 3  # as containerd's own clients
_REBASE: Final = "rebase"  # a capability: a snapshot may get its parent when it is committed
# Those that write a layer by itself in a form that goes on top of any other: the layer's own form is known.
_ALONE: Final = frozenset({"overlayfs", "erofs"})


class Chained(msgspec.Struct, frozen=True):
    """A layer with its place: its diff_id, the ChainID up to it, and that of the layer below, None for the lowest."""

    diff_id: Digest
    chain_id: Digest
    parent: Digest | None


class Active(msgspec.Struct, frozen=True):
    """A snapshot that is written to. ``is_alone``: it was prepared without its parent."""

    key: str
    layer: Chained
    mounts: tuple[Mount, ...]
    is_alone: bool


class Snapshots:
    """One snapshotter.

    ``in_parallel``: a layer can be written before the one below it is there. ``can_rebase``: the snapshot that it was
    written to gets its parent then; else its files go to one that has it. ``pid`` is containerd's process, 0 when that
    is not known; ``root`` is the snapshotter's directory, None likewise.

    Args:
        name: of the snapshotter; empty: the namespace's default.
    Raises:
        UnsupportedError: containerd has none of this name, or it cannot be used.
    """

    def __init__(self, client: Client, name: str) -> None:
        known = client.server.snapshotters
        self.name = name or (client.namespace_labels or {}).get(_DEFAULT_LABEL, DEFAULT)
        found = known.get(self.name)
        if found is None or found.error:
            usable = ", ".join(sorted(each for each, facts in known.items() if not facts.error)) or "none"
            why = "there is none of this name" if found is None else found.error
            raise UnsupportedError(f"containerd's snapshotter {self.name}: {why}; it can use {usable} (--snapshotter)")
        self.can_rebase = self.name in _ALONE and _REBASE in found.capabilities
        self.in_parallel = self.can_rebase or self.name == DEFAULT
        self.pid = client.server.pid
        self.root = found.root
        self._client = client

    async def count_held(self, chain: Sequence[Chained]) -> int:
        """How many of the lowest layers are there; the lease holds these.

        Raises:
            ContainerdError: containerd refused, or is gone.
        """
        for count in range(len(chain), 0, -1):
            await self._client.hold(f"snapshots/{self.name}", str(chain[count - 1].chain_id))
            if await self._is_committed(chain[count - 1].chain_id):
                return count
        return 0

    async def prepare(self, layer: Chained, *, alone: bool = False) -> Active | None:
        """Make a snapshot to write a layer to; None when the layer is there.

        Args:
            alone: the layer below need not be there.
        Raises:
            ContainerdError: as ``count_held``.
        """
        parent = "" if alone or layer.parent is None else str(layer.parent)
        given = labels.extraction(layer.diff_id, layer.chain_id, layer.parent)
        for left in reversed(range(_TRIES)):
            key = labels.extract_key(layer.chain_id, secrets.token_hex(8))
            request = PrepareRequest(self.name, key, parent, given)
            try:
                answer = await self._client.call(methods.SNAPSHOT_PREPARE, request, MountsResponse)
            except ContainerdError as error:
                if error.code != Code.ALREADY_EXISTS:
                    raise
                if await self._is_committed(layer.chain_id):
                    return None
                await self._remove(key)  # it is ours, made before the connection broke; or another's is gone again
                if not left:
                    raise
            else:
                return Active(key, layer, answer.mounts, alone and layer.parent is not None)
        raise AssertionError

    async def commit(self, active: Active) -> None:
        """Give a snapshot its name.

        Raises:
            ContainerdError: as ``count_held``; the snapshot was removed meanwhile.
        """
        layer = active.layer
        given = labels.extraction(layer.diff_id, layer.chain_id, layer.parent)
        parent = str(layer.parent) if active.is_alone else ""
        request = CommitRequest(self.name, str(layer.chain_id), active.key, given, parent)
        try:
            await self._client.call(methods.SNAPSHOT_COMMIT, request, Empty)
        except ContainerdError as error:
            if error.code not in (Code.ALREADY_EXISTS, Code.NOT_FOUND) or not await self._is_committed(layer.chain_id):
                raise
            await self.remove(active)

    async def remove(self, active: Active) -> None:
        """Take a snapshot away that has no name. What cannot be removed now goes when the lease ends."""
        with suppress(ContainerdError, TimeoutError):
            async with asyncio.timeout(_REMOVE_S):
                await self._remove(active.key)

    async def _remove(self, key: str) -> None:
        try:
            await self._client.call(methods.SNAPSHOT_REMOVE, SnapshotRequest(self.name, key), Empty)
        except ContainerdError as error:
            if error.code != Code.NOT_FOUND:
                raise

    async def _is_committed(self, chain_id: Digest) -> bool:
        request = SnapshotRequest(self.name, str(chain_id))
        try:
            answer = await self._client.call(methods.SNAPSHOT_STAT, request, SnapshotResponse)
        except ContainerdError as error:
            if error.code != Code.NOT_FOUND:
                raise
            return False
        return answer.info is not None and answer.info.kind == COMMITTED
