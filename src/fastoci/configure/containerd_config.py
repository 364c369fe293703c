"""What containerd reads: its configuration file and all that it imports, merged as containerd merges them.

Files come one after another, breadth first; a later one wins. containerd 2 merges the tables of a plugin key by key,
and arrays in them are replaced. containerd 1 replaces the whole table of a plugin. The imports of a pattern are in the
order of their names.

Spec: containerd docs/man/containerd-config.toml.5.md, "imports"; its cmd/containerd/server/config/config.go.
"""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from fastoci.configure.toml_text import Place, Table, parse
from fastoci.errors import ConfigError

BY: Final = "fastoci configure containerd"
_FILES: Final = 1000  # that import one another

Read = Callable[[str], bytes | None]
Release = tuple[int, int, int]


class Merged(msgspec.Struct, frozen=True):
    """A configuration.

    Args:
        version: of the file's form, as the main file says; 0 where it says nothing.
        document: all files, merged.
        files: that were read, in their order.
        is_there: whether there is a main file.
    """

    version: int
    document: Table
    files: tuple[str, ...]
    is_there: bool

    def plugin(self, uri: str) -> Table:
        """What is configured of a plugin."""
        found: Table = self.table("plugins").get(uri, {})
        return found

    def table(self, name: str) -> Table:
        """A table; an empty one where there is none."""
        found: Table = self.document.get(name, {})
        return found


def imports(path: str) -> Place:
    """Where a configuration file says what else is read."""
    return Place(path, (), "imports", by=BY)


def load(path: str, read: Read, *, release: Release, own: str | None = None) -> Merged:
    """Read a configuration.

    Args:
        read: gives a file's bytes; None of one that is not there.
        release: containerd's, which merges in its own way.
        own: a file that counts as there, whether it is or not: it is among ``files`` when it is imported.
    Raises:
        ConfigError: a file is not there, not TOML, or says what containerd does not take.
    """
    pending, done, version = [path], list[str](), 0
    document: Table = {}
    is_there = True
    while pending:
        if (each := pending.pop(0)) in done:
            continue
        if len(done) >= _FILES:
            raise ConfigError(f"{path}: more than {_FILES} files import one another")
        data = read(each)
        if data is None and each not in (path, own):
            raise ConfigError(f"{each} is not there, and is imported: containerd does not start")
        found = parse(data or b"", each)
        if each == path:
            version, is_there = _version(found, path), data is not None
        _merge(document, found, each, deep=release >= (2, 0, 0))
        done.append(each)
        pending += _resolved(each, imports(each).values(found), own, relative=release >= (1, 7, 28))
    return Merged(version, document, tuple(done), is_there)


def _version(document: Table, path: str) -> int:
    version = document.get("version", 0)
    if type(version) is not int or version < 0:
        raise ConfigError(f"{path}: version is not a number")
    return version


def _absolute(path: str, pattern: str, *, relative: bool) -> str | None:
    """A pattern from the root; None of one that containerd takes from its own working directory."""
    if not os.path.isabs(pattern) and "*" in pattern and not relative:
        return None
    return os.path.normpath(os.path.join(os.path.dirname(path), pattern))


def _resolved(path: str, patterns: list[str], own: str | None, *, relative: bool) -> Iterator[str]:
    for pattern in patterns:
        absolute = _absolute(path, pattern, relative=relative)
        if absolute is not None:
            yield from sorted(_matching(absolute, own)) if "*" in pattern else (absolute,)


def _matching(pattern: str, own: str | None) -> set[str]:
    found = set(glob.glob(pattern, include_hidden=True))
    above, name = os.path.split(pattern)
    if own is not None and above == os.path.dirname(own) and fnmatch.fnmatchcase(os.path.basename(own), name):
        found.add(own)
    return found


def _merge(into: Table, found: Table, path: str, *, deep: bool) -> None:
    for key, value in found.items():
        there = into.get(key)
        if key in ("plugins", "proxy_plugins"):
            if not isinstance(value, dict) or not all(isinstance(each, dict) for each in value.values()):
                raise ConfigError(f"{path}: {key} is not a table of tables")
            is_deep = deep and key == "plugins"
            tables = {**(there or {})}
            for name, table in value.items():
                tables[name] = _joined(tables.get(name, {}), table) if is_deep else table
            into[key] = tables
        elif isinstance(value, list):
            into[key] = [*(there or []), *(each for each in value if each not in (there or []))]
        else:
            into[key] = _joined(there, value)


def _joined(low: Any, high: Any) -> Any:
    if isinstance(low, dict) and isinstance(high, dict):
        return {**low, **{key: _joined(low.get(key), value) for key, value in high.items()}}
    return high
