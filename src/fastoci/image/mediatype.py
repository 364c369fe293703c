"""The media types that have a meaning here; all others are moved untouched.

Spec: image-spec v1.1 media-types.md; Docker image manifest version 2, schemas 1 and 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

Compression = Literal["none", "gzip", "zstd"]  # of a layer

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"

DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"

OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_FOREIGN: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_FOREIGN_GZIP: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_FOREIGN_ZSTD: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"

DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD: Final = "application/vnd.docker.image.rootfs.diff.tar.zstd"  # BuildKit's own
DOCKER_FOREIGN: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
DOCKER_FOREIGN_GZIP: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

# What pushers wrote for the config or a layer of an image before there were types, or by mistake. The bytes tell.
_UNTYPED_CONFIGS: Final = ("", "application/octet-stream", "application/json", "text/html")
_UNTYPED_LAYERS: Final = (
    "",
    "application/octet-stream",
    "application/gzip",
    "application/x-gzip",
    "application/x-tar",
    "application/zstd",
    "application/vnd.docker.container.image.rootfs.diff+x-gtar",
    "application/vnd.oci.image.layer.v1.tar.gzip",
    "application/vnd.oci.image.layer.v1.tar.zstd",
)

INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIGS: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG, *_UNTYPED_CONFIGS})
FOREIGN: Final = frozenset({OCI_FOREIGN, OCI_FOREIGN_GZIP, OCI_FOREIGN_ZSTD, DOCKER_FOREIGN, DOCKER_FOREIGN_GZIP})
SCHEMA1: Final = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})
LAYERS: Final = frozenset(
    {
        OCI_LAYER,
        OCI_LAYER_GZIP,
        OCI_LAYER_ZSTD,
        DOCKER_LAYER,
        DOCKER_LAYER_GZIP,
        DOCKER_LAYER_ZSTD,
        *FOREIGN,
        *_UNTYPED_LAYERS,
    }
)

# Without schema 1 in the list a registry that holds nothing else answers 404; with it, the answer can say what it is.
ACCEPT: Final = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, DOCKER_SCHEMA1_SIGNED, DOCKER_SCHEMA1)

COMPRESSIONS: Final[Mapping[str, Compression]] = {
    OCI_LAYER: "none",
    OCI_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
    OCI_FOREIGN: "none",
    OCI_FOREIGN_GZIP: "gzip",
    OCI_FOREIGN_ZSTD: "zstd",
    DOCKER_LAYER: "none",
    DOCKER_LAYER_GZIP: "gzip",
    DOCKER_LAYER_ZSTD: "zstd",
    DOCKER_FOREIGN: "none",
    DOCKER_FOREIGN_GZIP: "gzip",
}


def lie_of(media_type: str, compression: Compression) -> str:
    """What is wrong with the type of a layer whose bytes are known; empty when nothing is, and when it says nothing."""
    said = COMPRESSIONS.get(media_type, compression)
    if said == compression:
        return ""
    texts = ("a plain tar" if each == "none" else each for each in (said, compression))
    return "is said to be {} and is {}: it is read as what it is".format(*texts)
