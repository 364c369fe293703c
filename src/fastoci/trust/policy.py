"""``policy.json``: which images may be had. Bytes to a frozen value, strictly: no typing error opens a door. Pure.

A key that is none, twice the same, or a value of another type refuses the whole file. A type of requirement that is
unknown refuses the images that it is demanded of, and no others.

Spec: containers-policy.json(5).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from fastoci.errors import ConfigError
from fastoci.trust.requirements import AcceptAnything, Reject, Requirement, SignedBy, SigstoreSigned, Unknown

if TYPE_CHECKING:
    from fastoci.trust.identity import Identity


class Found(msgspec.Struct, frozen=True):
    """What a policy demands of one image, and where it says so: ``transports.docker."example.com"``."""

    where: str
    requirements: tuple[Requirement, ...]


class TrustPolicy(msgspec.Struct, frozen=True):
    """Which images may be had, and whose signatures they must have.

    ``TrustPolicy.parse`` makes one of a ``policy.json``, ``TrustPolicy.read`` of a file.

    Args:
        default: what is demanded where nothing more specific is.
        transports: by transport and scope; the empty scope is the transport's default.
        file: where it comes from, for messages.
    """

    default: tuple[Requirement, ...]
    transports: Mapping[str, Mapping[str, tuple[Requirement, ...]]] = {}
    file: str = "the policy"

    @classmethod
    def accept_anything(cls) -> TrustPolicy:
        """The policy of a machine that has none: every image may be had."""
        return cls((AcceptAnything(),), file="no policy")

    @classmethod
    def parse(cls, data: bytes, file: str = "the policy") -> TrustPolicy:
        """Read a policy.

        Raises:
            ConfigError: it is not one; says in which field.
        """
        document = _object(_json(data, file), file)
        for name in document.keys() - {"default", "transports"}:
            raise ConfigError(f"{file}: {name[:100]}: there is no such field")
        if "default" not in document:
            raise ConfigError(f"{file}: default is missing: what is demanded of images that nothing else is said of")
        transports = {}
        for transport, value in _object(document.get("transports", {}), f"{file}: transports").items():
            where = f"{file}: transports.{transport}"
            scopes = _scopes(value, where, transport)
            transports[transport] = {
                scope: _requirements(demanded, f"{where}.{_quoted(scope)}") for scope, demanded in scopes.items()
            }
        return cls(_requirements(document["default"], f"{file}: default"), transports, file)

    @property
    def accepts_anything(self) -> bool:
        """Whether it demands nothing of any image."""
        demanded = [self.default, *(each for scopes in self.transports.values() for each in scopes.values())]
        return all(isinstance(each, AcceptAnything) for requirements in demanded for each in requirements)

    def find(self, image: Identity) -> Found:
        """What is demanded of an image: of all that is said the most specific alone."""
        scopes = self.transports.get(image.transport, {})
        for scope in (*image.scopes, ""):
            if scope in scopes:
                return Found(f"transports.{image.transport}.{_quoted(scope)}", scopes[scope])
        return Found("default", self.default)


def _scopes(value: object, where: str, transport: str) -> dict[str, Any]:
    from fastoci.trust.identity import scope_problem  # most policies have no scopes

    scopes = _object(value, where)
    for scope in scopes:
        if scope and (problem := scope_problem(transport, scope)):
            raise ConfigError(f"{where}.{_quoted(scope)}: {problem}")
    return scopes


def _requirements(value: object, where: str) -> tuple[Requirement, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{where}: expected an array of requirements, got {_kind(value)}")
    if not value:
        raise ConfigError(f"{where}: an empty array demands nothing; write one of insecureAcceptAnything or reject")
    return tuple(_requirement(each, f"{where}[{number}]") for number, each in enumerate(value))


def _requirement(value: object, where: str) -> Requirement:
    fields = _object(value, where)
    kind = fields.get("type")
    for bare in (AcceptAnything, Reject):
        if kind == bare.type:
            for name in fields.keys() - {"type"}:
                raise ConfigError(f"{where}.{name[:100]}: there is no such field")
            return bare()
    if kind in (SignedBy.type, SigstoreSigned.type):
        from fastoci.trust import forms

        return (forms.signed_by if kind == SignedBy.type else forms.sigstore_signed)(fields, where)
    if not isinstance(kind, str) or not kind:
        raise ConfigError(f"{where}.type: expected the type of a requirement, got {_kind(kind)}")
    return Unknown(kind[:100])


def _json(data: bytes, file: str) -> object:
    """The document, of which no object has a key twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"{file}: the field {twice[:100]!r} is there twice")
        return found

    try:
        return json.loads(data.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not JSON: {error}") from error


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected an object, got {_kind(value)}")
    return value


def _quoted(scope: str) -> str:
    return json.dumps(scope[:300])


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "an array", str: "text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")
