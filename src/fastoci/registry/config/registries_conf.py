"""``registries.conf``: which files apply, and what their ``[[registry]]`` tables say about a name.

Only version 2. Short names are not resolved here: every reference is complete before it comes (``Reference``), so
``unqualified-search-registries`` and ``[aliases]`` are not used. Unknown keys are ignored, as other tools do.

Spec: containers-registries.conf(5), containers-registries.conf.d(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path

import msgspec

from fastoci.errors import ConfigError
from fastoci.registry.config import files
from fastoci.registry.config.certs_d import config_home


class When(Enum):
    """Which references a mirror may be asked for."""

    ALWAYS = "all"
    DIGEST = "digest-only"
    TAG = "tag-only"


class Location(msgspec.Struct, frozen=True):
    """Where a prefix's repositories are. An empty ``location`` (wildcard prefixes only) leaves the name as it is."""

    location: str
    insecure: bool = False
    when: When = When.ALWAYS


class Registry(msgspec.Struct, frozen=True):
    """One ``[[registry]]`` table, and the file it comes from."""

    prefix: str
    origin: Location
    mirrors: tuple[Location, ...] = ()
    blocked: bool = False
    file: Path = Path()

    def rewrite(self, name: str, location: Location) -> str:
        """What a name that the prefix matches is called at a location."""
        end = _matched(name, self.prefix)
        assert end is not None
        return location.location + name[end:] if location.location else name


class RegistriesConf(msgspec.Struct, frozen=True):
    """All files' tables, one a prefix, in the order of the prefixes."""

    tables: tuple[Registry, ...] = ()
    credential_helpers: tuple[str, ...] = ()

    def find(self, name: str) -> Registry | None:
        """The table with the longest prefix that matches ``domain/path``."""
        matching = [table for table in self.tables if _matched(name, table.prefix) is not None]
        return max(matching, key=lambda table: len(table.prefix), default=None)


def named(environ: Mapping[str, str]) -> Path | None:
    """The file that the environment names as the only one."""
    text = environ.get("CONTAINERS_REGISTRIES_CONF") or environ.get("REGISTRIES_CONFIG_PATH")
    return Path(text) if text else None


def load(environ: Mapping[str, str], uid: int, *, root: Path, only: Path | None = None) -> RegistriesConf:
    """Read the files that apply.

    Args:
        root: what ``/etc`` and ``/usr`` are below.
        only: the only file to read; what ``CONTAINERS_REGISTRIES_CONF_OVERRIDE`` names comes after it all the same.
    Raises:
        ConfigError: a file does not say what it should, or one that was asked for by name cannot be read.
    """
    tables: dict[str, Registry] = {}
    helpers: tuple[str, ...] = ()
    for path, demanded in _files(environ, uid, root, only):
        data = (files.read if demanded else files.read_if_there)(path, "configuration file")
        if data is None:
            continue
        read = parse(data, path)
        # Of one prefix a later file's table replaces an earlier one's; within a file the first counts.
        tables |= {table.prefix: table for table in reversed(read.tables)}
        helpers = read.credential_helpers or helpers
    merged = tuple(tables[prefix] for prefix in sorted(tables))
    _check_conflicts(merged)
    return RegistriesConf(merged, helpers)


def parse(data: bytes, file: Path) -> RegistriesConf:
    """One file's tables, in its order.

    Raises:
        ConfigError: it is not TOML, is in the form of version 1, or a key holds what it may not.
    """
    document = toml(data, file)
    old = document.get("registries")
    if isinstance(old, dict) and any(isinstance(part, dict) and part.get("registries") for part in old.values()):
        raise ConfigError(
            f"{file}: [registries.search], [registries.insecure] and [registries.block] are the old form of this file; "
            "write [[registry]] tables instead, see containers-registries.conf(5)"
        )
    rows = _rows(document, "registry", str(file))
    tables = tuple(_table(row, f"{file}: [[registry]] number {number}", file) for number, row in enumerate(rows, 1))
    _check_conflicts(tables)
    helpers = document.get("credential-helpers", [])
    if not isinstance(helpers, list) or not all(isinstance(helper, str) for helper in helpers):
        raise ConfigError(f"{file}: credential-helpers is not a list of strings")
    return RegistriesConf(tables, tuple(helpers))


def toml(data: bytes, file: Path) -> dict[str, object]:
    """The document in a TOML file.

    Raises:
        ConfigError: it is not TOML; says where.
    """
    import tomllib  # when there is a file

    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        problem = str(error) if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
        raise ConfigError(f"{file}: not TOML: {problem}") from error


def _files(environ: Mapping[str, str], uid: int, root: Path, only: Path | None) -> Iterator[tuple[Path, bool]]:
    """The files in the order they are read, and whether each must be there."""
    if only is not None:
        yield only, True
    else:
        yield from ((path, False) for path in _usual(environ, uid, root))
    if override := environ.get("CONTAINERS_REGISTRIES_CONF_OVERRIDE"):
        yield Path(override), True


