"""What differs between two images by their documents: fields, and layers. Pure.

Layers are the same when their blobs are, or their tars (``diff_id``), whatever these are compressed with. What a config
says of the making of layers (``rootfs``, ``history``) is told with them.
Spec: docs/inspect.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import msgspec

from fastoci.errors import FormatError
from fastoci.image import document
from fastoci.image.inspection import InspectedImage, InspectedLayer

_ELSEWHERE: Final = frozenset({"rootfs", "history", "os", "architecture", "variant"})  # with layers, and the platform
_PLAIN: Final = re.compile(r"[^.\[\]'\"*\s]+")


class FieldChange(msgspec.Struct, frozen=True, kw_only=True):
    """A field of config or manifest that differs, and its values; None where it is not there, or null."""

    path: str
    left: object
    right: object


class LayerPair(msgspec.Struct, frozen=True, kw_only=True):
    """A layer of both images; or of one, then the other is None."""

    left: InspectedLayer | None
    right: InspectedLayer | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between the documents of two images.

    ``layers`` are those of both, then those of the left alone, then those of the right. ``is_reordered``: those of both
    are not in the same order.
    """

    left: InspectedImage
    right: InspectedImage
    fields: tuple[FieldChange, ...]
    layers: tuple[LayerPair, ...]
    is_reordered: bool

    @property
    def has_same_layers(self) -> bool:
        """Whether both are made of the same layers in the same order: then all files are the same."""
        return not self.is_reordered and all(pair.left and pair.right for pair in self.layers)

    @property
    def is_same(self) -> bool:
        """Whether nothing differs."""
        return not self.fields and self.has_same_layers


def compare_images(left: InspectedImage, right: InspectedImage, configs: tuple[bytes, bytes]) -> Comparison:
    """Compare the documents of two images.

    Args:
        configs: of both.
    """
    both = list(_matches(left.layers, right.layers))
    mine, others = {number for number, _ in both}, {number for _, number in both}
    alone = [LayerPair(left=layer, right=None) for number, layer in enumerate(left.layers) if number not in mine]
    alone += [LayerPair(left=None, right=layer) for number, layer in enumerate(right.layers) if number not in others]
    return Comparison(
        left=left,
        right=right,
        fields=tuple(_changes("", _fields(left, configs[0]), _fields(right, configs[1]))),
        layers=(*(LayerPair(left=left.layers[one], right=right.layers[two]) for one, two in both), *alone),
        is_reordered=[two for _, two in both] != sorted(others),
    )


def _matches(left: tuple[InspectedLayer, ...], right: tuple[InspectedLayer, ...]) -> Iterator[tuple[int, int]]:
    """The numbers of layers that are the same, each once, in the order of the left."""
    places: dict[str, list[int]] = {}
    for number in reversed(range(len(right))):
        for name in _names(right[number]):
            places.setdefault(name, []).append(number)
    used: set[int] = set()
    for number, layer in enumerate(left):
        for name in _names(layer):
            here = places.get(name, [])
            while here and here[-1] in used:
                here.pop()
            if here:
                used.add(here[-1])
                yield number, here.pop()
                break


def _names(layer: InspectedLayer) -> set[str]:
    return {layer.digest, layer.diff_id} - {""}


def _fields(image: InspectedImage, config: bytes) -> dict[str, object]:
    """What is compared: the config's own fields, and those of the manifest."""
    said: dict[str, object] = {"config_blob": msgspec.to_builtins(image.config_blob)}
    if not image.artifact_type:
        with suppress(FormatError):
            said = document.decode(config, dict[str, object], what="config")
    return {name: value for name, value in said.items() if name not in _ELSEWHERE} | {
        "platform": image.platform or None,
        "manifest": {"media_type": image.manifest.media_type},
        "artifact_type": image.artifact_type or None,
        "subject": image.subject or None,
        "annotations": dict(image.annotations),
    }


def _changes(path: str, left: object, right: object) -> Iterator[FieldChange]:
    """What differs below a path. What is absent, null, empty, 0 or false is the same to those that read configs."""
    if not left and not right:
        return
    if isinstance(left, dict | None) and isinstance(right, dict | None):
        mine, others = left or {}, right or {}
        for name in sorted(mine.keys() | others.keys()):
            yield from _changes(_below(path, name), mine.get(name), others.get(name))
    elif type(left) is not type(right) or left != right:
        yield FieldChange(path=path, left=left, right=right)


def _below(path: str, name: str) -> str:
    if _PLAIN.fullmatch(name):
        return f"{path}.{name}" if path else name
    quote = '"' if "'" in name else "'"
    return f"{path}[{quote}{name}{quote}]"
