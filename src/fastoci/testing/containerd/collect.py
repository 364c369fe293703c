"""The garbage collection of a fake containerd, at its worst: whatever nothing records goes, whenever it is called.

Spec: containerd ``docs/garbage-collection.md``, ``core/metadata/gc.go``.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

from fastoci.containerd import labels
from fastoci.containerd.messages import Resource
from fastoci.testing.containerd.state import Namespace, State

_CONTENT = "containerd.io/gc.ref.content"
_SNAPSHOT = "containerd.io/gc.ref.snapshot."


def collect(state: State) -> None:
    """Remove expired leases, then all that no image, lease or root keeps, then files that nothing records."""
    recorded: set[str] = set()
    for namespace in state.namespaces.values():
        for name in [name for name, lease in namespace.leases.items() if _is_over(lease.labels)]:
            del namespace.leases[name], namespace.held[name]
        kept = _reachable(namespace)
        namespace.blobs = {
            digest: blob for digest, blob in namespace.blobs.items() if Resource(digest, "content") in kept
        }
        for snapshotter, key in list(namespace.snapshots):
            if Resource(key, f"snapshots/{snapshotter}") not in kept:
                shutil.rmtree(namespace.snapshots.pop((snapshotter, key)).directory)
        recorded |= namespace.blobs.keys() | {ingest.shared for ingest in namespace.ingests.values()}
    for file in state.blobs.glob("*"):
        if f"sha256:{file.name}" not in recorded:
            file.unlink()


def _is_over(given: object) -> bool:
    end = given.get(labels.EXPIRE) if isinstance(given, dict) else None
    return end is not None and datetime.fromisoformat(end) < datetime.now(UTC)


def _reachable(namespace: Namespace) -> set[Resource]:
    """All that is kept, from what is kept for its own sake."""
    todo = [Resource(each.target.digest, "content") for each in namespace.images.values() if each.target is not None]
    todo += [each for resources in namespace.held.values() for each in resources]
    todo += [Resource(digest, "content") for digest, blob in namespace.blobs.items() if labels.ROOT in blob.labels]
    todo += [
        Resource(key, f"snapshots/{snapshotter}")
        for (snapshotter, key), each in namespace.snapshots.items()
        if labels.ROOT in each.info.labels
    ]
    found: set[Resource] = set()
    while todo:
        each = todo.pop()
        if each not in found:
            found.add(each)
            todo += _references(namespace, each)
    return found


def _references(namespace: Namespace, resource: Resource) -> list[Resource]:
    kind, _, snapshotter = resource.type.partition("/")
    if kind == "content" and resource.id in namespace.blobs:
        found = []
        for key, value in namespace.blobs[resource.id].labels.items():
            if key.startswith(_CONTENT):
                found.append(Resource(value, "content"))
            elif key.startswith(_SNAPSHOT):
                found.append(Resource(value, f"snapshots/{key.removeprefix(_SNAPSHOT).partition('/')[0]}"))
        return found
    snapshot = namespace.snapshots.get((snapshotter, resource.id)) if kind == "snapshots" else None
    return [Resource(snapshot.info.parent, resource.type)] if snapshot is not None and snapshot.info.parent else []
