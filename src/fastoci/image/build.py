"""A new image out of a layer: config and manifest as bytes, alone or on top of another image's. Pure.

The same layer on the same base gives the same bytes. What is not changed of a base's config stays, also what nothing
here reads; its layers stay blob for blob, and Docker's media types become OCI's.
Spec: image-spec v1.1 config.md, manifest.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from fastoci.image import mediatype
from fastoci.image.config import ImageConfig
from fastoci.image.convert import kind_of, layer_as
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.manifest import Manifest
from fastoci.image.platform import Platform

_CREATED_BY: Final = "fastoci pack"
_LATEST: Final = 253_402_300_799  # the last second of year 9999


class NewLayer(msgspec.Struct, frozen=True):
    """A layer that an image gets, and when it was made (seconds since 1970); without a blob it changes nothing."""

    blob: Descriptor | None
    diff_id: Digest
    created: int


class BuiltImage(msgspec.Struct, frozen=True):
    """The documents of an image, and all its layers, the lowest first."""

    config: bytes
    manifest: bytes
    layers: tuple[Descriptor, ...]

    @property
    def config_descriptor(self) -> Descriptor:
        """What the manifest says of the config."""
        return Descriptor.of(self.config, mediatype.OCI_CONFIG)


def image_of(layer: NewLayer, platform: Platform) -> BuiltImage:
    """An image of one layer, which says nothing of how it is run."""
    variant = {"variant": platform.variant} if platform.variant else {}
    config = {"architecture": platform.architecture, **variant, "os": platform.os}
    return _build(layer, config, (), {})


def image_on(layer: NewLayer, manifest: Manifest, config: ImageConfig) -> BuiltImage:
    """An image with one layer more than another; without a blob it has one more step in its history."""
    layers = [_of_oci(each) for each in manifest.layers]
    return _build(layer, msgspec.json.decode(config.raw), layers, dict(manifest.annotations))


def _build(
    layer: NewLayer, config: dict[str, Any], base: Sequence[Descriptor], annotations: dict[str, str]
) -> BuiltImage:
    layers = (*base, *([layer.blob] if layer.blob is not None else []))
    created = datetime.fromtimestamp(max(0, min(layer.created, _LATEST)), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    diff_ids = list((config.get("rootfs") or {}).get("diff_ids") or ())
    step: dict[str, object] = {"created": created, "created_by": _CREATED_BY}
    if layer.blob is None:
        step["empty_layer"] = True
    else:
        diff_ids.append(str(layer.diff_id))
    config |= {
        "created": created,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [*_history(config.get("history"), len(base)), step],
    }
    raw = msgspec.json.encode(config)
    document = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": encode(Descriptor.of(raw, mediatype.OCI_CONFIG)),
        "layers": [encode(each) for each in layers],
    }
    if annotations:
        document["annotations"] = annotations
    return BuiltImage(raw, msgspec.json.encode(document), layers)


def _history(given: object, layers: int) -> list[object]:
    """The steps so far: where they are not those of the layers, a step that says nothing for each layer.

    Docker refuses an image whose steps and layers do not match.
    """
    steps = list(given) if isinstance(given, list) else []
    made = sum(1 for step in steps if isinstance(step, dict) and not step.get("empty_layer"))
    return steps if made == layers else [{} for _ in range(layers)]


def _of_oci(layer: Descriptor) -> Descriptor:
    return layer if kind_of(layer) is None else layer_as(layer, "oci")
