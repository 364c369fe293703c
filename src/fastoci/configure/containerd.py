"""How containerd is told to unpack by the differ of this program, and to take layers out of its store.

What is asked for is a file of its own that the main one imports. The main file keeps what is there; only the path of
that file is put into its ``imports``. What comes out is merged again, as containerd does it, and has to say what is
wanted.

Spec: docs/containerd.md; containerd docs/PLUGINS.md, "Proxy Plugins", docs/snapshotters/erofs.md.
"""

from __future__ import annotations

import json
import os
from typing import Any, Final

import msgspec

from fastoci.configure import toml_text
from fastoci.configure.containerd_config import BY, Merged, Read, Release, imports, load
from fastoci.configure.edits import Edit
from fastoci.configure.mirrors import TRANSFER, Mirror, containerd_tables, hosts_directory, hosts_files
from fastoci.configure.plan import ConfigurationPlan, after, header, own_file
from fastoci.configure.toml_text import Table
from fastoci.errors import ConfigError, UnsupportedError
from fastoci.image.platform import Platform

DIFFER: Final = "fastoci"
DIFFERS_SINCE: Final = (1, 7, 4)
CACHE_SINCE: Final = (2, 4, 0)
EROFS: Final = "erofs"
DIFF_SERVICE: Final = "io.containerd.service.v1.diff-service"
EROFS_SNAPSHOTTER: Final = "io.containerd.snapshotter.v1.erofs"
_WALKING: Final = "walking"
_ADDRESS: Final = "/run/containerd/containerd.sock"  # which the differ asks when nobody says otherwise
_OWN_NAME: Final = "conf.d/zz-fastoci.toml"  # the last of the usual names: what it says counts
_LOOKED_FOR: Final = 4  # unpacks at once: with 1, containerd looks for no layers
_STORE_FIELD: Final = "containerd"  # of fastoci.json
_CRI: Final = (  # (plugin, keys down to the snapshotter): of version 3, of version 2
    ("io.containerd.cri.v1.images", ("snapshotter",)),
    ("io.containerd.grpc.v1.cri", ("containerd", "snapshotter")),
)


class Wanted(msgspec.Struct, frozen=True):
    """What containerd is configured for.

    Args:
        main: its configuration file.
        socket: where the differ listens.
        store: whose layers it takes, when it unpacks for the snapshotter erofs.
        snapshotters: that are unpacked for; none for those that the configuration names.
        mirrors: that are asked before registries.
    """

    main: str
    socket: str
    store: str
    snapshotters: tuple[str, ...] = ()
    mirrors: tuple[Mirror, ...] = ()

    @property
    def own(self) -> str:
        """The file that is imported."""
        return own_path(self.main)


def own_path(main: str) -> str:
    """The file of this program beside a configuration file."""
    return f"{os.path.dirname(main)}/{_OWN_NAME}"


def plan(wanted: Wanted, release: Release, read: Read) -> ConfigurationPlan:
    """What makes this containerd unpack as wanted.

    Raises:
        UnsupportedError: this containerd would not start with a differ.
        ConfigError: a file cannot be edited, or says what cannot be kept.
    """
    base = load(wanted.main, _without(read, wanted.own), release=release, own=wanted.own)
    _check(base, wanted, release)
    tables, notes, edits = _tables(base, wanted, release, read)
    version = base.version or (0 if base.is_there else _newest_form(release))
    text = (f"version = {version}\n\n" if version else "\n") + toml_text.tables(tables)
    edits.append(own_file(wanted.own, BY, text, read))
    before = read(wanted.main)
    seed = header(BY) + f"version = {version}\n".encode() if before is None else before
    if wanted.own not in base.files:
        edits.append(Edit(wanted.main, before, imports(wanted.main).with_string(seed, wanted.own)))
    _check_result(edits, tables, wanted, read, release)
    return ConfigurationPlan(tuple(edits), tuple(notes), ("containerd",))


def undo(main: str, linked: bool, read: Read) -> ConfigurationPlan:
    """What takes away what ``plan`` made.

    Args:
        linked: whether snapshots still lead into the store: then it goes on to know of them.
    Raises:
        ConfigError: a file cannot be edited.
    """
    own = own_path(main)
    edits, notes = [], list[str]()
    before = read(main)
    if before is not None:
        rest: bytes | None = imports(main).without_string(before, own)
        if rest != before and rest and rest.startswith(header(BY)) and len(rest.splitlines()) == 2:
            rest = None
        edits.append(Edit(main, before, rest))
    edits.append(own_file(own, BY, None, read))
    edits += hosts_files((), hosts_directory(_as_it_is(main, read), _usual_hosts(main)), read)
    for store, root in used_stores(main, read):
        if linked:
            notes.append(f"snapshots of containerd lead into {store}: its gc goes on to keep what they need")
        else:
            edits.append(_store_edit(store, root, read, gone=True))
    return ConfigurationPlan(tuple(edits), tuple(notes), ("containerd",))


