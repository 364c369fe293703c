"""What a policy may demand of an image, as values: one class a type of requirement. Pure.

Spec: containers-policy.json(5), "Policy Requirements".
"""

from __future__ import annotations

import msgspec

from fastoci.trust.identity import SignedIdentity


class Keys(msgspec.Struct, frozen=True):
    """Keys of which one must have signed: files of them, or their bytes. ``field`` is what the policy calls them."""

    field: str
    paths: tuple[str, ...] = ()
    data: tuple[bytes, ...] = ()


class AcceptAnything(msgspec.Struct, frozen=True):
    """Nothing is demanded."""

    type = "insecureAcceptAnything"


class Reject(msgspec.Struct, frozen=True):
    """No image will do."""

    type = "reject"


class SignedBy(msgspec.Struct, frozen=True):
    """An OpenPGP signature in the form of simple signing."""

    key_type: str
    keys: Keys
    identity: SignedIdentity = SignedIdentity()

    type = "signedBy"


class SigstoreSigned(msgspec.Struct, frozen=True):
    """A signature as cosign makes it.

    Args:
        keys: None where a certificate stands for a key.
        unverifiable: the field that demands what cannot be verified here; empty when there is none.
    """

    keys: Keys | None
    unverifiable: str = ""
    identity: SignedIdentity = SignedIdentity()

    type = "sigstoreSigned"


class Unknown(msgspec.Struct, frozen=True):
    """A requirement of a type that nothing here knows: no image is known to fulfil it."""

    type: str


Requirement = AcceptAnything | Reject | SignedBy | SigstoreSigned | Unknown
