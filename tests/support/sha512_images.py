"""An image whose every digest is of sha512: index, manifest, config, layer and diff_id."""

from __future__ import annotations

import gzip
import json

from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry

_LAYER = Layer.build([Entry("file", "file", b"content")]).content
assert isinstance(_LAYER, bytes)


def _of(data: bytes, media_type: str) -> Descriptor:
    return Descriptor(media_type, Digest.of(data, "sha512"), len(data))


def _json(document: dict[str, object]) -> bytes:
    return json.dumps(document).encode()


PLATFORM = {"os": "linux", "architecture": "amd64"}
LAYER = _LAYER, _of(_LAYER, mediatype.OCI_LAYER_GZIP)
_CONFIG = _json(
    {**PLATFORM, "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(gzip.decompress(_LAYER), "sha512"))]}}
)
CONFIG = _CONFIG, _of(_CONFIG, mediatype.OCI_CONFIG)
_MANIFEST = _json(
    {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": encode(CONFIG[1]),
        "layers": [encode(LAYER[1])],
    }
)
MANIFEST = _MANIFEST, _of(_MANIFEST, mediatype.OCI_MANIFEST)
_INDEX = _json(
    {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_INDEX,
        "manifests": [{**encode(MANIFEST[1]), "platform": PLATFORM}],
    }
)
INDEX = _INDEX, _of(_INDEX, mediatype.OCI_INDEX)
DIGESTS = {str(descriptor.digest) for _, descriptor in (INDEX, MANIFEST, CONFIG, LAYER)}


def serve(registry: Registry, name: str = "long") -> str:
    """Serve it; the name by which it is pulled by its digest."""
    for data, descriptor in (LAYER, CONFIG):
        registry.add_blob(str(descriptor.digest), data)
    for data, descriptor in (MANIFEST, INDEX):
        registry.add_manifest(name, str(descriptor.digest), descriptor.media_type, data)
    registry.add_manifest(name, "latest", INDEX[1].media_type, _INDEX, digest=str(INDEX[1].digest))
    return f"{registry.address}/{name}@{INDEX[1].digest}"
