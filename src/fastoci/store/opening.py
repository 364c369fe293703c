"""How a store's directory is made, adopted and checked.

Spec: docs/store-format.md 2 and 3; image-spec v1.1 image-layout.md.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastoci import files, locks, path_walk
from fastoci.directory import Directory
from fastoci.errors import ConfigError, FormatError, StoreError, UnsupportedError
from fastoci.image.layout import OCI_LAYOUT, encode_index, parse_layout
from fastoci.store import trust
from fastoci.store.layout import INDEX, LOCK, MARK, StoreLayout

FORMAT: Final = 1
MARK_SIZE: Final = 1 << 16  # bytes of fastoci.json and oci-layout
_LAYOUT: Final = "oci-layout"
# What may be in a directory that counts as empty: the beginning of a store, what `configure podman` makes for podman to
# find, and a fresh ext4's own directory.
_NOTHING: Final = frozenset({LOCK, f".{MARK}.new", "layers", files.LOST_AND_FOUND})
_MADE: Final = {"blobs": 0o755, "blobs/sha256": 0o755, "ingest": 0o700, "refs": 0o755, "leases": 0o700}
_CHECKED: Final = (*_MADE, "blobs/sha512", "unsynced", "layers", "images", "verify", "uploads")


def default_store() -> Path:
    """The store by default: one for the machine when root, else one for the user.

    Raises:
        ConfigError: the user has no home directory.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/fastoci")
    if given := os.environ.get("XDG_DATA_HOME"):
        return Path(given, "fastoci")
    home = path_walk.home(os.environ)
    if home is None:
        raise ConfigError(f"HOME is not set, and no user has the number {os.geteuid()}: name the store's directory")
    return home / ".local" / "share" / "fastoci"


def open_store(path: Path) -> StoreLayout:
    """Check a store's directory; make it when absent or empty, adopt it when it is a plain OCI layout.

    An existing, complete store is only looked at, so one that is read-only opens.

    Raises:
        StoreError: no store, of a newer format, not safe to trust, or it cannot be made.
        StoreFullError: no space to make it.
    """
    root = os.path.abspath(path)
    with files.translated("open the store", root):
        paths = StoreLayout(_top(root, make=True))
        try:
            if not _is_marked(paths.top) or not _is_complete(paths):
                _complete(paths)
            _check(paths)
        except BaseException:
            paths.close()
            raise
    return paths


def existing_store(path: str) -> StoreLayout:
    """Check a store's directory, or an OCI layout's, that is only read and stays as it is.

    Raises:
        StoreError: it is not there, no store, of a newer format, or not safe to trust.
    """
    root = os.path.abspath(path)
    with files.translated("open the store", root):
        paths = StoreLayout(_top(root, make=False))
        try:
            if not _is_marked(paths.top) and not paths.top.has(_LAYOUT):
                raise StoreError(f"{root} is not a store: it is empty", path=root)
            _check(paths)
        except BaseException:
            paths.close()
            raise
    return paths


def foreign_blobs(path: Path) -> StoreLayout:
    """Open a directory of another program that has blobs where a store has them: containerd's content store is one.

    Raises:
        StoreError: it is not there, or not safe to trust.
    """
    with files.translated("open the content store", str(path)):
        return StoreLayout(_top(os.path.abspath(path), make=False))


def _top(root: str, *, make: bool) -> Directory:
    """The store's own directory: opened once, checked, and held."""
    try:
        above, name = path_walk.open_parent(Path(root), make=0o755 if make else None, exact=True)
    except OSError as cause:
        cause.filename = root
        raise
    with Directory(above, os.path.dirname(root).rstrip("/")) as parent:
        if make:
            files.make_directory(parent, name, 0o755)
        return trust.enter(parent, name, (0, os.geteuid()))


def _check(paths: StoreLayout) -> None:
    for name in _CHECKED:
        with suppress(FileNotFoundError):
            paths.directory(name)


def _is_marked(top: Directory) -> bool:
    """Whether this is a store, and one that is understood here; a directory that may become one is none yet."""
    mark = files.read(top, MARK, MARK_SIZE)
    is_foreign = mark is None and bool(set(top.names()) - _NOTHING)
    if is_foreign:
        mark = files.read(top, MARK, MARK_SIZE)  # another process may be making it: the mark comes before all else
    if mark is not None:
        _check_format(mark, top.at(MARK))
        return True
    if is_foreign:
        root = top.path
        layout = files.read(top, _LAYOUT, MARK_SIZE)
        if layout is None:
            raise StoreError(f"{root} is not a store: not empty, and without {MARK} or oci-layout", path=root)
        try:
            parse_layout(layout)
        except (FormatError, UnsupportedError) as error:
            raise StoreError(f"{root} is not a store: oci-layout: {error}", path=root) from error
    return False


def _check_format(mark: bytes, path: str) -> None:
    try:
        document = json.loads(mark)
    except (ValueError, RecursionError) as error:  # also not UTF-8
        raise StoreError(f"{path} is not JSON: {error}", path=path) from error
    version = document.get("format") if isinstance(document, dict) else None
    if type(version) is not int or version < 1:
        raise StoreError(f"{path} names no format", path=path)
    if version > FORMAT:
        raise StoreError(f"{path}: format {version} is newer than {FORMAT}, the newest known here", path=path)


def _is_complete(paths: StoreLayout) -> bool:
    try:
        for name in _MADE:
            paths.directory(name)
    except FileNotFoundError:
        return False
    return paths.top.has(_LAYOUT) and paths.top.has(INDEX)


def _complete(paths: StoreLayout) -> None:
    """Make what is missing. The mark comes first: without it, a half-made store would look like foreign files."""
    top = paths.top
    held = locks.acquire(top, LOCK, wait=True)
    assert held is not None
    try:
        if not _is_marked(top):
            mark = json.dumps({"format": FORMAT}).encode() + b"\n"
            files.replace(top, MARK, mark, temporary=f".{MARK}.new")
        for name, mode in _MADE.items():
            paths.make(name, mode)
        for name, data in ((_LAYOUT, OCI_LAYOUT), (INDEX, encode_index(()))):
            if not top.has(name):
                files.replace(top, name, data, temporary=f".{name}.new")
    finally:
        os.close(held)
