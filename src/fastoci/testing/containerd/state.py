"""What a fake containerd keeps, by namespaces, and what all its services do alike. Serves nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from fastoci.containerd import labels
from fastoci.containerd.codec import Message
from fastoci.containerd.messages import (
    ContentInfo,
    FieldMask,
    ImageRecord,
    Lease,
    Mount,
    Resource,
    SnapshotInfo,
    Timestamp,
)
from fastoci.containerd.rpc import Call, Code, Handler

M = TypeVar("M", bound=Message)


class Ingest:
    """A blob on its way under a ref. ``shared`` is the digest of a file that another recorded already."""

    def __init__(self, ref: str, total: int, shared: str) -> None:
        self.ref = ref
        self.total = total
        self.shared = shared
        self.data = bytearray()
        self.started_at = now()
        self.is_open = False


class Snapshot:
    """A snapshot in a directory of its own; ``parent`` and ``info.name`` are of the same snapshotter."""

    def __init__(self, info: SnapshotInfo, directory: Path, mounts: tuple[Mount, ...]) -> None:
        self.info = info
        self.directory = directory
        self.mounts = mounts


class Namespace:
    """All of one namespace."""

    def __init__(self) -> None:
        self.blobs: dict[str, ContentInfo] = {}
        self.ingests: dict[str, Ingest] = {}
        self.images: dict[str, ImageRecord] = {}
        self.leases: dict[str, Lease] = {}
        self.held: dict[str, set[Resource]] = {}  # by leases
        self.snapshots: dict[tuple[str, str], Snapshot] = {}  # by snapshotter and key


class State:
    """All of a containerd. ``blobs`` is the directory of its blobs, as containerd has it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.content = root / "io.containerd.content.v1.content"
        self.blobs = self.content / "blobs" / "sha256"
        self.namespaces: dict[str, Namespace] = {}

    def file(self, digest: str) -> Path:
        """Where a blob's bytes are."""
        return self.blobs / digest.partition(":")[2]

    def namespace(self, call: Call) -> Namespace:
        """The namespace of a call; one that is new is made.

        Raises:
            ContainerdError: the call has none.
        """
        name = call.metadata.get("containerd-namespace", "")
        if not name:
            raise call.failure("namespace is required: failed precondition", Code.FAILED_PRECONDITION)
        return self.namespaces.setdefault(name, Namespace())

    def hold(self, call: Call, kind: str, name: str) -> None:
        """Give something to the lease of a call, if that has one.

        Raises:
            ContainerdError: there is no such lease.
        """
        if lease := call.metadata.get("containerd-lease"):
            held(call, self.namespace(call), lease).add(Resource(name, kind))


def held(call: Call, namespace: Namespace, lease: str) -> set[Resource]:
    """What a lease holds.

    Raises:
        ContainerdError: there is no such lease.
    """
    if lease not in namespace.leases:
        raise call.failure(f"lease {lease!r}: not found", Code.NOT_FOUND)
    return namespace.held[lease]


def now() -> Timestamp:
    """The moment."""
    return Timestamp.of(datetime.now(UTC))


def unary(kind: type[M], serve: Callable[[Call, M], Message]) -> Handler:
    """A handler of calls with one message each."""

    async def handle(call: Call) -> bytes:
        return serve(call, kind.decode(await call.request())).encode()

    return handle


def check_labels(call: Call, given: Mapping[str, str]) -> None:
    """Refuse labels as containerd does.

    Raises:
        ContainerdError: one is too long.
    """
    for key, value in given.items():
        if not labels.fits(key, value):
            raise call.failure(f"label key and value length is beyond {labels.SIZE}", Code.INVALID_ARGUMENT)


def updated_labels(
    call: Call, known: Mapping[str, str], given: Mapping[str, str], mask: FieldMask | None
) -> dict[str, str]:
    """The labels after an Update: without a mask those that are given, else as its paths say. An empty value deletes.

    Raises:
        ContainerdError: the mask names something else, or a label is too long.
    """
    paths: Iterable[str] = mask.paths if mask is not None and mask.paths else ("labels",)
    found = dict(known)
    for path in paths:
        if path == "labels":
            found = dict(given)
        elif path.startswith("labels."):
            key = path.removeprefix("labels.")
            found[key] = given.get(key, "")
        elif path != "target":
            raise call.failure(f"cannot update {path!r} field: invalid argument", Code.INVALID_ARGUMENT)
    check_labels(call, found)
    return {key: value for key, value in found.items() if value}
