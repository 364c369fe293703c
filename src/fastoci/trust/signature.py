"""One signature of an image as cosign makes it: what it says, and whether it is of this image. Pure, but for the keys.

What is signed is the payload, a small document that names the digest of a manifest and the image. Nothing of it is read
before the signature over its bytes holds.

Spec: cosign SIGNATURE_SPEC.md; containers-signature(5), "The signed data".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from fastoci.errors import FormatError, UnsupportedError
from fastoci.image import document
from fastoci.image.digest import Digest
from fastoci.trust.identity import Identity, SignedIdentity
from fastoci.trust.keys import Verify

MEDIA_TYPE: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION: Final = "dev.cosignproject.cosign/signature"
_TYPE: Final = "cosign container image signature"
_WHAT: Final = "the signed payload"


class Signature(msgspec.Struct, frozen=True):
    """The bytes that were signed, and what is said of them: the signature in base64. Nothing of it is trusted."""

    payload: bytes
    annotations: Mapping[str, str]


class _Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    digest: str = msgspec.field(name="docker-manifest-digest")


class _Name(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reference: str = msgspec.field(name="docker-reference")


class _Critical(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: str
    image: _Image
    identity: _Name


class _Optional(msgspec.Struct, frozen=True):
    creator: str | None = None
    timestamp: float | None = None


class _Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    critical: _Critical
    optional: _Optional | None


def problem(
    signature: Signature, keys: Sequence[Verify], image: Identity, manifest: Digest, identity: SignedIdentity
) -> str:
    """Why a signature is not one of this image by one of these keys; empty when it is.

    Args:
        keys: of those who may sign.
        manifest: what will be used.
        identity: what of the image's name the signature must say.
    """
    text = signature.annotations.get(ANNOTATION)
    if text is None:
        return f"the annotation {ANNOTATION} is missing"
    try:
        made = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return "it is not base64"
    if not any(key(signature.payload, made) for key in keys):
        return "it was not made by the key" if len(keys) == 1 else "it was made by none of the keys"
    try:
        payload = document.decode(signature.payload, _Payload, what=_WHAT)
        digest = document.digest(payload.critical.image.digest, what=_WHAT)
    except (FormatError, UnsupportedError) as error:
        return error.message
    made_at = payload.optional.timestamp if payload.optional is not None else None
    if made_at is not None and not made_at.is_integer():
        return "its timestamp is not a whole number"
    if payload.critical.type != _TYPE:
        return f"it is a signature of another type: {payload.critical.type[:100]!r}"
    if digest != manifest:
        return f"it is of the manifest {digest}"
    name = payload.critical.identity.reference
    return "" if identity.accepts(image.reference, name) else f"it is of the image {name[:300]!r}"
