"""References: the names by which people ask for images, ``[domain/]path[:tag][@digest]``.

Read as Docker reads them: without a domain it is Docker Hub, there a single word lies below ``library/``, and without
tag and digest it is ``latest``. Knows nothing of registries, mirrors or short-name aliases.

Spec: distribution/reference v0.6 (grammar and normalisation); distribution-spec v1.1 "Pulling manifests".
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

import msgspec

from fastoci.arguments import expect
from fastoci.errors import ReferenceSyntaxError, UnsupportedError
from fastoci.image.digest import Digest

_HUB: Final = "docker.io"
_HUB_LEGACY: Final = "index.docker.io"
_HUB_HOST: Final = "registry-1.docker.io"

_LABEL: Final = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"  # RFC 1035: at most 63
_DOMAIN: Final = re.compile(rf"({_LABEL}(?:\.{_LABEL})*|\[([0-9a-fA-F:]+)\])(?::([0-9]{{1,5}}))?")
_COMPONENT: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IMAGE_ID: Final = re.compile(r"[0-9a-f]{64}")
_PATH_LENGTH: Final = 255  # characters; distribution/reference counts the path alone
_HOST_LENGTH: Final = 253  # characters of a DNS name


class Reference(msgspec.Struct, frozen=True):
    """A reference in full: nothing is left to defaults, and at least one of tag and digest is there."""

    domain: str
    path: str
    tag: str | None
    digest: Digest | None

    def __reduce__(self) -> tuple[object, ...]:
        return Reference.parse, (str(self),)  # checked again: it may come from elsewhere

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read and complete a reference.

        With a tag and a digest both are kept, and the digest is what is asked for (``target``).

        Raises:
            ReferenceSyntaxError: it does not parse, or its digest cannot be verified; says what is wrong.
        """
        expect(str, text, "reference")
        try:
            return cls._parse(text)
        except (ReferenceSyntaxError, UnsupportedError) as error:
            raise ReferenceSyntaxError(f"reference {text[:300]!r}: {error.message}") from error

    @classmethod
    def _parse(cls, text: str) -> Reference:
        if not text:
            raise ReferenceSyntaxError("it is empty")
        if "://" in text:
            raise ReferenceSyntaxError("it has a scheme; write [domain/]path[:tag][@digest]")
        if _IMAGE_ID.fullmatch(text):
            raise ReferenceSyntaxError("64 hex digits would be an image id, which no registry knows")
        domain, rest = _split_domain(text)
        name, at, digest = rest.partition("@")
        path, colon, tag = name.partition(":")
        _check_domain(domain)
        _check_path(path)
        if colon and not _TAG.fullmatch(tag):
            raise ReferenceSyntaxError(f"{tag[:200]!r} is not a tag: 128 of A-Z a-z 0-9 _ . - at most")
        return cls(
            domain,
            path,
            tag if colon else None if at else "latest",
            Digest.parse(digest) if at else None,
        )

    @property
    def name(self) -> str:
        """``domain/path``."""
        return f"{self.domain}/{self.path}"

    @property
    def host(self) -> str:
        """The network host, with its port if one is written: Docker Hub's is not its domain."""
        return _HUB_HOST if self.domain == _HUB else self.domain

    @property
    def target(self) -> str:
        """What a manifest's URL ends in: the digest if there is one, else the tag."""
        return str(self.digest) if self.digest is not None else self.tag or "latest"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.name}{tag}{digest}"


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    # An upper-case first part cannot be a path, so it is taken for a host, as Docker does.
    if not slash or not (first == "localhost" or "." in first or ":" in first or first != first.lower()):
        first, rest = _HUB, text
    if first in (_HUB, _HUB_LEGACY):
        first = _HUB
        if "/" not in rest:
            rest = f"library/{rest}"
    return first, rest


def _check_domain(domain: str) -> None:
    match = _DOMAIN.fullmatch(domain)
    if match is None or len(match[1]) > _HOST_LENGTH:
        raise ReferenceSyntaxError(f"{domain[:200]!r} is not a host[:port]")
    if match[3] and not 0 < int(match[3]) < 65536:
        raise ReferenceSyntaxError(f"{match[3]} is not a port")
    if match[2]:
        try:
            ipaddress.IPv6Address(match[2])
        except ValueError as error:
            raise ReferenceSyntaxError(f"{match[2][:200]!r} is not an IPv6 address") from error


def _check_path(path: str) -> None:
    if path != path.lower():
        raise ReferenceSyntaxError(f"the repository {path[:200]!r} must be lower case")
    if len(path) > _PATH_LENGTH:
        raise ReferenceSyntaxError(f"the repository has {len(path)} characters, at most {_PATH_LENGTH} are allowed")
    if not _PATH.fullmatch(path):
        raise ReferenceSyntaxError(
            f"{path[:200]!r} is not a repository: words of a-z 0-9, joined by one of . _ __ or dashes, and by /"
        )
