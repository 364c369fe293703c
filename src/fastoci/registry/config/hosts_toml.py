"""``hosts.toml``: the hosts that answer for a namespace, in the order of the file, then its server.

What it says, as values; where the file lies and whether it is asked at all is ``endpoints``'s. Header values appear in
no repr and no error, nor does the user part of a URL.

Spec: containerd docs/hosts.md.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final

import msgspec
from yarl import URL

from fastoci.discreet import Discreet
from fastoci.durations import duration_s
from fastoci.errors import ConfigError
from fastoci.registry.config.certs_d import Folder
from fastoci.registry.config.registries_conf import toml
from fastoci.registry.http.urls import parse_url

DEFAULT: Final = "_default"  # the directory for hosts that have none of their own
_CAPABILITIES: Final = frozenset({"pull", "resolve", "push"})
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Host(Discreet, frozen=True):
    """One host. ``base`` None is the namespace itself, which then may be asked for everything."""

    hidden: ClassVar = frozenset({"headers"})

    base: URL | None
    authority: str  # host[:port] as it is written
    capabilities: frozenset[str] = _CAPABILITIES
    ca: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path], ...] = ()
    skip_verify: bool | None = None
    headers: tuple[tuple[str, str], ...] = ()
    connect_s: float | None = None
    private_redirects: bool = False

    @property
    def tls(self) -> bool:
        """Whether it is said how to speak TLS with this host."""
        return bool(self.ca or self.client or self.skip_verify is not None)


def find(directories: tuple[Mapping[str, Folder], ...], domain: str) -> Folder | None:
    """The directory of a ``host[:port]``: its own, else the one for all, of the first ``directories`` that have any."""
    host, colon, port = domain.rpartition(":")
    names = (f"{host}_{port}_", domain, DEFAULT) if colon and host else (domain, DEFAULT)
    return next((hosts[name] for hosts in directories for name in names if name in hosts), None)


def parse(folder: Folder) -> tuple[Host, ...]:
    """The hosts in the order they are asked; the last is the server.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or a key holds what it may not.
    """
    if folder.problem:
        raise ConfigError(folder.problem)
    file = folder.path / "hosts.toml"
    document = toml(folder.hosts or b"", file)
    hosts = document.get("host", {})
    if not isinstance(hosts, dict) or not all(isinstance(row, dict) for row in hosts.values()):
        raise ConfigError(f"{file}: 'host' is not a table of tables; write [host.\"https://mirror.example\"]")
    found = [
        _Row(row, folder.path, f"{file}: host number {n}").host(url) for n, (url, row) in enumerate(hosts.items(), 1)
    ]
    server = document.get("server", "")
    if not isinstance(server, str):
        raise ConfigError(f"{file}: server is not a string")
    return *found, _Row(document, folder.path, f"{file}: the server").host(server)


class _Row(msgspec.Struct, frozen=True):
    """One host's keys, on their way to be a ``Host``."""

    row: Mapping[str, object]
    folder: Path  # what relative paths are relative to
    where: str

    def host(self, url: str) -> Host:
        """The row as a value.

        Raises:
            ConfigError: a key has another type or form.
        """
        base, authority = self._base(url) if url else (None, "")
        ca = tuple(self._paths("ca"))
        return Host(
            base,
            authority,
            # A server that is not written is the namespace itself: then its capabilities are not asked either.
            self._capabilities() if url else _CAPABILITIES,
            ca,
            tuple(self._client()),
            self._flag("skip_verify") if "skip_verify" in self.row else None,
            tuple(self._headers()),
            self._connect_s(),
            self._flag("allow_private_redirects"),  # a key of ours: containerd passes over it
        )

    def _base(self, text: str) -> tuple[URL, str]:
        text = text if "://" in text else f"https://{text}"
        try:
            url = parse_url(text).with_query(None)
        except ValueError:
            raise self._error("its URL", "http://... or https://...") from None
        path = posixpath.normpath(url.raw_path).rstrip("/") if url.raw_path != "/" else ""
        if not path.endswith("/v2") and not self._flag("override_path"):
            path += "/v2"
        authority = re.split("[/?#]", text.partition("://")[2])[0].rpartition("@")[2]
        return url.with_path(path, encoded=True), authority

    def _capabilities(self) -> frozenset[str]:
        found = {word.lower() for word in self.strings("capabilities")}
        if not found <= _CAPABILITIES | {"referrers"}:  # containerd 2.2 has that: here who resolves is asked
            raise self._error("capabilities", "some of pull, resolve, push, referrers")
        return frozenset(found) or _CAPABILITIES

    def _paths(self, key: str) -> Iterator[Path]:
        yield from (self.folder / name for name in self.strings(key))

    def _client(self) -> Iterator[tuple[Path, Path]]:
        value = self.row.get("client", [])
        for pair in [value] if isinstance(value, str) else value if isinstance(value, list) else [None]:
            names = [pair, pair] if isinstance(pair, str) else pair  # one file may hold both
            if not isinstance(names, list) or len(names) != 2 or not all(isinstance(name, str) for name in names):
                raise self._error("client", '"both.pem" or [["client.cert", "client.key"]]')
            yield self.folder / names[0], self.folder / names[1]

    def _headers(self) -> Iterator[tuple[str, str]]:
        value = self.row.get("header", {})
        if not isinstance(value, dict):
            raise self._error("header", "a table of strings")
        for name in value:
            for text in _Row(value, self.folder, f"{self.where}, header").strings(name):
                if not _TOKEN.fullmatch(name) or any(ord(c) < 32 or ord(c) == 127 for c in text):
                    raise self._error("header", "names and values as HTTP allows them")
                yield name, text

    def _connect_s(self) -> float | None:
        text = self.row.get("dial_timeout", "")
        if text == "":
            return None
        try:
            return duration_s(str(text)) or None
        except ValueError:
            raise self._error("dial_timeout", 'a duration as "1s" or "1m30s"') from None

    def strings(self, key: str) -> list[str]:
        """A string, or a list of them."""
        value = self.row.get(key, [])
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise self._error(key, "a string or a list of strings")
        return found

    def _flag(self, key: str) -> bool:
        value = self.row.get(key, False)
        if not isinstance(value, bool):
            raise self._error(key, "true or false")
        return value

    def _error(self, key: str, wanted: str) -> ConfigError:
        return ConfigError(f"{self.where}: {key} is not {wanted}")