def used_stores(main: str, read: Read) -> list[tuple[str, str]]:
    """The stores whose layers this containerd takes because of ``plan``, each with the directory of the snapshotter."""
    own = own_path(main)
    document = toml_text.parse(read(own) or b"", own)
    caches = document.get("plugins", {}).get(EROFS_SNAPSHOTTER, {}).get("layer_content_caches", [])
    root = snapshotter_root(_as_it_is(main, read))
    return [(os.path.dirname(cache), root) for cache in caches if os.path.basename(cache) == "layers"]


def _usual_hosts(main: str) -> str:
    return f"{os.path.dirname(main)}/certs.d"


def _as_it_is(main: str, read: Read) -> Merged:
    """The configuration, whichever release it is for: what is asked of it here is merged by all in the same way."""
    return load(main, read, release=CACHE_SINCE, own=own_path(main))


def address(main: str, read: Read) -> str:
    """The socket where a containerd of this configuration listens.

    Raises:
        ConfigError: the configuration cannot be read.
    """
    return _address(_as_it_is(main, read))


def _address(base: Merged) -> str:
    found = base.plugin("io.containerd.server.v1.grpc").get("address") or base.table("grpc").get("address")
    return str(found or _ADDRESS)


def snapshotter_root(merged: Merged) -> str:
    """The directory of the erofs snapshotter."""
    root = merged.document.get("root") or "/var/lib/containerd"
    return str(merged.plugin(EROFS_SNAPSHOTTER).get("root_path") or f"{root}/{EROFS_SNAPSHOTTER}")


def _without(read: Read, own: str) -> Read:
    return lambda path: None if path == own else read(path)


def _newest_form(release: Release) -> int:
    """The version that a new configuration file has."""
    return 3 if release >= (2, 0, 0) else 2


def _check(base: Merged, wanted: Wanted, release: Release) -> None:
    if release < DIFFERS_SINCE and not wanted.mirrors:
        raise UnsupportedError(
            f"containerd {_dotted(release)} takes no differ beside its own, and does not start with one in its"
            f" configuration: {_dotted(DIFFERS_SINCE)} is the first that does. `fastoci pull --into containerd` needs"
            " none. Nothing was written"
        )
    if release < (2, 0, 0) and base.is_there and base.version != 2:
        raise ConfigError(
            f"{wanted.main} is of version {base.version or 1}: write `version = 2` at its beginning, and the long names"
            ' of plugins ("io.containerd.grpc.v1.cri" for "cri"). Nothing was written'
        )
    there = base.table("proxy_plugins").get(DIFFER)
    if there is not None and there != _proxy(wanted.socket):
        raise ConfigError(f"{wanted.main}, or what it imports, has another proxy plugin of the name {DIFFER}")


def _dotted(release: Release) -> str:
    return ".".join(map(str, release))


def _proxy(socket: str) -> Table:
    return {"type": "diff", "address": socket}


def _in_use(base: Merged) -> tuple[str, ...]:
    """The snapshotters that the configuration names, for CRI or for transfers; else the usual one."""
    found = [each.get("snapshotter") for each in _entries(base) or () if _is_plain(each)]
    for plugin, keys in _CRI:
        value: Any = base.plugin(plugin)
        for key in keys:
            value = value.get(key, {}) if isinstance(value, dict) else None
        found.append(value)
    return tuple(dict.fromkeys(each for each in found if isinstance(each, str) and each)) or ("overlayfs",)


def _entries(base: Merged) -> list[Table] | None:
    """How transfers unpack; None where nothing is configured, and containerd's defaults count."""
    entries = base.plugin(TRANSFER).get("unpack_config")
    if entries is not None and not (isinstance(entries, list) and all(isinstance(each, dict) for each in entries)):
        raise ConfigError(f"unpack_config of {TRANSFER} is not an array of tables")
    return entries


def _is_plain(entry: Table) -> bool:
    """Whether images without features are meant: those that need EROFS natively are not for this differ."""
    return "+" not in str(entry.get("platform", ""))


def _tables(
    base: Merged, wanted: Wanted, release: Release, read: Read
) -> tuple[dict[tuple[str, ...], Table], list[str], list[Edit]]:
    """The tables of the own file, what there is to say of them, and the files that have to be there before it."""
    plugins: dict[str, Table] = {}
    notes, edits = list[str](), list[Edit]()
    proxies: dict[tuple[str, ...], Table] = {}
    if release >= DIFFERS_SINCE:
        proxies["proxy_plugins", DIFFER] = _proxy(wanted.socket)
        snapshotters = wanted.snapshotters or _in_use(base)
        order = base.plugin(DIFF_SERVICE).get("default") or [_WALKING]
        plugins[DIFF_SERVICE] = {"default": [DIFFER, *(each for each in order if each != DIFFER)]}
        plugins[TRANSFER] = {"unpack_config": _unpack_config(base, snapshotters, release)}
        if EROFS in snapshotters and not (refusal := _refusal_of_cache(base, release)):
            _use_layers(plugins, base, f"{wanted.store}/layers")
            edits.append(_store_edit(wanted.store, snapshotter_root(base), read))
        elif EROFS in snapshotters:
            notes.append(refusal)
        notes += _notes_on_parallel(base, plugins[TRANSFER])
        if (address := _address(base)) != _ADDRESS:
            notes.append(f"start the differ with --containerd-address {address}: it asks containerd where blobs are")
    else:
        notes.append(f"containerd {_dotted(release)} takes no differ: only mirrors are configured")
    usual = _usual_hosts(wanted.main)
    directory, more = hosts_directory(base, usual), dict[str, Table]()
    if wanted.mirrors:
        directory, more = containerd_tables(base, usual, release)
    edits += hosts_files(wanted.mirrors, directory, read)
    for uri, table in more.items():
        plugins[uri] = {**plugins.get(uri, {}), **table}
    whole = release < (2, 0, 0)  # which replaces a plugin's table by that of the file that comes last
    found = proxies | {
        ("plugins", uri): {**base.plugin(uri), **table} if whole else table for uri, table in plugins.items()
    }
    return found, notes, edits


