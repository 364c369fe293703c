"""The messages of containerd's API that are used here, field by field. Of all others, and of other fields, nothing.

Spec: containerd API v1, ``api/services/*/v1/*.proto`` and ``api/types/*.proto`` of containerd 1.6 to 2.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final

from msgspec import field

from fastoci.containerd.codec import Message

# -- types --


class Empty(Message, frozen=True):
    """google.protobuf.Empty."""


class Timestamp(Message, frozen=True):
    """google.protobuf.Timestamp."""

    seconds: Annotated[int, 1] = 0
    nanos: Annotated[int, 2] = 0

    @classmethod
    def of(cls, moment: datetime) -> Timestamp:
        """The timestamp of a moment that has a time zone."""
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        return cls(since.days * 86400 + since.seconds, since.microseconds * 1000)


class Any(Message, frozen=True):
    """google.protobuf.Any."""

    type_url: Annotated[str, 1] = ""
    value: Annotated[bytes, 2] = b""


class FieldMask(Message, frozen=True):
    """google.protobuf.FieldMask."""

    paths: Annotated[tuple[str, ...], 1] = ()


class RpcStatus(Message, frozen=True):
    """google.rpc.Status."""

    code: Annotated[int, 1] = 0
    message: Annotated[str, 2] = ""


class Descriptor(Message, frozen=True):
    """containerd.types.Descriptor."""

    media_type: Annotated[str, 1] = ""
    digest: Annotated[str, 2] = ""
    size: Annotated[int, 3] = 0
    annotations: Annotated[Mapping[str, str], 5] = field(default_factory=dict)


class Mount(Message, frozen=True):
    """containerd.types.Mount."""

    type: Annotated[str, 1] = ""
    source: Annotated[str, 2] = ""
    target: Annotated[str, 3] = ""
    options: Annotated[tuple[str, ...], 4] = ()


class NameRequest(Message, frozen=True):
    """A request that names one thing: a blob by its digest, an ingest by its ref, an image, a lease and so on."""

    name: Annotated[str, 1] = ""


# -- diff --


class ApplyRequest(Message, frozen=True):
    """A layer, and where it becomes files."""

    diff: Annotated[Descriptor | None, 1] = None
    mounts: Annotated[tuple[Mount, ...], 2] = ()
    payloads: Annotated[Mapping[str, Any], 3] = field(default_factory=dict)
    sync_fs: Annotated[bool, 4] = False


class ApplyResponse(Message, frozen=True):
    """The tar that was applied: its digest is the diff_id."""

    applied: Annotated[Descriptor | None, 1] = None


class DiffRequest(Message, frozen=True):
    """Two trees whose difference becomes a layer in the content store."""

    left: Annotated[tuple[Mount, ...], 1] = ()
    right: Annotated[tuple[Mount, ...], 2] = ()
    media_type: Annotated[str, 3] = ""
    ref: Annotated[str, 4] = ""
    labels: Annotated[Mapping[str, str], 5] = field(default_factory=dict)
    source_date_epoch: Annotated[Timestamp | None, 6] = None


class DiffResponse(Message, frozen=True):
    """The layer that was made."""

    diff: Annotated[Descriptor | None, 3] = None


# -- content --

STAT: Final = 0  # the actions of a WriteRequest
WRITE: Final = 1
COMMIT: Final = 2


class ContentInfo(Message, frozen=True):
    """A blob of the content store."""

    digest: Annotated[str, 1] = ""
    size: Annotated[int, 2] = 0
    created_at: Annotated[Timestamp | None, 3] = None
    updated_at: Annotated[Timestamp | None, 4] = None
    labels: Annotated[Mapping[str, str], 5] = field(default_factory=dict)


class InfoResponse(Message, frozen=True):
    """Content's InfoResponse and UpdateResponse."""

    info: Annotated[ContentInfo | None, 1] = None


class UpdateContentRequest(Message, frozen=True):
    """Other labels for a blob: those that the mask names as ``labels.KEY``."""

    info: Annotated[ContentInfo | None, 1] = None
    update_mask: Annotated[FieldMask | None, 2] = None


class FiltersRequest(Message, frozen=True):
    """The ListRequest of content, its statuses, leases, images, and introspection's PluginsRequest."""

    filters: Annotated[tuple[str, ...], 1] = ()


class ListContentResponse(Message, frozen=True):
    """Some blobs of a stream."""

    info: Annotated[tuple[ContentInfo, ...], 1] = ()


