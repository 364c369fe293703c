"""Credentials from the auth files that containers tools and docker share: which file, which entry, what it holds.

Reads files once, at ``load``; knows nothing of tokens or HTTP. Only ``auths`` entries are read; credential helpers are
not run. Secrets appear in no repr and no error.

Spec: containers-auth.json(5); docker's ``config.json``.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fastoci.errors import FormatError

_FILE_SIZE = 1 << 20  # bytes; a real one holds a few kilobytes
_DOCKER_NAMES = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class Credential:
    """What to log in with: a name and password, or an OAuth2 refresh token."""

    username: str
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)


class Credentials:
    """The entries of all auth files that apply, in the order in which they are asked."""

    def __init__(self, files: tuple[Mapping[str, Credential], ...] = (), *, explicit: Credential | None = None) -> None:
        self._files = files
        self._explicit = explicit

    def __repr__(self) -> str:
        return f"<Credentials from {len(self._files)} files>"

    def find(self, domain: str, path: str) -> Credential | None:
        """The credential for ``domain/path``: the first file with a match wins, in it the most specific entry.

        The host and port must be the very same; ``host`` and ``host:443`` are two names.
        """
        if self._explicit is not None:
            return self._explicit
        keys = list(_keys(_normal(domain), path))
        for entries in self._files:
            for key in keys:
                if key in entries:
                    return entries[key]
        return None


def load(
    authfile: Path | None = None, *, explicit: Credential | None = None, environ: Mapping[str, str] = os.environ
) -> Credentials:
    """Read the auth files that apply.

    Args:
        authfile: the only file to read; else ``REGISTRY_AUTH_FILE`` is, when set; else the usual places are.
        explicit: what the user gave for this job; wins over every file.
    Raises:
        FormatError: a file is no auth file, or one that was asked for by name cannot be read.
    """
    files = []
    for path, demanded in _places(authfile, environ):
        data = _read(path, demanded=demanded)
        if data is not None:
            files.append(_parse(data, path))
    return Credentials(tuple(files), explicit=explicit)


def _places(authfile: Path | None, environ: Mapping[str, str]) -> Iterator[tuple[Path, bool]]:
    """Each file to read, and whether it was asked for by name."""
    if authfile is None and environ.get("REGISTRY_AUTH_FILE"):
        authfile = Path(environ["REGISTRY_AUTH_FILE"])
    if authfile is not None:
        yield authfile, True
        return
    home = Path(environ.get("HOME") or Path.home())
    runtime = environ.get("XDG_RUNTIME_DIR")
    yield (Path(runtime) / "containers" if runtime else Path(f"/run/containers/{os.getuid()}")) / "auth.json", False
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json", False
    yield Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json", False


def _read(path: Path, *, demanded: bool) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_SIZE + 1)
    except OSError as error:
        if demanded:
            raise FormatError(f"{path}: cannot read this auth file: {error.strerror}") from error
        return None  # absent, or another user's: as if it were not there
    if len(data) > _FILE_SIZE:
        raise FormatError(f"{path}: larger than {_FILE_SIZE} bytes, this is no auth file")
    return data


def _parse(data: bytes, path: Path) -> dict[str, Credential]:
    if not data.strip():
        return {}  # tools create the file empty, before the first login
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        # The cause is dropped: its text may quote the file.
        raise FormatError(f"{path}: this auth file is not JSON") from None
    auths = document.get("auths", {}) if isinstance(document, dict) else None
    if not isinstance(auths, dict):
        raise FormatError(f"{path}: this auth file has no object 'auths'")
    entries: dict[str, Credential] = {}
    for key, entry in auths.items():
        credential = _entry(entry, f"{path}: the entry for {key!r}")
        if credential is not None:
            entries.setdefault(_normal(key), credential)
    return entries


def _entry(entry: object, where: str) -> Credential | None:
    """One value of ``auths``; None for the empty ones that docker leaves when a helper keeps the secret."""
    if not isinstance(entry, dict):
        raise FormatError(f"{where} is not an object")
    fields = {name: entry.get(name) or "" for name in ("auth", "username", "password", "identitytoken")}
    if not all(isinstance(value, str) for value in fields.values()):
        raise FormatError(f"{where} holds something that is not a string")
    username, password = fields["username"], fields["password"]
    if fields["auth"]:
        username, password = _decode(fields["auth"], where)
    if not (username or password or fields["identitytoken"]):
        return None
    return Credential(username, password, fields["identitytoken"])


def _decode(auth: str, where: str) -> tuple[str, str]:
    try:
        username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise FormatError(f"{where}: 'auth' is not base64 of 'user:password'") from None
    if not colon:
        raise FormatError(f"{where}: 'auth' is not base64 of 'user:password'")
    return username, password.rstrip("\0")


def _normal(key: str) -> str:
    """A key or domain as it is compared: no scheme, no ``/v1/``, the host in lower case, docker.io under one name."""
    host, slash, path = key.removeprefix("https://").removeprefix("http://").partition("/")
    if path.strip("/") in ("", "v1", "v2"):
        slash = path = ""
    host = host.lower()
    return ("docker.io" if host in _DOCKER_NAMES else host) + slash + path.rstrip("/")


def _keys(domain: str, path: str) -> Iterator[str]:
    parts = path.split("/")
    for count in range(len(parts), 0, -1):
        yield "/".join([domain, *parts[:count]])
    yield domain
