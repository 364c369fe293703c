"""Mirrors, for containerd as ``hosts.toml`` of each registry, for podman as one file of ``registries.conf.d``.

Spec: containerd docs/hosts.md; containers-registries.conf.d(5).
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from fastoci.configure import toml_text
from fastoci.configure.containerd_config import BY, Merged, Read, Release
from fastoci.configure.edits import Edit
from fastoci.configure.plan import header, own_file
from fastoci.configure.toml_text import Table
from fastoci.errors import ConfigError

TRANSFER: Final = "io.containerd.transfer.v1.local"
_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?|\[[0-9A-Fa-f:]+\](?::[0-9]{1,5})?")
_URL: Final = re.compile(rf"(?P<scheme>https?)://(?P<place>(?:{_HOST.pattern})(?:/[A-Za-z0-9._~/-]*)?)")
_UPSTREAM: Final = {"docker.io": "registry-1.docker.io"}


class Mirror(msgspec.Struct, frozen=True):
    """A server that is asked before a registry."""

    registry: str
    scheme: str
    place: str

    @classmethod
    def parse(cls, text: str) -> Mirror:
        """Read ``HOST=URL``.

        Raises:
            ConfigError: it is something else.
        """
        registry, _, url = text.partition("=")
        match = _URL.fullmatch(url)
        if not _HOST.fullmatch(registry) or match is None:
            raise ConfigError(f"{text!r} is not a mirror: docker.io=http://127.0.0.1:5000")
        return cls(registry, match["scheme"], match["place"].rstrip("/"))


def containerd_tables(base: Merged, usual: str, release: Release) -> tuple[str, dict[str, Table]]:
    """Where ``hosts.toml`` files go, and the tables of plugins that make containerd read them.

    Args:
        usual: the directory, where none is configured.
    Raises:
        ConfigError: the configuration has mirrors in another form, beside which these are not allowed.
    """
    uri = _cri(base)
    registry = base.plugin(uri).get("registry", {})
    for key in ("mirrors", "configs", "auths"):
        if registry.get(key):
            raise ConfigError(f"{uri} has registry.{key}, which containerd does not take beside hosts.toml files")
    cri, transfer = _paths(base)
    found = cri or transfer or usual
    tables: dict[str, Table] = {}
    if not cri:
        tables[uri] = {"registry": {**(registry if release < (2, 0, 0) else {}), "config_path": found}}
    if not transfer and release >= (1, 7, 0):
        tables[TRANSFER] = {"config_path": found}
    return hosts_directory(base, usual), tables


def hosts_directory(base: Merged, usual: str) -> str:
    """Where ``hosts.toml`` files are: the first of several such directories."""
    return next((path for path in _paths(base) if path), usual).split(":")[0]


def _cri(base: Merged) -> str:
    return "io.containerd.cri.v1.images" if base.version >= 3 else "io.containerd.grpc.v1.cri"


def _paths(base: Merged) -> tuple[str, str]:
    """Where CRI and transfers look for them; empty where that is not configured."""
    return base.plugin(_cri(base)).get("registry", {}).get("config_path", ""), base.plugin(TRANSFER).get(
        "config_path", ""
    )


def hosts_files(mirrors: Sequence[Mirror], directory: str, read: Read) -> list[Edit]:
    """The ``hosts.toml`` of each registry; those that this program made before for others go.

    Raises:
        ConfigError: somebody else's file is there.
    """
    texts: dict[str, str | None] = {
        f"{directory}/{registry}/hosts.toml": _hosts(registry, each) for registry, each in _grouped(mirrors)
    }
    for path in sorted(glob.glob(f"{glob.escape(directory)}/*/hosts.toml")):
        if path not in texts and (read(path) or b"").startswith(header(BY)):
            texts[path] = None
    return [own_file(path, BY, text, read) for path, text in texts.items()]


def podman_file(mirrors: Sequence[Mirror], path: str, by: str, read: Read) -> Edit:
    """The file of ``registries.conf.d``; none without mirrors.

    Raises:
        ConfigError: another file says of a registry what this one would replace.
    """
    for each in (f"{os.path.dirname(os.path.dirname(path))}/registries.conf", *_others(path)):
        for table in toml_text.parse(read(each) or b"", each).get("registry", []):
            for mirror in mirrors:
                if mirror.registry in (table.get("prefix"), table.get("location")):
                    raise ConfigError(f"{each} says where {mirror.registry} is: write its mirror there")
    texts = [
        "\n".join(
            (
                f"\n[[registry]]\nprefix = {name}\nlocation = {name}",
                *(
                    f"[[registry.mirror]]\nlocation = {toml_text.string(mirror.place)}"
                    f"\ninsecure = {str(mirror.scheme == 'http').lower()}"
                    for mirror in each
                ),
            )
        )
        for registry, each in _grouped(mirrors)
        for name in (toml_text.string(registry),)
    ]
    return own_file(path, by, "\n".join(texts) + "\n" if texts else None, read)


def _others(path: str) -> list[str]:
    found = glob.glob(f"{glob.escape(os.path.dirname(path))}/*.conf")
    return sorted(each for each in found if each != path)


def _grouped(mirrors: Sequence[Mirror]) -> list[tuple[str, list[Mirror]]]:
    names = dict.fromkeys(each.registry for each in mirrors)
    return [(name, [each for each in mirrors if each.registry == name]) for name in names]


def _hosts(registry: str, mirrors: Sequence[Mirror]) -> str:
    server = toml_text.string(f"https://{_UPSTREAM.get(registry, registry)}")
    tables: dict[tuple[str, ...], Table] = {
        ("host", f"{each.scheme}://{each.place}"): {"capabilities": ["pull", "resolve"]} for each in mirrors
    }
    return f"server = {server}\n\n{toml_text.tables(tables)}"
