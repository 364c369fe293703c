"""The documents of an image whose layers are devices of one EROFS file: a draft, which may change.

The layers of an ordinary image stay as they are, and are said to be devices; one more layer has the metadata that
points into their tars. The config is the image's with one more diff_id. An index lists the ordinary manifest first, for
all who know nothing of EROFS.

Spec: erofs-image-spec (draft), 2.3 annotations, 2.4 "device", 3.8 layer ordering, 5 image configuration, 6 image index.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from fastoci.errors import UnsupportedError
from fastoci.image import mediatype
from fastoci.image.config import ImageConfig
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.manifest import Manifest
from fastoci.image.mediatype import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from fastoci.image.platform import Platform

METADATA: Final = "application/vnd.erofs+zstd"
FEATURE: Final = "erofs"  # of ``os.features``: who does not know it leaves the manifest alone
_ROLE: Final = "org.erofs.role"
_UNCOMPRESSED: Final = "org.erofs.uncompressed-digest"
# The suffix of a device's type says how it is compressed, which Docker's own types have no way to say.
_DEVICES: Final = {
    **{each: each for each in (mediatype.OCI_LAYER, mediatype.OCI_LAYER_GZIP, mediatype.OCI_LAYER_ZSTD)},
    mediatype.DOCKER_LAYER: mediatype.OCI_LAYER,
    mediatype.DOCKER_LAYER_GZIP: mediatype.OCI_LAYER_GZIP,
    mediatype.DOCKER_LAYER_ZSTD: mediatype.OCI_LAYER_ZSTD,
}

Document = tuple[Descriptor, bytes]


class ErofsImage(msgspec.Struct, frozen=True):
    """The documents beside the ordinary ones; each names what is before it."""

    config: Document
    manifest: Document
    index: Document


def erofs_image(
    ordinary: Descriptor, manifest: Manifest, config: ImageConfig, metadata: Descriptor, uncompressed: Digest
) -> ErofsImage:
    """Describe an image by merged metadata.

    Args:
        ordinary: the image's own manifest, with its platform.
        metadata: the blob, compressed; ``uncompressed`` is the digest of what is in it.
    Raises:
        UnsupportedError: a layer is of a type that says nothing of its compression, or may not be distributed.
    """
    assert ordinary.platform is not None
    platform = with_feature(ordinary.platform)
    new_config = _described(_config(config, uncompressed), OCI_CONFIG)
    devices = [_device(layer) for layer in manifest.layers]
    named = replace(metadata, annotations={_UNCOMPRESSED: str(uncompressed)})
    new_manifest = _described(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": encode(new_config[0]),
            "layers": [encode(layer) for layer in (*devices, named)],
            **({"annotations": dict(manifest.annotations)} if manifest.annotations else {}),
        },
        OCI_MANIFEST,
    )
    entries = (replace(ordinary, data=None), replace(new_manifest[0], platform=platform))
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [encode(entry) for entry in entries]}
    return ErofsImage(new_config, new_manifest, _described(index, OCI_INDEX))


def _device(layer: Descriptor) -> Descriptor:
    media_type = _DEVICES.get(layer.media_type)
    if media_type is None:
        raise UnsupportedError(f"layer {layer.digest} is a {layer.media_type}, which cannot be a device")
    return replace(layer, media_type=media_type, annotations={**layer.annotations, _ROLE: "device"})


def with_feature(platform: Platform) -> Platform:
    """A platform that demands EROFS."""
    features = tuple(dict.fromkeys((*platform.os_features, FEATURE)))
    return msgspec.structs.replace(platform, os_features=features)


def _config(config: ImageConfig, uncompressed: Digest) -> dict[str, Any]:
    """The config as it is, with the feature and one more layer."""
    document: dict[str, Any] = json.loads(config.raw)
    features = document.get("os.features")
    document["os.features"] = list(dict.fromkeys((*(features if isinstance(features, list) else ()), FEATURE)))
    diff_ids = [*map(str, config.diff_ids), str(uncompressed)]
    document["rootfs"] = {**(document.get("rootfs") or {}), "type": "layers", "diff_ids": diff_ids}
    if isinstance(document.get("history"), list):
        document["history"].append({"created_by": "fastoci publish", "comment": "metadata of all layers, as EROFS"})
    return document


def _described(document: Mapping[str, object], media_type: str) -> Document:
    data = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return Descriptor.of(data, media_type), data