def _use_layers(plugins: dict[str, Table], base: Merged, own: str) -> None:
    """Have the erofs snapshotter look for layers in a directory."""
    plugins[TRANSFER]["max_concurrent_unpacks"] = max(_unpacks(base), _LOOKED_FOR)
    caches = base.plugin(EROFS_SNAPSHOTTER).get("layer_content_caches", [])
    plugins[EROFS_SNAPSHOTTER] = {"layer_content_caches": [*(each for each in caches if each != own), own]}


def _unpacks(base: Merged) -> int:
    found = base.plugin(TRANSFER).get("max_concurrent_unpacks", 1)
    return found if isinstance(found, int) else 1


def _notes_on_parallel(base: Merged, transfer: Table) -> list[str]:
    unpacks = transfer.get("max_concurrent_unpacks", _unpacks(base))
    if unpacks <= 1:
        return []
    return [
        f"max_concurrent_unpacks is {unpacks}: of directories that a layer does not name, containerd then loses owner,"
        " mode and extended attributes (docs/containerd.md)"
    ]


def _unpack_config(base: Merged, snapshotters: tuple[str, ...], release: Release) -> list[Table]:
    """The entries that count now, or the defaults, each with this differ where it can be."""
    platform = str(Platform.host())
    entries = _entries(base)
    if entries is None:
        entries = [{"platform": platform, "snapshotter": "overlayfs"}]
        if release >= (2, 3, 0):  # a default of containerd: images whose layers are EROFS files
            native = platform.replace("linux", "linux(+erofs)", 1)
            entries.append({"platform": native, "snapshotter": EROFS, "differ": EROFS, "optional": True})
    found = [{**each, "differ": DIFFER} if _is_ours(each, snapshotters) else each for each in entries]
    there = {each.get("snapshotter") for each in found if _is_plain(each)}
    missing = [each for each in snapshotters if each not in there]
    # A snapshotter that cannot be used here must not keep transfers from starting.
    optional = {"optional": True} if release >= (2, 3, 0) else {}
    added = ({"platform": platform, "snapshotter": each, "differ": DIFFER, **optional} for each in missing)
    return [*found, *added]


def _is_ours(entry: Table, snapshotters: tuple[str, ...]) -> bool:
    """Whether this differ takes the place of containerd's own, or of none: with none, a release chooses any."""
    usual = entry.get("differ", "") in ("", _WALKING, DIFFER)
    return _is_plain(entry) and (usual or (entry["differ"] == EROFS and EROFS in snapshotters))


def _refusal_of_cache(base: Merged, release: Release) -> str:
    """Why layers of the store are not used; empty where they are."""
    if release < CACHE_SINCE:
        return "layers are not taken from the store: containerd does that from 2.4 on"
    for key in ("enable_fsverity", "set_immutable"):
        if base.plugin(EROFS_SNAPSHOTTER).get(key):
            return f"layers are not taken from the store: containerd does not do that with {key} = true"
    return ""


def _store_edit(store: str, root: str, read: Read, *, gone: bool = False) -> Edit:
    """Let the store's gc know of the snapshots that lead into it, or no more. Spec: docs/store-format.md 9."""
    path = f"{store}/fastoci.json"
    before = read(path)
    if before is None:
        if gone:
            return Edit(path, None, None)
        raise ConfigError(f"there is no store at {store}: fastoci pull makes one")
    try:
        document = json.loads(before)
        roots = document.pop(_STORE_FIELD, [])
        left = [each for each in roots if each != root]
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is not the mark of a store: {error}") from error
    if (root in roots) is not gone:
        return Edit(path, before, before)
    left += [] if gone else [root]
    return Edit(path, before, json.dumps({**document, **({_STORE_FIELD: left} if left else {})}).encode() + b"\n")


def _check_result(
    edits: list[Edit], tables: dict[tuple[str, ...], Table], wanted: Wanted, read: Read, release: Release
) -> None:
    """Read all as containerd will."""
    result = load(wanted.main, after({edit.path: edit for edit in edits}, read), release=release, own=wanted.own)
    for (kind, name), table in tables.items():
        there = result.table(kind).get(name, {})
        if any(there.get(key) != value for key, value in table.items()):
            later = result.files[result.files.index(wanted.own) + 1 :]
            raise ConfigError(f"{name} is configured otherwise in a file that comes later: {' or '.join(later)}")
