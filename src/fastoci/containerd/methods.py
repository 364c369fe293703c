"""The names of containerd's methods, as they are called. ``messages`` has what they take and give.

Spec: containerd API v1; gRPC over HTTP/2, "Path".
"""

from __future__ import annotations

from typing import Final

VERSION: Final = "/containerd.services.version.v1.Version/Version"  # Empty -> Version

_INTROSPECTION: Final = "/containerd.services.introspection.v1.Introspection"
PLUGINS: Final = f"{_INTROSPECTION}/Plugins"  # FiltersRequest -> PluginsResponse
SERVER: Final = f"{_INTROSPECTION}/Server"  # Empty -> ServerResponse

NAMESPACE_LIST: Final = "/containerd.services.namespaces.v1.Namespaces/List"  # FiltersRequest -> ListNamespacesResponse

_DIFF: Final = "/containerd.services.diff.v1.Diff"
APPLY: Final = f"{_DIFF}/Apply"  # ApplyRequest -> ApplyResponse
DIFF: Final = f"{_DIFF}/Diff"  # DiffRequest -> DiffResponse

_CONTENT: Final = "/containerd.services.content.v1.Content"
CONTENT_INFO: Final = f"{_CONTENT}/Info"  # NameRequest -> InfoResponse
CONTENT_UPDATE: Final = f"{_CONTENT}/Update"  # UpdateContentRequest -> InfoResponse
CONTENT_LIST: Final = f"{_CONTENT}/List"  # FiltersRequest -> stream of ListContentResponse
CONTENT_DELETE: Final = f"{_CONTENT}/Delete"  # NameRequest -> Empty
CONTENT_READ: Final = f"{_CONTENT}/Read"  # ReadRequest -> stream of ReadResponse
CONTENT_STATUS: Final = f"{_CONTENT}/Status"  # NameRequest -> StatusResponse
CONTENT_STATUSES: Final = f"{_CONTENT}/ListStatuses"  # FiltersRequest -> ListStatusesResponse
CONTENT_WRITE: Final = f"{_CONTENT}/Write"  # stream of WriteRequest -> stream of WriteResponse
CONTENT_ABORT: Final = f"{_CONTENT}/Abort"  # NameRequest -> Empty

_LEASES: Final = "/containerd.services.leases.v1.Leases"
LEASE_CREATE: Final = f"{_LEASES}/Create"  # CreateLeaseRequest -> LeaseResponse
LEASE_DELETE: Final = f"{_LEASES}/Delete"  # DeleteLeaseRequest -> Empty
LEASE_LIST: Final = f"{_LEASES}/List"  # FiltersRequest -> ListLeasesResponse
LEASE_ADD: Final = f"{_LEASES}/AddResource"  # LeaseResourceRequest -> Empty
LEASE_TAKE: Final = f"{_LEASES}/DeleteResource"  # LeaseResourceRequest -> Empty
LEASE_RESOURCES: Final = f"{_LEASES}/ListResources"  # NameRequest -> ListResourcesResponse

_IMAGES: Final = "/containerd.services.images.v1.Images"
IMAGE_GET: Final = f"{_IMAGES}/Get"  # NameRequest -> ImageResponse
IMAGE_LIST: Final = f"{_IMAGES}/List"  # FiltersRequest -> ListImagesResponse
IMAGE_CREATE: Final = f"{_IMAGES}/Create"  # CreateImageRequest -> ImageResponse
IMAGE_UPDATE: Final = f"{_IMAGES}/Update"  # UpdateImageRequest -> ImageResponse
IMAGE_DELETE: Final = f"{_IMAGES}/Delete"  # DeleteImageRequest -> Empty

_SNAPSHOTS: Final = "/containerd.services.snapshots.v1.Snapshots"
SNAPSHOT_PREPARE: Final = f"{_SNAPSHOTS}/Prepare"  # PrepareRequest -> MountsResponse
SNAPSHOT_VIEW: Final = f"{_SNAPSHOTS}/View"  # PrepareRequest -> MountsResponse
SNAPSHOT_MOUNTS: Final = f"{_SNAPSHOTS}/Mounts"  # SnapshotRequest -> MountsResponse
SNAPSHOT_COMMIT: Final = f"{_SNAPSHOTS}/Commit"  # CommitRequest -> Empty
SNAPSHOT_REMOVE: Final = f"{_SNAPSHOTS}/Remove"  # SnapshotRequest -> Empty
SNAPSHOT_STAT: Final = f"{_SNAPSHOTS}/Stat"  # SnapshotRequest -> SnapshotResponse
SNAPSHOT_UPDATE: Final = f"{_SNAPSHOTS}/Update"  # UpdateSnapshotRequest -> SnapshotResponse
SNAPSHOT_LIST: Final = f"{_SNAPSHOTS}/List"  # ListSnapshotsRequest -> stream of ListSnapshotsResponse
SNAPSHOT_USAGE: Final = f"{_SNAPSHOTS}/Usage"  # SnapshotRequest -> UsageResponse
SNAPSHOT_CLEANUP: Final = f"{_SNAPSHOTS}/Cleanup"  # NameRequest -> Empty
