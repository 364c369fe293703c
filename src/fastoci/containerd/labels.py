"""What containerd's labels, refs and keys say, and how they are written. Pure.

Spec: containerd, ``docs/garbage-collection.md``; refs ``core/remotes/handlers.go``, keys ``core/unpack/unpacker.go``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest

SIZE: Final = 4096  # bytes of a label's key and value together

EXPIRE: Final = "containerd.io/gc.expire"  # of a lease, RFC 3339
ROOT: Final = "containerd.io/gc.root"  # of content and snapshots: never collected; any value
CONFIG_REF: Final = "containerd.io/gc.ref.content.config"  # of a manifest
_CONTENT_REF: Final = "containerd.io/gc.ref.content"
_SNAPSHOT_REF: Final = "containerd.io/gc.ref.snapshot"
_SOURCE: Final = "containerd.io/distribution.source"
UNCOMPRESSED: Final = "containerd.io/uncompressed"  # of a layer: its diff_id

TARGET_CHAIN: Final = "containerd.io/snapshot.ref"  # of Prepare: the ChainID that the snapshot will be
DIFF_ID: Final = "containerd.io/snapshot/diff-id"  # of snapshots, 2.2 and newer
PARENT_CHAIN: Final = "containerd.io/snapshot/parent-chain-id"

CRI_NAMESPACE: Final = "k8s.io"
CRI_PINNED: Final = "io.cri-containerd.pinned"  # of an image
PINNED: Final = "pinned"  # its value

_NAME: Final = "org.opencontainers.image.ref.name"  # an annotation
_CHECKPOINT_CONFIG: Final = "application/vnd.containerd.container.checkpoint.config.v1+proto"
_CONFIGS: Final = frozenset({mediatype.OCI_CONFIG, mediatype.DOCKER_CONFIG, _CHECKPOINT_CONFIG})
_OCI_LAYERS: Final = "application/vnd.oci.image.layer."
_DOCKER_LAYERS: Final = frozenset(kind for kind in mediatype.LAYERS if kind.startswith("application/vnd.docker.image."))


def fits(key: str, value: str) -> bool:
    """Whether containerd takes a label."""
    return len(key.encode()) + len(value.encode()) <= SIZE


def mask(labels: Iterable[str]) -> tuple[str, ...]:
    """The paths that an Update names, so that it changes these labels and no others."""
    return tuple(f"labels.{key}" for key in labels)


def expiry(moment: datetime) -> dict[str, str]:
    """The label of a lease that ends by itself."""
    return {EXPIRE: moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}


def ref(descriptor: Descriptor) -> str:
    """The ref under which containerd itself fetches this content: whoever has it open is waited for, not doubled."""
    kind = descriptor.media_type
    if kind in mediatype.MANIFESTS:
        word = "manifest"
    elif kind in mediatype.INDEXES:
        word = "index"
    elif _is_layer(kind):
        word = "layer"
    elif kind in _CONFIGS:
        word = "config"
    else:
        word = "unknown"
    name = descriptor.annotations.get(_NAME)
    return f"{word}-{descriptor.digest}" if name is None else f"{word}-{name}@{descriptor.digest}"


def children(descriptors: Iterable[Descriptor]) -> dict[str, str]:
    """The labels of a manifest or index that keep its children, in the order of the document.

    Only of those that are in the content store: containerd's gc takes a label for what is absent as it is.
    """
    found: dict[str, str] = {}
    counts = Counter[str]()
    for each in descriptors:
        key = _child(each.media_type)
        number = counts[key]
        counts[key] += 1
        found[f"{key}{number}" if number or key.endswith(".") else key] = str(each.digest)
    return found


def _child(kind: str) -> str:
    if kind in _CONFIGS:
        return CONFIG_REF
    if kind in mediatype.MANIFESTS:
        return f"{_CONTENT_REF}.m."
    return f"{_CONTENT_REF}.l." if _is_layer(kind) else f"{_CONTENT_REF}."


def _is_layer(kind: str) -> bool:
    return kind.startswith(_OCI_LAYERS) or kind.partition("+")[0] in _DOCKER_LAYERS


def keeps_snapshot(snapshotter: str, chain_id: Digest) -> dict[str, str]:
    """The label of a config that keeps the snapshots of its image."""
    return {f"{_SNAPSHOT_REF}.{snapshotter}": str(chain_id)}


def source(host: str, repository: str, known: Mapping[str, str]) -> dict[str, str]:
    """The label of a blob that says which repositories have it, those of its ``known`` labels too; none when too long.

    Args:
        host: of the registry, without its port.
    """
    key = f"{_SOURCE}.{host}"
    before = known.get(key, "")
    value = ",".join(sorted({*(before.split(",") if before else ()), repository}))
    return {key: value} if fits(key, value) else {}


def changes(known: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Which of the labels that are wanted have to be set beside those that are known; sources are joined."""
    found: dict[str, str] = {}
    for key, value in wanted.items():
        if key.startswith(f"{_SOURCE}."):
            found |= source(key.removeprefix(f"{_SOURCE}."), value, known)
        else:
            found[key] = value
    return {key: value for key, value in found.items() if known.get(key) != value}


def extract_key(chain_id: Digest, unique: str) -> str:
    """The key of a snapshot while its layer becomes files; ``unique`` tells two that make the same one apart."""
    return f"extract-{unique} {chain_id}"


def extraction(diff_id: Digest, chain_id: Digest, parent: Digest | None) -> dict[str, str]:
    """The labels of such a snapshot. With the first, Prepare answers that it exists when the layer is there."""
    labels = {TARGET_CHAIN: str(chain_id), DIFF_ID: str(diff_id)}
    return labels if parent is None else {**labels, PARENT_CHAIN: str(parent)}
