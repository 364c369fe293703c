"""Directories that hold one host's certificates or ``hosts.toml``: where they are, and what their file names mean.

``*.crt`` is an authority, ``*.cert`` a client's certificate, its key the ``*.key`` of the same stem. The files' names
are read once, their contents only by those who connect.

Spec: containers-certs.d(5); docker "Verify repository client with certificates"; containerd docs/hosts.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from fastoci.errors import ConfigError
from fastoci.registry.config import files

_LOG: Final = logging.getLogger(__name__)
_HOSTS = "hosts.toml"


class Folder(msgspec.Struct, frozen=True):
    """One host's directory as it was when it was read."""

    path: Path
    names: tuple[str, ...]
    hosts: bytes | None = None  # what hosts.toml holds
    problem: str = ""  # why hosts.toml could not be read; matters only to those who ask for this host

    def certificates(self) -> tuple[tuple[Path, ...], tuple[tuple[Path, Path], ...]]:
        """The authorities, and the client's pairs of certificate and key.

        Raises:
            ConfigError: a certificate without its key, or a key without its certificate.
        """
        ca, client = [], []
        for name in self.names:
            stem, _, kind = name.rpartition(".")
            other = {"cert": f"{stem}.key", "key": f"{stem}.cert"}.get(kind)
            if other is not None and other not in self.names:
                raise ConfigError(
                    f"{self.path / name}: {other} is missing beside it (an authority's file is named *.crt)"
                )
            if kind == "crt":
                ca.append(self.path / name)
            elif kind == "cert":
                client.append((self.path / name, self.path / f"{stem}.key"))
        return tuple(ca), tuple(client)


def config_directories(environ: Mapping[str, str], uid: int, root: Path) -> Iterator[Path]:
    """The directories whose sub-directories are named by host; the first that has the host counts."""
    if home := config_home(environ):
        yield home / "containers/certs.d"
    for base in (root / "etc/containers", root / "usr/share/containers"):
        if uid == 0:
            yield base / "certs.rootful.d"
        else:
            yield base / f"certs.rootless.d/{uid}"
            yield base / "certs.rootless.d"
        yield base / "certs.d"
    yield root / "etc/docker/certs.d"


def config_home(environ: Mapping[str, str]) -> Path | None:
    """Where the user's own configuration is; None without a home."""
    if given := environ.get("XDG_CONFIG_HOME"):
        return Path(given)
    home = environ.get("HOME")
    return Path(home, ".config") if home else None


def scan(directory: Path, *, own: bool = False) -> Mapping[str, Folder]:
    """The hosts' directories below a directory, by their names; none when it is absent or another user's.

    Args:
        own: as for ``read``.
    """
    names = files.names(directory) or ()
    found = {name: folder for name in names if (folder := read(directory / name, own=own)) is not None}
    if found:
        _LOG.debug("%s: directories of %s", directory, ", ".join(found))
    return found


def read(path: Path, *, own: bool = False) -> Folder | None:
    """One host's directory; None when it is none, or another user's.

    Args:
        own: it is below the user's home: what may not be read there is another user's, and as absent.
    """
    names = files.names(path)
    if names is None:
        return None
    if own:
        hidden = {name for name in names if not os.access(path / name, os.R_OK)}
        hidden |= {name.removesuffix(".key") + ".cert" for name in hidden}  # without its key it is none
        names = tuple(name for name in names if name not in hidden)
    hosts, problem = None, ""
    if _HOSTS in names:
        try:
            hosts = files.read(path / _HOSTS, "configuration file")
        except ConfigError as error:
            problem = error.message
    return Folder(path, names, hosts, problem)
