"""Descriptors: what a document says of the content it points at. Values, and their JSON form.

Knows what a descriptor may hold, not what it points at. ``data`` is held against digest and size here, so a descriptor
that has it can be trusted; ``urls`` are kept and never followed.

Spec: image-spec v1.1 descriptor.md.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec

from fastoci.arguments import at_least, expect
from fastoci.errors import FormatError
from fastoci.image import document
from fastoci.image.digest import Digest
from fastoci.image.platform import Platform

Size = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
# Media types end in request headers: printable ASCII. What the type means is not judged: some have no slash, some are
# empty.
MediaType = Annotated[str, msgspec.Meta(pattern=r"\A[\x20-\x7e]{0,255}\Z")]
AnnotationsForm = object  # labels of whatever type refuse nothing


class _Content(msgspec.Struct, frozen=True):
    media_type: str
    digest: Digest
    size: int


class Descriptor(_Content, frozen=True, kw_only=True):
    """A media type, a digest and a size, and what else was said of the content."""

    urls: tuple[str, ...] = ()
    annotations: Mapping[str, str] = {}
    data: bytes | None = None
    platform: Platform | None = None
    artifact_type: str = ""

    def __post_init__(self) -> None:
        expect(str, self.media_type, "media_type")
        expect(Digest, self.digest, "digest", hint="Digest.parse makes one of text")
        at_least(0, self.size, "size")

    def __hash__(self) -> int:
        return hash((self.media_type, self.digest, self.size, self.platform))  # annotations have none

    @classmethod
    def of(cls, data: bytes, media_type: str) -> Descriptor:
        """Describe these bytes, by sha256."""
        return cls(media_type, Digest.of(data), len(data))


class PlatformForm(msgspec.Struct, frozen=True):
    """The JSON form of a platform; null counts as absent."""

    os: str | None = None
    architecture: str | None = None
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    os_features: tuple[str, ...] | None = msgspec.field(default=None, name="os.features")

    def value(self) -> Platform:
        """The platform, spelled as it is here."""
        version, features = self.os_version or "", self.os_features or ()
        return Platform(self.os or "", self.architecture or "", self.variant or "", version, features)


class DescriptorForm(msgspec.Struct, frozen=True, rename="camel"):
    """The JSON form of a descriptor, for documents that hold some; null counts as absent, as it does in Go."""

    media_type: MediaType
    digest: str
    size: Size
    urls: tuple[str, ...] | None = None
    annotations: AnnotationsForm = None
    data: bytes | None = None
    platform: PlatformForm | None = None
    artifact_type: str | None = None

    def value(self, what: str) -> Descriptor:
        """The descriptor; ``what`` names it in messages.

        Raises:
            FormatError: the digest is none, or ``data`` is not what digest and size say.
            UnsupportedError: the digest's algorithm.
        """
        digest = document.digest(self.digest, what=what)
        data = self.data if self.data or not self.size else None  # Go takes empty data for none
        if data is not None and (len(data) != self.size or Digest.of(data, digest.algorithm) != digest):
            raise FormatError(f"{what}: the {len(data)} bytes of data are not {digest} of {self.size} bytes")
        return Descriptor(
            self.media_type,
            digest,
            self.size,
            urls=self.urls or (),
            annotations=annotations_of(self.annotations),
            data=data,
            platform=None if self.platform is None else self.platform.value(),
            artifact_type=self.artifact_type or "",
        )


def annotations_of(form: AnnotationsForm) -> dict[str, str]:
    """The annotations of a document: what of them is text, or null, which Go reads as an empty string."""
    if not isinstance(form, dict):
        return {}
    return {key: value or "" for key, value in form.items() if value is None or isinstance(value, str)}


def values(forms: Iterable[DescriptorForm], what: str) -> tuple[Descriptor, ...]:
    """All descriptors of an array; ``what`` names the array in messages.

    Raises:
        FormatError, UnsupportedError: as ``DescriptorForm.value``.
    """
    return tuple(form.value(f"{what}[{index}]") for index, form in enumerate(forms))


def check_sizes(descriptors: Iterable[Descriptor], what: str) -> None:
    """Refuse a document that gives one digest two sizes: one of them is a lie.

    Raises:
        FormatError
    """
    sizes: dict[Digest, int] = {}
    for descriptor in descriptors:
        size = sizes.setdefault(descriptor.digest, descriptor.size)
        if size != descriptor.size:
            raise FormatError(f"{what}: {descriptor.digest} is said to have {size} and {descriptor.size} bytes")


def encode(descriptor: Descriptor) -> dict[str, object]:
    """The JSON form as plain values, fields in a fixed order, absent ones left out."""
    platform = descriptor.platform
    form: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
        "urls": list(descriptor.urls),
        "annotations": dict(sorted(descriptor.annotations.items())),
        "data": None if descriptor.data is None else base64.b64encode(descriptor.data).decode(),
        "platform": None if platform is None else _encode_platform(platform),
        "artifactType": descriptor.artifact_type,
    }
    required = ("mediaType", "digest", "size", "data")  # empty data is data
    return {key: value for key, value in form.items() if value or (key in required and value is not None)}


def _encode_platform(platform: Platform) -> dict[str, str | list[str]]:
    form: dict[str, str | list[str]] = {
        "architecture": platform.architecture,
        "os": platform.os,
        "os.features": list(platform.os_features),
        "os.version": platform.os_version,
        "variant": platform.variant,
    }
    return {key: value for key, value in form.items() if value or key in ("architecture", "os")}
