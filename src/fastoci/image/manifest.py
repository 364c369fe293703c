"""Image manifests: a config and layers in order. Bytes to frozen values.

The media type that the bytes came with decides how they are read, never their content; a body that says otherwise, or
that could be read as something else (CVE-2021-41190), is refused. How many layers are too many is not decided here.

Spec: image-spec v1.1 manifest.md; Docker image manifest version 2, schema 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from fastoci.errors import FormatError, UnsupportedError
from fastoci.image import document, mediatype
from fastoci.image.descriptor import AnnotationsForm, Descriptor, DescriptorForm, annotations_of, check_sizes, values

_WHAT: Final = "manifest"


class Manifest(msgspec.Struct, frozen=True):
    """One image, or an artifact in the form of one. ``raw`` are the bytes that its digest covers."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    subject: Descriptor | None
    artifact_type: str
    raw: bytes

    @property
    def is_image(self) -> bool:
        """Whether the config is of an image, by its type; else the manifest is an artifact."""
        return self.config.media_type in mediatype.CONFIGS


class _Form(msgspec.Struct, frozen=True, rename="camel"):
    config: DescriptorForm
    schema_version: Literal[2] | None = None
    layers: tuple[DescriptorForm, ...] | None = None  # Go writes null for none
    media_type: str | None = None
    annotations: AnnotationsForm = None
    subject: DescriptorForm | None = None
    artifact_type: str | None = None
    # Named so that other spellings of them are refused; ``check_kind`` refuses these themselves.
    manifests: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    fs_layers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Outline(msgspec.Struct, frozen=True, rename="camel"):
    """Which fields a body has: enough to tell what it wants to be."""

    media_type: str | None = None
    schema_version: int | None = None
    config: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    layers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    manifests: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    fs_layers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    signatures: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET

    def names(self) -> set[str]:
        """The telling fields that are present, also when null."""
        present = {
            "config": self.config,
            "layers": self.layers,
            "manifests": self.manifests,
            "fsLayers": self.fs_layers,
            "signatures": self.signatures,
        }
        return {name for name, value in present.items() if value is not msgspec.UNSET}


class _Typed(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str | None = None


def parse(data: bytes, media_type: str) -> Manifest:
    """Parse an image manifest exactly as its digest covers it.

    Args:
        data: kept, so ``raw`` round-trips.
        media_type: of the descriptor or the Content-Type that the bytes came with, without parameters.
    Raises:
        FormatError: not strict JSON, a required field is absent or of another type, or the body says that it is, or
            could be taken for, something else; one digest with two sizes.
        UnsupportedError: ``media_type`` is not one of ``mediatype.MANIFESTS``; a digest's algorithm is not supported.
    """
    if media_type in mediatype.INDEXES:
        raise UnsupportedError(f"{_WHAT}: {media_type} is an index of manifests")
    if media_type in mediatype.SCHEMA1:
        raise UnsupportedError(f"{_WHAT}: Docker's schema 1 is not supported; push the image anew")
    if media_type not in mediatype.MANIFESTS:
        raise UnsupportedError(f"{_WHAT}: {media_type[:200]!r} is not a type of manifest")
    check_kind(data, media_type, what=_WHAT, refused=frozenset({"manifests", "fsLayers"}))
    form = document.decode(data, _Form, what=_WHAT)
    config = form.config.value(f"{_WHAT}: config")
    layers = values(form.layers or (), f"{_WHAT}: layers")
    subject = None if form.subject is None else form.subject.value(f"{_WHAT}: subject")
    check_sizes((config, *layers) if subject is None else (config, *layers, subject), _WHAT)
    return Manifest(
        media_type=media_type,
        config=config,
        layers=layers,
        annotations=annotations_of(form.annotations),
        subject=subject,
        artifact_type=form.artifact_type or "",
        raw=data,
    )


def check_kind(data: bytes, media_type: str, *, what: str, refused: frozenset[str]) -> None:
    """Refuse a body that is of another kind than the media type it came with.

    Args:
        what: names the document in messages.
        refused: telling fields that this kind must not have.
    Raises:
        FormatError: the body's own media type differs, it has a refused field, or it is not JSON.
    """
    outline = document.peek(data, _Outline, what=what)
    if outline.media_type and outline.media_type != media_type:
        raise FormatError(f"{what}: it came as {media_type} and says it is {outline.media_type[:200]!r}")
    both = outline.names() & refused
    if both:
        raise FormatError(f"{what}: it has {', '.join(sorted(both))}, as if it were of another type than {media_type}")


def own_type(data: bytes, media_type: str) -> str:
    """The type that a body says it has, where that is of the kind that it came as: else the type that it came as.

    Docker's types stand for OCI's in some indexes, and the digest holds all the same.

    Raises:
        FormatError: it is not JSON.
    """
    said = document.peek(data, _Typed, what=_WHAT).media_type
    kinds = (mediatype.MANIFESTS, mediatype.INDEXES)
    return said if said and any({said, media_type} <= kind for kind in kinds) else media_type


def sniff(data: bytes) -> str:
    """The media type by the body alone, for bytes that came without one: its own word, else by the fields it has.

    Raises:
        FormatError: it says nothing, or could be several things.
    """
    outline = document.decode(data, _Outline, what=_WHAT)
    if outline.media_type:
        return outline.media_type
    names = outline.names()
    if outline.schema_version == 1 and "fsLayers" in names and not names & {"config", "layers", "manifests"}:
        return mediatype.DOCKER_SCHEMA1_SIGNED if "signatures" in names else mediatype.DOCKER_SCHEMA1
    if outline.schema_version == 2 and names == {"manifests"}:
        return mediatype.OCI_INDEX
    if outline.schema_version == 2 and names == {"config", "layers"}:
        assert isinstance(outline.config, msgspec.Raw)
        config = document.peek(bytes(outline.config), _Typed, what=f"{_WHAT}: config")
        return mediatype.DOCKER_MANIFEST if config.media_type == mediatype.DOCKER_CONFIG else mediatype.OCI_MANIFEST
    fields = ", ".join(sorted(names)) or "none that tell"
    raise FormatError(f"{_WHAT}: it has no mediaType, and its fields ({fields}) fit no manifest or index")