class ReadRequest(Message, frozen=True):
    """A range of a blob; ``size`` 0 is all that follows ``offset``."""

    digest: Annotated[str, 1] = ""
    offset: Annotated[int, 2] = 0
    size: Annotated[int, 3] = 0


class ReadResponse(Message, frozen=True):
    """Some bytes of a stream."""

    offset: Annotated[int, 1] = 0
    data: Annotated[bytes, 2] = b""


class Status(Message, frozen=True):
    """An ingest that is not committed."""

    started_at: Annotated[Timestamp | None, 1] = None
    updated_at: Annotated[Timestamp | None, 2] = None
    ref: Annotated[str, 3] = ""
    offset: Annotated[int, 4] = 0
    total: Annotated[int, 5] = 0
    expected: Annotated[str, 6] = ""


class StatusResponse(Message, frozen=True):
    """One ingest."""

    status: Annotated[Status | None, 1] = None


class ListStatusesResponse(Message, frozen=True):
    """All ingests."""

    statuses: Annotated[tuple[Status, ...], 1] = ()


class WriteRequest(Message, frozen=True):
    """A step of an ingest: ask for its state, write at an offset, or commit."""

    action: Annotated[int, 1] = STAT
    ref: Annotated[str, 2] = ""
    total: Annotated[int, 3] = 0
    expected: Annotated[str, 4] = ""
    offset: Annotated[int, 5] = 0
    data: Annotated[bytes, 6] = b""
    labels: Annotated[Mapping[str, str], 7] = field(default_factory=dict)


class WriteResponse(Message, frozen=True):
    """The state of an ingest after a step."""

    action: Annotated[int, 1] = STAT
    started_at: Annotated[Timestamp | None, 2] = None
    updated_at: Annotated[Timestamp | None, 3] = None
    offset: Annotated[int, 4] = 0
    total: Annotated[int, 5] = 0
    digest: Annotated[str, 6] = ""


# -- leases --


class Lease(Message, frozen=True):
    """A lease: what carries its id is not collected."""

    id: Annotated[str, 1] = ""
    created_at: Annotated[Timestamp | None, 2] = None
    labels: Annotated[Mapping[str, str], 3] = field(default_factory=dict)


class CreateLeaseRequest(Message, frozen=True):
    """A new lease."""

    id: Annotated[str, 1] = ""
    labels: Annotated[Mapping[str, str], 3] = field(default_factory=dict)


class LeaseResponse(Message, frozen=True):
    """Leases' CreateResponse."""

    lease: Annotated[Lease | None, 1] = None


class DeleteLeaseRequest(Message, frozen=True):
    """The end of a lease; ``sync``: the answer comes after a collection."""

    id: Annotated[str, 1] = ""
    sync: Annotated[bool, 2] = False


class ListLeasesResponse(Message, frozen=True):
    """All leases."""

    leases: Annotated[tuple[Lease, ...], 1] = ()


class Resource(Message, frozen=True):
    """What a lease holds: ``content``, ``ingests`` or ``snapshots/SNAPSHOTTER``, and its name there."""

    id: Annotated[str, 1] = ""
    type: Annotated[str, 2] = ""


class LeaseResourceRequest(Message, frozen=True):
    """Leases' AddResourceRequest and DeleteResourceRequest."""

    id: Annotated[str, 1] = ""
    resource: Annotated[Resource | None, 2] = None


class ListResourcesResponse(Message, frozen=True):
    """What a lease holds."""

    resources: Annotated[tuple[Resource, ...], 1] = ()


# -- images --


class ImageRecord(Message, frozen=True):
    """An image: a name and the descriptor of what it leads to."""

    name: Annotated[str, 1] = ""
    labels: Annotated[Mapping[str, str], 2] = field(default_factory=dict)
    target: Annotated[Descriptor | None, 3] = None
    created_at: Annotated[Timestamp | None, 7] = None
    updated_at: Annotated[Timestamp | None, 8] = None


class CreateImageRequest(Message, frozen=True):
    """A new image."""

    image: Annotated[ImageRecord | None, 1] = None


class UpdateImageRequest(Message, frozen=True):
    """An image that is there already; without a mask all of it is replaced."""

    image: Annotated[ImageRecord | None, 1] = None
    update_mask: Annotated[FieldMask | None, 2] = None


class ImageResponse(Message, frozen=True):
    """Images' answers to Get, Create and Update."""

    image: Annotated[ImageRecord | None, 1] = None


