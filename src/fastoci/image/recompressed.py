"""The manifest of an image whose layers were compressed anew: the same tars in other blobs. Pure.

What is not of a layer's bytes stays, also what nothing here reads. Spec: image-spec v1.1 manifest.md; Docker image
manifest version 2, schema 2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from fastoci.image import manifest as manifests
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.manifest import Manifest

# What eStargz and zstd:chunked say of a layer: digests and offsets of bytes of the blob.
_OF_BYTES: Final = (
    "containerd.io/snapshot/stargz/",
    "io.containers.estargz.",
    "io.containers.zstd-chunked.",
    "io.github.containers.zstd-chunked.",
)
_COMPRESSED: Final = {
    mediatype.OCI_LAYER_GZIP: "gzip",
    mediatype.DOCKER_LAYER_GZIP: "gzip",
    mediatype.OCI_FOREIGN_GZIP: "gzip",
    mediatype.DOCKER_FOREIGN_GZIP: "gzip",
    mediatype.OCI_LAYER_ZSTD: "zstd",
    mediatype.DOCKER_LAYER_ZSTD: "zstd",
    mediatype.OCI_FOREIGN_ZSTD: "zstd",
}


def compression_of(layer: Descriptor) -> str:
    """``gzip`` or ``zstd``: how a layer is compressed anew, which was compressed before."""
    return _COMPRESSED.get(layer.media_type, "gzip")


def with_blobs(manifest: Manifest, blobs: Mapping[Digest, Descriptor]) -> Manifest:
    """An image's manifest with other blobs for some of its layers.

    Args:
        blobs: by the digests of those that they replace, each compressed as ``compression_of`` says.
    """
    document: dict[str, Any] = json.loads(manifest.raw)
    for layer, form in zip(manifest.layers, document.get("layers") or (), strict=True):
        if (blob := blobs.get(layer.digest)) is not None:
            new = encode(_described(layer, blob, manifest.media_type))
            for name in ("data", "urls", "annotations"):
                form.pop(name, None)
            form |= new
    data = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return manifests.parse(data, manifest.media_type)


def _described(layer: Descriptor, blob: Descriptor, media_type: str) -> Descriptor:
    """What is said of a blob in place of another."""
    kind = layer.media_type
    if kind not in _COMPRESSED:
        kind = mediatype.DOCKER_LAYER_GZIP if media_type == mediatype.DOCKER_MANIFEST else mediatype.OCI_LAYER_GZIP
    told = {name: text for name, text in layer.annotations.items() if not name.startswith(_OF_BYTES)}
    return replace(layer, media_type=kind, digest=blob.digest, size=blob.size, urls=(), annotations=told, data=None)