def _usual(environ: Mapping[str, str], uid: int, root: Path) -> Iterator[Path]:
    """The first main file that exists, then all drop-ins; the same name counts once, the user's first."""
    bases = [root / "usr/share/containers", root / "etc/containers"]
    rights = ["registries.rootful.conf.d"] if uid == 0 else ["registries.rootless.conf.d"]
    if uid != 0:
        rights.append(f"registries.rootless.conf.d/{uid}")
    folders = [base / name for base in bases for name in ("registries.conf.d", *rights)]
    found = [path for base in reversed(bases) if os.path.exists(path := base / "registries.conf")]
    dropped = {path.name: path for folder in folders for path in _drop_ins(folder)}
    if home := config_home(environ):
        # What this user may not read there is another user's, whose HOME was kept: it is as absent.
        own = home / "containers/registries.conf"
        found = [own, *found] if os.access(own, os.R_OK) else found
        own_drop_ins = _drop_ins(home / "containers/registries.conf.d")
        dropped |= {path.name: path for path in own_drop_ins if os.access(path, os.R_OK)}
    yield from found[:1]
    yield from (dropped[name] for name in sorted(dropped))


def _drop_ins(folder: Path) -> Iterator[Path]:
    names = files.names(folder) or ()
    return (folder / name for name in names if name.endswith(".conf") and os.path.isfile(folder / name))


def _table(row: Mapping[str, object], where: str, file: Path) -> Registry:
    prefix, location = _location(row, "prefix", where), _location(row, "location", where)
    if not location and not prefix.startswith("*."):
        raise ConfigError(f"{where} has no location")
    if "pull-from-mirror" in row:
        raise ConfigError(f"{where}: pull-from-mirror belongs to a [[registry.mirror]] table")
    digest_only = _flag(row, "mirror-by-digest-only", where)
    mirrors = tuple(
        _mirror(each, f"{where}, [[registry.mirror]] number {number}", digest_only)
        for number, each in enumerate(_rows(row, "mirror", where), 1)
    )
    origin = Location(location, _flag(row, "insecure", where))
    return Registry(prefix or location, origin, mirrors, _flag(row, "blocked", where), file)


def _mirror(row: Mapping[str, object], where: str, digest_only: bool) -> Location:
    location = _location(row, "location", where)
    if not location:
        raise ConfigError(f"{where} has no location")
    text = _string(row, "pull-from-mirror", where)
    if text and digest_only:
        raise ConfigError(f"{where}: pull-from-mirror and the registry's mirror-by-digest-only exclude each other")
    try:
        when = When(text or "all")
    except ValueError:
        raise ConfigError(f"{where}: pull-from-mirror is {text!r}; write all, digest-only or tag-only") from None
    return Location(location, _flag(row, "insecure", where), When.DIGEST if digest_only else when)


def _check_conflicts(tables: tuple[Registry, ...]) -> None:
    """One location may be behind several prefixes, but not with two answers to whether it may be used, and how."""
    seen: dict[str, Registry] = {}
    for table in tables:
        first = seen.setdefault(table.origin.location or table.prefix, table)
        if (first.origin.insecure, first.blocked) != (table.origin.insecure, table.blocked):
            raise ConfigError(
                f"{table.file}: the registries {first.prefix!r} (in {first.file}) and {table.prefix!r} have the same "
                "location, but 'insecure' or 'blocked' differ; make them alike"
            )


def _matched(name: str, prefix: str) -> int | None:
    """How many characters of a name a prefix covers; None when it does not match.

    ``example.com`` also covers ``example.com:5000``: a colon ends a match as a slash does.
    """
    if prefix.startswith("*."):
        start = name.find(prefix[1:])
        if start < 0 or "/" in name[:start]:
            return None
        end = start + len(prefix) - 1
    elif name.startswith(prefix):
        end = len(prefix)
    else:
        return None
    return end if end == len(name) or name[end] in ":/@" else None


def _rows(row: Mapping[str, object], key: str, where: str) -> list[Mapping[str, object]]:
    rows = row.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(each, dict) for each in rows):
        raise ConfigError(f"{where}: {key!r} is not an array of tables; write [[...]] with two brackets")
    return rows


def _location(row: Mapping[str, object], key: str, where: str) -> str:
    text = _string(row, key, where).rstrip("/")
    if "://" in text:
        raise ConfigError(f"{where}: {key} has a scheme; write host[:port][/path] (and insecure = true for plain http)")
    return text


def _string(row: Mapping[str, object], key: str, where: str) -> str:
    value = row.get(key, "")
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {key} is not a string")
    return value


def _flag(row: Mapping[str, object], key: str, where: str) -> bool:
    value = row.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: {key} is neither true nor false")
    return value
