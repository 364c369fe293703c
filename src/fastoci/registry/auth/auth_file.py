"""Auth files, which containers tools and docker share: where they are, what they hold, how their keys are compared.

Reads files and variables; runs no helper, knows nothing of tokens or HTTP. Secrets appear in no repr and no error.
What is wrong with the entry or helper of one host is an error for those alone who ask about that host.

Spec: containers-auth.json(5); docker's ``config.json`` and the older ``.dockercfg``; both are read by Go's ``json`` and
``base64``, so case counts in no member's name, and line ends in no base64. Wildcards are the kubelet's.
"""

from __future__ import annotations

import base64
import binascii
import copy
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final, TypeVar

from fastoci import path_walk
from fastoci.discreet import Discreet
from fastoci.errors import ConfigError
from fastoci.registry.auth import kubelet_match
from fastoci.registry.auth.credential import Credential
from fastoci.registry.config import files

T = TypeVar("T")

KIND: Final = "auth file"
HUB: Final = "docker.io"
HUB_KEY: Final = "https://index.docker.io/v1/"  # Docker Hub's name for docker and for helpers
_HUB_NAMES: Final = frozenset({HUB, "index.docker.io", "registry-1.docker.io"})
_MEMBERS: Final = ("auths", "credHelpers", "credsStore", "HttpHeaders")
_FIELDS: Final = ("auth", "username", "password", "identitytoken", "registrytoken")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# docker passes these on to registries, and the others to its daemon only.
_HEADER: Final = re.compile(r"X-Meta-[A-Za-z0-9-]{1,64}", re.IGNORECASE)
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]{0,1024}")


class AuthFile(Discreet, frozen=True):
    """What one file or variable says; hosts and keys are in the form of ``normal``.

    An error is what those get who ask about that host.
    """

    hidden: ClassVar = frozenset({"entries", "headers"})

    where: str
    entries: Mapping[str, Credential | ConfigError] = {}
    helpers: Mapping[str, str | ConfigError] = {}  # the helper that has a host's credentials
    store: str | ConfigError = ""  # the helper of all other hosts; empty when there is none
    headers: Mapping[str, str] = {}  # for every registry

    def helper(self, domain: str) -> str:
        """The helper to ask about a host; empty when there is none.

        Raises:
            ConfigError: what the file says there is not the name of a helper.
        """
        host = normal(domain)
        key = host if host in self.helpers else _wildcard(self.helpers, host, "")
        return _good(self.store if key is None else self.helpers[key])

    def entry(self, domain: str, path: str) -> Credential | None:
        """The most specific entry for ``domain/path``; one with a wildcard in its host, where no other is.

        Raises:
            ConfigError: it cannot be read.
        """
        host = normal(domain)
        key = next((key for key in _keys(host, path) if key in self.entries), None) or _wildcard(
            self.entries, host, path
        )
        return None if key is None else _good(self.entries[key])


def read_all(authfile: Path | None, environ: Mapping[str, str]) -> tuple[AuthFile, ...]:
    """All that apply, in the order in which they are asked.

    Args:
        authfile: the only file to read; else ``REGISTRY_AUTH_FILE`` is, when set; else ``DOCKER_AUTH_CONFIG`` holds
            the first, and the usual files the others.
    Raises:
        ConfigError: one is not an auth file, or one that was asked for by name cannot be read.
    """
    named = authfile or _path(environ, "REGISTRY_AUTH_FILE")
    if named is not None:
        return (parse(read(named), str(named)),)
    found = []
    if environ.get("DOCKER_AUTH_CONFIG"):
        found.append(parse(environ["DOCKER_AUTH_CONFIG"].encode(), "DOCKER_AUTH_CONFIG"))
    for path in _locations(environ):
        try:
            data = read(path)
        except ConfigError as error:
            if isinstance(error.__cause__, OSError):
                continue  # absent, or another user's: as if it were not there
            raise
        found.append(parse(data, str(path), bare=path.name == ".dockercfg"))
    return tuple(found)


def writable(authfile: Path | None, environ: Mapping[str, str]) -> Path:
    """The file that a login changes."""
    named = authfile or _path(environ, "REGISTRY_AUTH_FILE")
    return named or next(iter(_locations(environ)))


def read(path: Path) -> bytes:
    """The bytes of an auth file.

    Raises:
        ConfigError: it cannot be read (caused by the ``OSError``), or is too large to be one.
    """
    return files.read(path, KIND)


def document(data: bytes, where: str) -> dict[str, object]:
    """The JSON object of an auth file, its members under the names that are known here.

    An empty file, which tools create before the first login, or null is an empty one.

    Raises:
        ConfigError: it is not a JSON object.
    """
    if not data.strip():
        return {}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        # The cause is dropped: its text may quote the file.
        raise ConfigError(f"{where}: this auth file is not JSON") from None
    if found is None:  # Go's null
        return {}
    if not isinstance(found, dict):
        raise ConfigError(f"{where}: this auth file is not a JSON object")
    return named(found, _MEMBERS)


def named(found: Mapping[str, object], names: Iterable[str]) -> dict[str, object]:
    """A JSON object with these of its names spelled as here, whatever their case; of several the last counts."""
    known = {name.lower(): name for name in names}
    return {known.get(name.lower(), name): value for name, value in found.items()}