class ListImagesResponse(Message, frozen=True):
    """All images."""

    images: Annotated[tuple[ImageRecord, ...], 1] = ()


class DeleteImageRequest(Message, frozen=True):
    """The end of an image; ``target``: only when it leads there (2.0 and newer)."""

    name: Annotated[str, 1] = ""
    sync: Annotated[bool, 2] = False
    target: Annotated[Descriptor | None, 3] = None


# -- snapshots --

VIEW: Final = 1  # the kinds of a snapshot
ACTIVE: Final = 2
COMMITTED: Final = 3


class PrepareRequest(Message, frozen=True):
    """Snapshots' PrepareSnapshotRequest and ViewSnapshotRequest."""

    snapshotter: Annotated[str, 1] = ""
    key: Annotated[str, 2] = ""
    parent: Annotated[str, 3] = ""
    labels: Annotated[Mapping[str, str], 4] = field(default_factory=dict)


class MountsResponse(Message, frozen=True):
    """Snapshots' answers to Prepare, View and Mounts."""

    mounts: Annotated[tuple[Mount, ...], 1] = ()


class SnapshotRequest(Message, frozen=True):
    """The request of Mounts, Remove, Stat and Usage."""

    snapshotter: Annotated[str, 1] = ""
    key: Annotated[str, 2] = ""


class CommitRequest(Message, frozen=True):
    """An active snapshot gets its name; ``parent`` is for those that were prepared without (2.2 and newer)."""

    snapshotter: Annotated[str, 1] = ""
    name: Annotated[str, 2] = ""
    key: Annotated[str, 3] = ""
    labels: Annotated[Mapping[str, str], 4] = field(default_factory=dict)
    parent: Annotated[str, 5] = ""


class SnapshotInfo(Message, frozen=True):
    """A snapshot."""

    name: Annotated[str, 1] = ""
    parent: Annotated[str, 2] = ""
    kind: Annotated[int, 3] = 0
    created_at: Annotated[Timestamp | None, 4] = None
    updated_at: Annotated[Timestamp | None, 5] = None
    labels: Annotated[Mapping[str, str], 6] = field(default_factory=dict)


class SnapshotResponse(Message, frozen=True):
    """Snapshots' answers to Stat and Update."""

    info: Annotated[SnapshotInfo | None, 1] = None


class UpdateSnapshotRequest(Message, frozen=True):
    """Other labels for a snapshot."""

    snapshotter: Annotated[str, 1] = ""
    info: Annotated[SnapshotInfo | None, 2] = None
    update_mask: Annotated[FieldMask | None, 3] = None


class ListSnapshotsRequest(Message, frozen=True):
    """Which snapshots of a snapshotter."""

    snapshotter: Annotated[str, 1] = ""
    filters: Annotated[tuple[str, ...], 2] = ()


class ListSnapshotsResponse(Message, frozen=True):
    """Some snapshots of a stream."""

    info: Annotated[tuple[SnapshotInfo, ...], 1] = ()


class UsageResponse(Message, frozen=True):
    """What a snapshot takes on disk."""

    size: Annotated[int, 1] = 0
    inodes: Annotated[int, 2] = 0


# -- introspection and version --


class Platform(Message, frozen=True):
    """containerd.types.Platform."""

    os: Annotated[str, 1] = ""
    architecture: Annotated[str, 2] = ""
    variant: Annotated[str, 3] = ""


class Plugin(Message, frozen=True):
    """A plugin of containerd, with what it says of itself."""

    type: Annotated[str, 1] = ""
    id: Annotated[str, 2] = ""
    requires: Annotated[tuple[str, ...], 3] = ()
    platforms: Annotated[tuple[Platform, ...], 4] = ()
    exports: Annotated[Mapping[str, str], 5] = field(default_factory=dict)
    capabilities: Annotated[tuple[str, ...], 6] = ()
    init_err: Annotated[RpcStatus | None, 7] = None


class PluginsResponse(Message, frozen=True):
    """All plugins that match."""

    plugins: Annotated[tuple[Plugin, ...], 1] = ()


class ServerResponse(Message, frozen=True):
    """Which containerd this is."""

    uuid: Annotated[str, 1] = ""
    pid: Annotated[int, 2] = 0


class Version(Message, frozen=True):
    """Version's VersionResponse."""

    version: Annotated[str, 1] = ""
    revision: Annotated[str, 2] = ""
