"""What an image is called when a policy is asked about it, and what a signature may call it. Pure.

An identity is what was asked for: not the mirror that sends the image, and not what a registry calls it.

Spec: containers-policy.json(5), "Supported transports and their scopes" and ``signedIdentity``.
"""

from __future__ import annotations

import os.path
from typing import Final, Literal

import msgspec

from fastoci.errors import ReferenceSyntaxError
from fastoci.image.reference import Reference

DOCKER: Final = "docker"
_BY_PATH: Final = frozenset({"dir", "oci", "oci-archive"})  # transports whose scopes are paths
_WITHOUT: Final = "docker-archive"  # has no scopes

Kind = Literal[
    "matchExact", "matchRepoDigestOrExact", "matchRepository", "exactReference", "exactRepository", "remapIdentity"
]


class Identity(msgspec.Struct, frozen=True):
    """An image as a policy sees it: its transport, its scopes, the most specific one first, and its name if any."""

    transport: str
    scopes: tuple[str, ...]
    reference: Reference | None = None

    @classmethod
    def of_reference(cls, reference: Reference) -> Identity:
        """An image of a registry, or one that a store has by such a name. A digest goes before a tag."""
        if reference.digest is not None:
            reference = Reference(reference.domain, reference.path, None, reference.digest)
        parts = reference.name.split("/")
        parents = ("/".join(parts[:count]) for count in range(len(parts), 0, -1))
        labels = reference.domain.partition(":")[0].split(".")
        wildcards = (f"*.{'.'.join(labels[count:])}" for count in range(1, len(labels)))
        return cls(DOCKER, (str(reference), *parents, *wildcards), reference)

    @classmethod
    def of_path(cls, transport: str, path: str) -> Identity:
        """An image in a file or directory, by its path from the root without links. An archive of Docker's has none."""
        if transport == _WITHOUT:
            return cls(transport, ())
        parts = path.split("/")
        return cls(transport, tuple("/".join(parts[:count]) for count in range(len(parts), 1, -1)))

    def __str__(self) -> str:
        return f"{self.transport}:{self.scopes[0] if self.scopes else ''}"


class SignedIdentity(msgspec.Struct, frozen=True):
    """What of an image's name a signature must say.

    Args:
        name: a reference or repository that is demanded, or the prefix that is replaced.
        signed_prefix: what the prefix is in signatures.
    """

    kind: Kind = "matchRepoDigestOrExact"
    name: str = ""
    signed_prefix: str = ""

    def accepts(self, image: Reference | None, signed: str) -> bool:
        """Whether a signature that names ``signed`` is one of this image."""
        claimed = _parsed(signed)
        wanted = _parsed(self.name) if self.kind in ("exactReference", "exactRepository") else image
        if claimed is None or wanted is None:
            return False
        if self.kind in ("matchRepository", "exactRepository"):
            return claimed.name == wanted.name
        if not is_exact(signed):
            return False
        if self.kind == "remapIdentity":
            moved = self._remapped(wanted)
            if moved is None:
                return False
            wanted = moved
        if wanted.digest is not None and self.kind in ("matchRepoDigestOrExact", "remapIdentity"):
            return claimed.name == wanted.name  # the digest itself is held against the manifest
        return str(claimed) == str(wanted)

    def _remapped(self, image: Reference) -> Reference | None:
        """The image by the name that its signer gave it; None when that is no name."""
        if image.name != self.name and not image.name.startswith(f"{self.name}/"):
            return image
        text = self.signed_prefix + str(image).removeprefix(self.name)
        moved = _parsed(text)
        return moved if moved is not None and str(moved) == text else None


def scope_problem(transport: str, scope: str) -> str:
    """What is wrong with a scope of a policy; empty when nothing is, and for transports that are unknown here."""
    if transport == _WITHOUT:
        return 'it has no scopes but the default ""'
    if transport not in _BY_PATH:
        return ""
    if not scope.startswith("/"):
        return "it is not an absolute path"
    if scope == "/":
        return 'write "" for all images of the transport'
    clean = os.path.normpath(scope)
    return "" if scope == clean else f"write {clean!r}"


def is_exact(text: str) -> bool:
    """Whether a reference has a tag or a digest of its own."""
    last = text.rpartition("/")[2]
    return ":" in last or "@" in last


def name_problem(text: str, *, exact: bool = False) -> str:
    """What is wrong with a reference or repository of a policy; empty when nothing is."""
    try:
        Reference.parse(text)
    except ReferenceSyntaxError as error:
        return error.message
    return "it has neither a tag nor a digest" if exact and not is_exact(text) else ""


def prefix_problem(text: str) -> str:
    """What is wrong with a prefix of names of a policy; empty when nothing is."""
    return name_problem(f"{text}/name") if text else "it is empty"


def _parsed(text: str) -> Reference | None:
    try:
        return Reference.parse(text)
    except ReferenceSyntaxError:
        return None
