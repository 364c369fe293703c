"""The snapshots service of a fake containerd: ``overlayfs``, whose mounts are told, and ``native``, which copies.

Spec: containerd ``core/metadata/snapshot.go``, ``core/snapshots/storage``, ``plugins/snapshots/{overlay,native}``.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from fastoci.containerd import labels, methods
from fastoci.containerd.messages import (
    ACTIVE,
    COMMITTED,
    VIEW,
    CommitRequest,
    Empty,
    ListSnapshotsRequest,
    ListSnapshotsResponse,
    Mount,
    MountsResponse,
    NameRequest,
    PrepareRequest,
    SnapshotInfo,
    SnapshotRequest,
    SnapshotResponse,
    UpdateSnapshotRequest,
    UsageResponse,
)
from fastoci.containerd.rpc import Call, Code, Handler
from fastoci.testing.containerd.state import Namespace, Snapshot, State, check_labels, now, unary, updated_labels

SNAPSHOTTERS: Final = ("overlayfs", "native")


class SnapshotService:
    """Serves ``state``. ``rebases``: Commit takes a parent, as 2.2 and newer do for overlayfs."""

    def __init__(self, state: State, *, rebases: bool) -> None:
        self._state = state
        self._rebases = rebases
        self._made = 0

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By method."""
        return {
            methods.SNAPSHOT_PREPARE: unary(PrepareRequest, lambda call, request: self._make(call, request, ACTIVE)),
            methods.SNAPSHOT_VIEW: unary(PrepareRequest, lambda call, request: self._make(call, request, VIEW)),
            methods.SNAPSHOT_MOUNTS: unary(SnapshotRequest, self._mounts_of),
            methods.SNAPSHOT_COMMIT: unary(CommitRequest, self._commit),
            methods.SNAPSHOT_REMOVE: unary(SnapshotRequest, self._remove),
            methods.SNAPSHOT_STAT: unary(SnapshotRequest, self._stat),
            methods.SNAPSHOT_UPDATE: unary(UpdateSnapshotRequest, self._update),
            methods.SNAPSHOT_USAGE: unary(SnapshotRequest, self._usage),
            methods.SNAPSHOT_CLEANUP: unary(NameRequest, lambda call, request: Empty()),
            methods.SNAPSHOT_LIST: self._list,
        }

    def directory(self, snapshotter: str) -> Path:
        """Where the snapshots of one are."""
        return self._state.root / f"io.containerd.snapshotter.v1.{snapshotter}"

    def _namespace(self, call: Call, snapshotter: str) -> Namespace:
        if snapshotter not in SNAPSHOTTERS:
            raise call.failure(f"snapshotter not loaded: {snapshotter}: invalid argument", Code.INVALID_ARGUMENT)
        return self._state.namespace(call)

    def _find(self, call: Call, snapshotter: str, key: str) -> Snapshot:
        found = self._namespace(call, snapshotter).snapshots.get((snapshotter, key))
        if found is None:
            raise call.failure(f"snapshot {key} does not exist: not found", Code.NOT_FOUND)
        return found

    def _parent(self, call: Call, snapshotter: str, key: str) -> Snapshot:
        found = self._find(call, snapshotter, key)
        if found.info.kind != COMMITTED:
            raise call.failure(f"parent {key!r} is not committed snapshot: invalid argument", Code.INVALID_ARGUMENT)
        return found

    def _make(self, call: Call, request: PrepareRequest, kind: int) -> MountsResponse:
        snapshots = self._namespace(call, request.snapshotter).snapshots
        check_labels(call, request.labels)
        target = request.labels.get(labels.TARGET_CHAIN, "")
        for name in (target, request.key):
            if name and (request.snapshotter, name) in snapshots:
                self._state.hold(call, f"snapshots/{request.snapshotter}", name)
                raise call.failure(f"snapshot {name!r}: already exists", Code.ALREADY_EXISTS)
        lowers = self._lowers(call, request.snapshotter, request.parent)
        self._made += 1
        directory = self.directory(request.snapshotter) / "snapshots" / str(self._made)
        directory.mkdir(parents=True)
        mounts = self._mounts(request.snapshotter, kind, directory, lowers)
        info = SnapshotInfo(request.key, request.parent, kind, now(), now(), dict(request.labels))
        self._state.hold(call, f"snapshots/{request.snapshotter}", request.key)
        snapshots[request.snapshotter, request.key] = Snapshot(info, directory, mounts)
        return MountsResponse(mounts)

    def _lowers(self, call: Call, snapshotter: str, parent: str) -> list[Path]:
        """The directories of the snapshots below, the upmost first."""
        found = []
        while parent:
            snapshot = self._parent(call, snapshotter, parent)
            found.append(snapshot.directory)
            parent = snapshot.info.parent
        return found

    @staticmethod
    def _mounts(snapshotter: str, kind: int, directory: Path, lowers: list[Path]) -> tuple[Mount, ...]:
        access = "ro" if kind == VIEW else "rw"
        if snapshotter == "native":
            if lowers:
                shutil.copytree(lowers[0], directory, symlinks=True, dirs_exist_ok=True)
            return (Mount("bind", str(directory), options=("rbind", access)),)
        (directory / "fs").mkdir()
        if not lowers or (kind == VIEW and len(lowers) == 1):
            source = (lowers[0] if lowers else directory) / "fs"
            return (Mount("bind", str(source), options=(access, "rbind")),)
        options = [f"lowerdir={':'.join(str(lower / 'fs') for lower in lowers)}"]
        if kind == ACTIVE:
            (directory / "work").mkdir()
            options = [f"workdir={directory}/work", f"upperdir={directory}/fs", *options]
        return (Mount("overlay", "overlay", options=("index=off", *options)),)

    def _mounts_of(self, call: Call, request: SnapshotRequest) -> MountsResponse:
        found = self._find(call, request.snapshotter, request.key)
        if found.info.kind == COMMITTED:
            text = f"snapshot {request.key} is not active: failed precondition"
            raise call.failure(text, Code.FAILED_PRECONDITION)
        return MountsResponse(found.mounts)

    def _commit(self, call: Call, request: CommitRequest) -> Empty:
        snapshots = self._namespace(call, request.snapshotter).snapshots
        check_labels(call, request.labels)
        if (request.snapshotter, request.name) in snapshots:
            self._state.hold(call, f"snapshots/{request.snapshotter}", request.name)
            raise call.failure(f"snapshot {request.name!r}: already exists", Code.ALREADY_EXISTS)
        found = self._find(call, request.snapshotter, request.key)
        if found.info.kind != ACTIVE:
            text = f"snapshot {request.key} is not active: failed precondition"
            raise call.failure(text, Code.FAILED_PRECONDITION)
        parent = found.info.parent
        if self._rebases and request.parent and request.parent != parent:
            if parent:
                text = f"cannot change parent of active snapshot {request.key!r} on commit: invalid argument"
                raise call.failure(text, Code.INVALID_ARGUMENT)
            parent = request.parent
            self._parent(call, request.snapshotter, parent)
        self._state.hold(call, f"snapshots/{request.snapshotter}", request.name)
        del snapshots[request.snapshotter, request.key]
        found.info = SnapshotInfo(request.name, parent, COMMITTED, now(), now(), dict(request.labels))
        snapshots[request.snapshotter, request.name] = found
        return Empty()

    def _remove(self, call: Call, request: SnapshotRequest) -> Empty:
        found = self._find(call, request.snapshotter, request.key)
        snapshots = self._state.namespace(call).snapshots
        if any(
            name == request.snapshotter and each.info.parent == request.key for (name, _), each in snapshots.items()
        ):
            raise call.failure("cannot remove snapshot with child: failed precondition", Code.FAILED_PRECONDITION)
        del snapshots[request.snapshotter, request.key]
        shutil.rmtree(found.directory)
        return Empty()

    def _stat(self, call: Call, request: SnapshotRequest) -> SnapshotResponse:
        return SnapshotResponse(self._find(call, request.snapshotter, request.key).info)

    def _update(self, call: Call, request: UpdateSnapshotRequest) -> SnapshotResponse:
        given = request.info or SnapshotInfo()
        found = self._find(call, request.snapshotter, given.name)
        changed = updated_labels(call, found.info.labels, given.labels, request.update_mask)
        found.info = msgspec.structs.replace(found.info, labels=changed, updated_at=now())
        return SnapshotResponse(found.info)

    def _usage(self, call: Call, request: SnapshotRequest) -> UsageResponse:
        directory = self._find(call, request.snapshotter, request.key).directory
        files = [path.lstat() for path in directory.rglob("*")]
        return UsageResponse(sum(each.st_blocks * 512 for each in files), len(files))

    async def _list(self, call: Call) -> AsyncIterator[bytes]:
        request = ListSnapshotsRequest.decode(await call.request())
        snapshots = self._namespace(call, request.snapshotter).snapshots
        found = tuple(each.info for (name, _), each in snapshots.items() if name == request.snapshotter)
        if found:
            yield ListSnapshotsResponse(found).encode()
