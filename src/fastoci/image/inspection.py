"""What an image says of itself, for people and programs: its documents as one value, which JSON has field by field.

Nothing here refuses an image: what its config says wrong is a ``problem``, and the rest is shown. Pure.
Spec: image-spec v1.1 config.md, manifest.md, image-index.md; docs/inspect.md for the JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from fastoci.errors import FormatError
from fastoci.image import document, mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.manifest import Manifest
from fastoci.image.platform import Platform

_CONFIG: Final = "config"


class InspectedBlob(msgspec.Struct, frozen=True, kw_only=True):
    """A document or blob that an image names."""

    media_type: str
    digest: str
    size: int


class InspectedLayer(InspectedBlob, frozen=True, kw_only=True):
    """A layer, and the step of the history that made it; empty texts where the config does not say.

    ``annotations`` are the descriptor's: of an artifact they name the file. ``entries`` is how many its tar has; None
    where nobody counted.
    """

    annotations: Mapping[str, str] = {}
    diff_id: str = ""
    created: str = ""
    created_by: str = ""
    comment: str = ""
    entries: int | None = None


class InspectedImage(msgspec.Struct, frozen=True, kw_only=True):
    """The image of one platform, or an artifact.

    ``config`` is how a container is run, as the image has it (``Env``, ``Cmd``, ...); ``config_blob`` the document that
    says so. ``size`` is of config and layers, as they are transferred.
    """

    platform: str
    manifest: InspectedBlob
    config_blob: InspectedBlob
    size: int
    layers: tuple[InspectedLayer, ...]
    created: str = ""
    author: str = ""
    artifact_type: str = ""
    subject: str = ""
    annotations: Mapping[str, str] = {}
    config: Mapping[str, object] = {}
    history: tuple[object, ...] = ()
    problems: tuple[str, ...] = ()


class InspectedEntry(InspectedBlob, frozen=True, kw_only=True):
    """An entry of an index; ``entries`` are those of an index in it, as far as that was read."""

    platform: str = ""
    artifact_type: str = ""
    annotations: Mapping[str, str] = {}
    entries: tuple[InspectedEntry, ...] = ()


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What a name leads to: one manifest, or an index with its ``entries``, and the images that were looked at.

    ``digest``, ``media_type`` and ``size`` are of the document that the name leads to. ``documents`` are the exact
    bytes of this one, and of the manifests and configs of the images, by their digests.
    """

    name: str
    media_type: str
    digest: str
    size: int
    entries: tuple[InspectedEntry, ...]
    images: tuple[InspectedImage, ...]
    documents: Mapping[str, bytes] = msgspec.field(default_factory=dict)


def inspect_image(
    descriptor: Descriptor,
    manifest: Manifest,
    config: bytes,
    *,
    platform: Platform | None,
    entries: Mapping[Digest, int] = {},
    problems: Sequence[str] = (),
) -> InspectedImage:
    """Put together what manifest and config say.

    Args:
        config: its bytes; those of an artifact are not read. Of Docker's schema 1 the config that it becomes.
        platform: as an index has it.
        entries: of the tars of layers, as far as they are counted.
        problems: what else is wrong.
    """
    wrong: list[str] = []
    is_outline = manifest.media_type in mediatype.SCHEMA1  # which is its own config, and no blob
    is_image = manifest.is_image or is_outline
    blobs = manifest.layers if is_outline else (manifest.config, *manifest.layers)
    said = _config(config, wrong) if is_image else {}
    run, history = said.get("config"), said.get("history")
    steps = tuple(history) if isinstance(history, list) else ()
    return InspectedImage(
        platform=str(platform or _platform(said) or ""),
        manifest=blob_of(descriptor),
        config_blob=blob_of(manifest.config),
        size=sum({blob.digest: blob.size for blob in blobs}.values()),
        layers=_layers(manifest.layers, steps, _diff_ids(said), entries, wrong),
        created=_text(said.get("created")),
        author=_text(said.get("author")),
        artifact_type=manifest.artifact_type or ("" if is_image else manifest.config.media_type),
        subject="" if manifest.subject is None else str(manifest.subject.digest),
        annotations=manifest.annotations,
        config=run if isinstance(run, dict) else {},
        history=steps,
        problems=(*wrong, *problems),
    )


def blob_of(descriptor: Descriptor) -> InspectedBlob:
    """The essence of a descriptor."""
    return InspectedBlob(media_type=descriptor.media_type, digest=str(descriptor.digest), size=descriptor.size)


def entry_of(descriptor: Descriptor, entries: Sequence[InspectedEntry] = ()) -> InspectedEntry:
    """An entry of an index, with those of the index that it leads to."""
    return InspectedEntry(
        media_type=descriptor.media_type,
        digest=str(descriptor.digest),
        size=descriptor.size,
        platform=str(descriptor.platform or ""),
        artifact_type=descriptor.artifact_type,
        annotations=descriptor.annotations,
        entries=tuple(entries),
    )


def _config(data: bytes, problems: list[str]) -> dict[str, object]:
    try:
        return document.decode(data, dict[str, object], what=_CONFIG)
    except FormatError as error:
        problems.append(error.message)
        return {}


def _platform(said: Mapping[str, object]) -> Platform | None:
    os, architecture, variant = (_text(said.get(name)) for name in ("os", "architecture", "variant"))
    return Platform(os, architecture, variant).normalised() if os and architecture else None


def _diff_ids(said: Mapping[str, object]) -> list[str]:
    rootfs = said.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    return [_text(each) for each in found] if isinstance(found, list) else []


def _layers(
    layers: Sequence[Descriptor],
    history: Sequence[object],
    diff_ids: Sequence[str],
    entries: Mapping[Digest, int],
    problems: list[str],
) -> tuple[InspectedLayer, ...]:
    """The layers with their steps; where numbers do not match, nobody knows which step is of which layer."""
    steps = [step for step in history if isinstance(step, dict) and not step.get("empty_layer")]
    if diff_ids and len(diff_ids) != len(layers):
        problems.append(f"{_CONFIG}: the manifest has {len(layers)} layers, the config {len(diff_ids)} diff_ids")
    if steps and len(steps) != len(layers):
        problems.append(f"{_CONFIG}: the manifest has {len(layers)} layers, the history has steps for {len(steps)}")
    found = []
    for number, layer in enumerate(layers):
        step = steps[number] if len(steps) == len(layers) else {}
        found.append(
            InspectedLayer(
                media_type=layer.media_type,
                digest=str(layer.digest),
                size=layer.size,
                annotations=layer.annotations,
                diff_id=diff_ids[number] if len(diff_ids) == len(layers) else "",
                created=_text(step.get("created")),
                created_by=_text(step.get("created_by")),
                comment=_text(step.get("comment")),
                entries=entries.get(layer.digest),
            )
        )
    return tuple(found)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
