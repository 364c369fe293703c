"""The YAML of ``skopeo sync``: registries, and which tags of their repositories are wanted.

Spec: skopeo-sync(1), "YAML file content".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

from fastoci.errors import ReferenceSyntaxError
from fastoci.image.reference import Reference
from fastoci.lists import tag_rules
from fastoci.lists.findings import Findings
from fastoci.lists.node import Array, Mapping, Node, Scalar
from fastoci.lists.request import PrefetchRequest, RegistryAccess, TagQuery

_RULES: Final[dict[str, Literal["regex", "semver"]]] = {"images-by-tag-regex": "regex", "images-by-semver": "semver"}
_SELECTIONS: Final = frozenset({"images", *_RULES})
_FIELDS: Final = _SELECTIONS | {"credentials", "tls-verify", "cert-dir"}
_CREDENTIALS: Final = frozenset({"username", "password"})
_TRUE: Final = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"})
_FALSE: Final = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N"})
_SHOWN: Final = 100  # characters of a name in a message


def is_skopeo_sync(document: Mapping) -> bool:
    """Whether a registry of this document has what a skopeo list says of one."""
    if document.text("apiVersion") and document.text("kind"):
        return False
    values = document.entries.values()
    return any(isinstance(value, Mapping) and not _FIELDS.isdisjoint(value.entries) for value in values)


def read(document: Mapping, found: Findings) -> None:
    """Find the images, the rules for tags and the access of each registry."""
    for name, value in document.entries.items():
        line = document.lines[name]
        try:
            domain = Reference.parse(f"{name}/x").domain
        except ReferenceSyntaxError as error:
            found.problem(line, f"not a registry: {error.message}")
            continue
        if not isinstance(value, Mapping):
            found.problem(line, f"registry {name[:_SHOWN]!r} has no images")
            continue
        for field in value.entries:
            if field not in _FIELDS:
                known = ", ".join(sorted(_FIELDS))
                found.problem(value.lines[field], f"{field[:_SHOWN]!r} is not known, there are {known}")
        if all(value.get(field) is None for field in _SELECTIONS):
            found.problem(line, f"registry {name[:_SHOWN]!r} has no images")
        _images(name, value, found)
        for field, rule in _RULES.items():
            _queries(name, field, rule, value, found)
        _access(domain, line, value, found)


def _repositories(field: str, registry: Mapping, found: Findings) -> Iterator[tuple[str, int, Node]]:
    """The repositories of a field, with their lines and what is said of each."""
    node = registry.get(field)
    if isinstance(node, Mapping):
        for name, value in node.entries.items():
            yield name, node.lines[name], value
    elif node is not None:
        found.problem(node.line, f'{field}: expected repositories, as redis: ["7"]')


def _images(registry: str, of: Mapping, found: Findings) -> None:
    for name, line, value in _repositories("images", of, found):
        repository = f"{registry}/{name}"
        tags = value.items if isinstance(value, Array) else []
        if not isinstance(value, Array) and not (isinstance(value, Scalar) and value.is_null):
            found.problem(value.line, f'{name[:_SHOWN]}: expected a list of tags or digests, as ["7"]')
        elif not tags:
            found.queries.append(TagQuery(repository, "all", origin=found.origin(line)))
        for tag in tags:
            if not isinstance(tag, Scalar) or not tag.text:
                found.problem(tag.line, f"{name[:_SHOWN]}: a tag or digest is not a text")
                continue
            reference = f"{repository}{'@' if ':' in tag.text else ':'}{tag.text}"
            found.requests.append(PrefetchRequest(reference, origin=found.origin(tag.line)))


def _queries(registry: str, field: str, rule: Literal["regex", "semver"], of: Mapping, found: Findings) -> None:
    for name, line, value in _repositories(field, of, found):
        if not isinstance(value, Scalar) or value.is_null:
            found.problem(value.line, f"{field}: {name[:_SHOWN]}: expected a text")
            continue
        query = TagQuery(f"{registry}/{name}", rule, value.text, found.origin(line))
        try:
            tag_rules.compiled(query)
        except ValueError as error:
            found.problem(value.line, f"{field}: {name[:_SHOWN]}: {error}")
        else:
            found.queries.append(query)


def _access(domain: str, line: int, of: Mapping, found: Findings) -> None:
    credentials, verify, cert_dir = of.get("credentials"), of.get("tls-verify"), of.get("cert-dir")
    if credentials is None and verify is None and cert_dir is None:
        return
    username = password = ""
    if isinstance(credentials, Mapping):
        for field in credentials.entries:
            if field not in _CREDENTIALS:
                found.problem(credentials.lines[field], "credentials have a username and a password, nothing else")
        username, password = credentials.text("username"), credentials.text("password")
        if not username or not password:
            found.problem(credentials.line, "credentials need a username and a password; none are used")
            username = password = ""
    elif credentials is not None:
        found.problem(credentials.line, "credentials: expected a username and a password")
    folder = cert_dir.text if isinstance(cert_dir, Scalar) else ""
    if cert_dir is not None and not folder.startswith("/"):
        found.problem(cert_dir.line, "cert-dir: expected the absolute path of a directory")
        folder = ""
    found.access.append(
        RegistryAccess(
            domain,
            username,
            password,
            None if verify is None else _truth(verify, found),
            Path(folder) if folder else None,
            found.origin(line),
        )
    )


def _truth(node: Node, found: Findings) -> bool:
    """Whether certificates are checked: what is no truth value never turns that off."""
    text = node.text if isinstance(node, Scalar) else ""
    if text not in _TRUE | _FALSE:
        found.problem(node.line, "tls-verify: expected true or false")
    return text not in _FALSE
