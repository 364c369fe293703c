"""What ``inspect`` and ``diff`` print for programs: JSON documents.

These types are their schema: ``docs/inspect.schema.json`` is made of them, docs/inspect.md says what each field is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

import msgspec

from fastoci import Comparison, FieldChange, FileChange, InspectedEntry, InspectedImage, Inspection, LayerPair
from fastoci.cli.file_lines import fields_of

Change = Literal["added", "removed", "changed"]


class OneImage(InspectedImage, frozen=True, kw_only=True):
    """The image of one platform, and what its name leads to: ``fastoci inspect --format json``."""

    name: str
    digest: str
    media_type: str
    entries: tuple[InspectedEntry, ...]


class AllImages(msgspec.Struct, frozen=True, kw_only=True):
    """The images of all platforms: with ``--all``."""

    name: str
    digest: str
    media_type: str
    entries: tuple[InspectedEntry, ...]
    images: tuple[InspectedImage, ...]


class DocumentTree(msgspec.Struct, frozen=True, kw_only=True):
    """A document, and what it names: with ``--tree``. ``image`` is what a manifest says, where it was looked at."""

    media_type: str
    digest: str
    size: int
    platform: str = ""
    artifact_type: str = ""
    annotations: Mapping[str, str] = {}
    entries: tuple[DocumentTree, ...] = ()
    image: InspectedImage | None = None


class ComparedSide(msgspec.Struct, frozen=True, kw_only=True):
    """One of the images that were compared."""

    name: str
    manifest: str
    platform: str


class ChangedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that differs; ``left`` and ``right`` are as of ``fastoci ls --format json``, null where it is not."""

    path: str
    change: Change
    facets: tuple[str, ...]
    left: Mapping[str, object] | None
    right: Mapping[str, object] | None


class ComparisonDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What differs: ``fastoci diff --format json``. ``files`` are null when nobody asked for them."""

    left: ComparedSide
    right: ComparedSide
    fields: tuple[FieldChange, ...]
    layers: tuple[LayerPair, ...]
    is_reordered: bool
    files: tuple[ChangedFile, ...] | None


def one_image(inspection: Inspection) -> OneImage:
    """The document of the only image."""
    fields = {name: getattr(inspection.images[0], name) for name in InspectedImage.__struct_fields__}
    names = {name: getattr(inspection, name) for name in ("name", "digest", "media_type", "entries")}
    return OneImage(**fields, **names)


def all_images(inspection: Inspection) -> AllImages:
    """The document of all images."""
    return AllImages(**{name: getattr(inspection, name) for name in AllImages.__struct_fields__})


def document_tree(inspection: Inspection) -> DocumentTree:
    """The document of the tree."""
    images = {image.manifest.digest: image for image in inspection.images}

    def node(each: InspectedEntry | Inspection) -> DocumentTree:
        fields = {name: getattr(each, name) for name in ("media_type", "digest", "size")}
        if isinstance(each, InspectedEntry):
            fields |= {name: getattr(each, name) for name in ("platform", "artifact_type", "annotations")}
        return DocumentTree(**fields, entries=tuple(map(node, each.entries)), image=images.get(each.digest))

    return node(inspection)


def comparison_document(comparison: Comparison, names: tuple[str, str], *, files: bool) -> ComparisonDocument:
    """The document of a comparison, with no file in it yet."""
    left, right = (
        ComparedSide(name=name, manifest=image.manifest.digest, platform=image.platform)
        for name, image in zip(names, (comparison.left, comparison.right), strict=True)
    )
    return ComparisonDocument(
        left=left,
        right=right,
        fields=comparison.fields,
        layers=comparison.layers,
        is_reordered=comparison.is_reordered,
        files=() if files else None,
    )


def changed_file(change: FileChange) -> ChangedFile:
    """The document of one file that differs."""
    left, right = (None if file is None else fields_of(file) for file in (change.left, change.right))
    return ChangedFile(path=change.path, change=change.change, facets=change.facets, left=left, right=right)


def builtins(value: object) -> object:
    """A document as plain values; what names it comes first."""
    made = msgspec.json.decode(msgspec.json.encode(value))
    return {**{name: made[name] for name in ("name", "digest", "media_type") if name in made}, **made}


def as_json(value: object) -> str:
    """As JSON, also for people: all but ASCII is escaped, as a label may move the cursor or turn text around."""
    return json.dumps(value, indent=2)
