"""What hangs on an image, which its own documents do not name: referrers by their ``subject``, and cosign's tags.

Pure: names and documents, nothing of where they are kept.

Spec: image-spec v1.1 manifest.md ("subject"); distribution-spec v1.1, "Listing Referrers" and "Referrers Tag Schema";
cosign's SIGNATURE_SPEC.md for its tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from fastoci.errors import FormatError
from fastoci.image import document, index, mediatype
from fastoci.image.descriptor import AnnotationsForm, Descriptor, DescriptorForm, annotations_of, encode
from fastoci.image.digest import Digest
from fastoci.image.layout import encode_index

# BuildKit's entries of an index: what is known of another entry of it.
_TYPE, _OF = "vnd.docker.reference.type", "vnd.docker.reference.digest"
_ATTESTATION: Final = "attestation-manifest"
_COSIGN: Final = ("sig", "att", "sbom")
_TAG: Final = 128  # characters of a tag
_ALGORITHM, _ENCODED = 32, 64  # characters of a digest in the tag of its referrers
_SIGNATURES: Final = re.compile(
    r"application/vnd\.(?:dev\.cosign\.artifact\.sig\.v1\+json|dev\.sigstore\.bundle[.\w+-]*|cncf\.notary\.signature)"
)


class Attachment(msgspec.Struct, frozen=True):
    """A manifest or index that hangs on another one, with its bytes.

    ``tag`` is the one that it is found under; without one it is found by its own ``subject``.
    """

    descriptor: Descriptor
    data: bytes
    subject: Digest
    tag: str = ""


class _Form(msgspec.Struct, frozen=True):
    subject: DescriptorForm | None = None


def referrers_tag(subject: Digest) -> str:
    """The tag that lists the referrers of a document where the registry has no list of its own."""
    return f"{subject.algorithm[:_ALGORITHM]}-{subject.hex[:_ENCODED]}"


def cosign_tags(subject: Digest) -> tuple[str, ...]:
    """The tags under which cosign keeps signatures, attestations and the SBOM of a document."""
    tags = (f"{subject.algorithm}-{subject.hex}.{suffix}" for suffix in _COSIGN)
    return tuple(tag for tag in tags if len(tag) <= _TAG)


def is_signature(artifact_type: str) -> bool:
    """Whether a referrer of this type is a signature: of cosign, sigstore or Notary."""
    return _SIGNATURES.fullmatch(artifact_type) is not None


def attestations(entries: Iterable[Descriptor], subject: Digest) -> list[Descriptor]:
    """The entries of an index that are attestations of another entry of it, as BuildKit makes them."""
    return [
        entry
        for entry in entries
        if entry.annotations.get(_TYPE) == _ATTESTATION and entry.annotations.get(_OF) == str(subject)
    ]


def parse_referrers(data: bytes) -> tuple[Descriptor, ...]:
    """Read a list of referrers, each digest once; entries that cannot be read are left out.

    Raises:
        FormatError, UnsupportedError: it is no index, or none of its entries can be read.
    """
    found = index.parse(data, mediatype.OCI_INDEX, choosing=True)
    return tuple({entry.digest: entry for entry in found.manifests}.values())


def subject_of(data: bytes) -> Digest | None:
    """The digest of what a manifest or index says that it hangs on; None when it says nothing.

    Raises:
        FormatError, UnsupportedError: it is no JSON, or no descriptor.
    """
    form = document.decode(data, _Form, what="manifest")
    return None if form.subject is None else form.subject.value("manifest: subject").digest


class _Config(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str | None = None


class _Kind(msgspec.Struct, frozen=True, rename="camel"):
    artifact_type: str | None = None
    config: _Config | None = None


def artifact_type_of(data: bytes) -> str:
    """The type of a manifest as an artifact: its own, else that of its config.

    Raises:
        FormatError: it is no JSON, or has fields of other types.
    """
    form = document.decode(data, _Kind, what="manifest")
    return form.artifact_type or (form.config and form.config.media_type) or ""


class _Facts(msgspec.Struct, frozen=True):
    annotations: AnnotationsForm = None


def referrer_of(descriptor: Descriptor, data: bytes) -> Descriptor:
    """A manifest or index as an entry of the list of what hangs on its subject.

    Raises:
        FormatError, UnsupportedError: it is no JSON, or has fields of other types.
    """
    form = document.decode(data, _Facts, what="manifest")
    media_type, digest, size = descriptor.media_type, descriptor.digest, descriptor.size
    said = annotations_of(form.annotations)
    return Descriptor(media_type, digest, size, artifact_type=artifact_type_of(data), annotations=said)


def with_referrer(listed: bytes | None, entry: Descriptor, *, listing: bool = True) -> bytes | None:
    """A list of referrers that has an entry, and all others as they are; None when it is like that already.

    Args:
        listed: the list; None when there is none yet.
        listing: False takes the entry out.
    Raises:
        FormatError: it is no list.
    """
    if listed is None:
        return encode_index([entry]) if listing else None
    form = document.decode(listed, dict[str, Any], what="list of referrers")
    entries = form.get("manifests") or []
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise FormatError("list of referrers: manifests is not a list of descriptors")
    others = [each for each in entries if each.get("digest") != str(entry.digest)]
    if listing == (len(others) < len(entries)):
        return None
    form["manifests"] = [*others, encode(entry)] if listing else others
    return msgspec.json.format(msgspec.json.encode(form), indent=1) + b"\n"