def parse(data: bytes, where: str, *, bare: bool = False) -> AuthFile:
    """Read an auth file.

    Args:
        where: names it in messages.
        bare: the old form, which is nothing but the entries.
    Raises:
        ConfigError: it is none.
    """
    found = document(data, where)
    auths = found if bare else member(found, "auths", where)
    entries: dict[str, Credential | ConfigError] = {}
    # A key with a scheme is the old spelling: it counts where no other key names the same repositories.
    for key in sorted(auths, key=lambda key: "://" in key):
        credential = _attempt(_entry, auths[key], f"{where}: the entry for {key[:200]!r}")
        if credential is not None:
            entries.setdefault(normal(key), credential)
    if bare:
        return AuthFile(where, entries)
    # An empty name takes a host out of the helper of all hosts, as docker reads it.
    helpers = {
        normal(host): _attempt(helper_name, name, where) if name != "" else ""
        for host, name in member(found, "credHelpers", where).items()
    }
    store = _attempt(helper_name, found["credsStore"], where) if found.get("credsStore") else ""
    return AuthFile(where, entries, helpers, store, _headers(member(found, "HttpHeaders", where)))


def member(found: Mapping[str, object], name: str, where: str) -> dict[str, object]:
    """An object in an auth file; empty when it is absent.

    Raises:
        ConfigError: it is not an object.
    """
    value = found.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: {name!r} of this auth file is not an object")
    return value


def helper_name(name: object, where: str) -> str:
    """The name of a helper, which becomes that of a program: nothing that could lead to another directory.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(name, str) or not _HELPER.fullmatch(name):
        raise ConfigError(f"{where}: {str(name)[:80]!r} is not the name of a credential helper")
    return name


def normal(key: str) -> str:
    """A key or domain as it is compared: no scheme, no ``/v1/``, the host in lower case, Docker Hub under one name.

    The port stays, written or not: ``host`` and ``host:443`` are two names.
    """
    bare = key.removeprefix("https://").removeprefix("http://")
    host, slash, path = bare.partition("/")
    host = host.lower() if host.isascii() else host  # some letters beyond ASCII have a lower case within it
    hub = host in _HUB_NAMES
    if not path.strip("/") or ((hub or bare != key) and path.strip("/") in ("v1", "v2")):
        slash = path = ""
    return (HUB if hub else host) + slash + path.rstrip("/")


def _locations(environ: Mapping[str, str]) -> Iterator[Path]:
    """The files that are looked for, the one that a login changes first."""
    docker = _path(environ, "DOCKER_CONFIG")
    if docker is not None:
        yield docker / "config.json"  # and no other: as in the command lines of the containers tools
        return
    runtime = _path(environ, "XDG_RUNTIME_DIR")
    yield (runtime / "containers" if runtime else Path(f"/run/containers/{os.getuid()}")) / "auth.json"
    home = path_walk.home(environ)
    config = _path(environ, "XDG_CONFIG_HOME") or (home and home / ".config")
    if config is not None:
        yield config / "containers" / "auth.json"
    if home is not None:
        yield home / ".docker" / "config.json"
        yield home / ".dockercfg"


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None


def _keys(domain: str, path: str) -> Iterator[str]:
    parts = path.split("/")
    for count in range(len(parts), 0, -1):
        yield "/".join([domain, *parts[:count]])
    yield domain


def _wildcard(keys: Iterable[str], host: str, path: str) -> str | None:
    """The longest key with a wildcard in its host that means ``host/path``. Each part of a path is whole."""
    found = []
    for key in keys:
        name, _, below = key.partition("/")
        if "*" in name and f"{path}/".startswith(f"{below}/" if below else ""):
            found.append(key)
    return kubelet_match.best(found, f"{host}/{path}") if found else None


def _attempt(read: Callable[[object, str], T], value: object, where: str) -> T | ConfigError:
    """What ``read`` makes of a value; its error is for those who need the value."""
    try:
        return read(value, where)
    except ConfigError as error:
        return error.with_traceback(None)


def _good(found: T | ConfigError) -> T:
    if isinstance(found, ConfigError):
        raise copy.copy(found)  # each caller may write the image it was for into its own
    return found


def _entry(entry: object, where: str) -> Credential | None:
    """One value of ``auths``; None for the empty ones that docker leaves when a helper keeps the secret."""
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} is not an object")
    found = named(entry, _FIELDS)
    fields: dict[str, str] = {}
    for name in _FIELDS:
        value = found.get(name) or ""
        if not isinstance(value, str):
            raise ConfigError(f"{where} holds something that is not a string")
        fields[name] = value
    username, password, token = fields["username"], fields["password"], fields["registrytoken"]
    if fields["auth"]:
        username, password = _decode(fields["auth"], where)
    if token and not _TOKEN.fullmatch(token):
        raise ConfigError(f"{where}: 'registrytoken' has characters that no token has")
    if not (username or password or fields["identitytoken"] or token):
        return None
    return Credential(username, password, fields["identitytoken"], token)


def _decode(auth: str, where: str) -> tuple[str, str]:
    """The user and password: line ends count nowhere, and all of the padding may be absent."""
    text = auth.replace("\r", "").replace("\n", "")
    padding = "" if text.endswith("=") else "=" * (-len(text) % 4)
    try:
        username, colon, password = base64.b64decode(text + padding, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise ConfigError(f"{where}: 'auth' is not base64 of 'user:password'") from None
    if not colon:
        raise ConfigError(f"{where}: 'auth' is not base64 of 'user:password'")
    return username, password.rstrip("\0")


def _headers(found: Mapping[str, object]) -> dict[str, str]:
    return {
        name: value
        for name, value in found.items()
        if _HEADER.fullmatch(name) and isinstance(value, str) and _HEADER_VALUE.fullmatch(value)
    }
