"""The names in a store's directory, and how that directory is made, adopted and checked.

Knows where things are, not what they hold. Spec: docs/store-format.md 1 to 3; image-spec v1.1 image-layout.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastoci.errors import FormatError, StoreError, UnsupportedError
from fastoci.image.digest import Digest
from fastoci.image.layout import OCI_LAYOUT, encode_index, parse_layout
from fastoci.store import disk, lock

FORMAT: Final = 1
MARK_SIZE: Final = 1 << 16  # bytes of fastoci.json and oci-layout
_LOCK: Final = ".lock"
MARK: Final = "fastoci.json"
# What may be in a directory that counts as empty: the beginning of a store, and a fresh ext4's own directory.
_NOTHING: Final = frozenset({_LOCK, f".{MARK}.new", "lost+found"})
_MADE: Final = {"blobs": 0o755, "blobs/sha256": 0o755, "ingest": 0o700, "refs": 0o755, "leases": 0o700}
_CHECKED: Final = (*_MADE, "blobs/sha512", "unsynced", "layers", "verify")


@dataclass(frozen=True, slots=True)
class Paths:
    """Where everything is. ``root`` is absolute."""

    root: str

    @property
    def lock(self) -> str:
        """Held while the store is made and while ``index.json`` is replaced."""
        return f"{self.root}/{_LOCK}"

    @property
    def unsynced(self) -> str:
        return f"{self.root}/unsynced"

    @property
    def refs(self) -> str:
        return f"{self.root}/refs"

    @property
    def leases(self) -> str:
        return f"{self.root}/leases"

    @property
    def gate(self) -> str:
        """Two bytes are locked: 0 while a collector is at work, 1 while it deletes."""
        return f"{self.root}/leases/.gate"

    @property
    def probed(self) -> str:
        """What is known of the file system."""
        return f"{self.root}/leases/.probed"

    @property
    def ingests(self) -> str:
        """The directory of all ingests."""
        return f"{self.root}/ingest"

    def blobs(self, digest: Digest) -> str:
        """The directory of the digest's algorithm."""
        return f"{self.root}/blobs/{digest.algorithm}"

    def blob(self, digest: Digest) -> str:
        return f"{self.root}/blobs/{digest.algorithm}/{digest.hex}"

    def ingest(self, digest: Digest) -> str:
        """Needs no algorithm: the digests of two algorithms differ in length."""
        return f"{self.root}/ingest/{digest.hex}"

    def ref(self, name: str) -> tuple[str, str]:
        """The directory and file name of a reference."""
        key = hashlib.sha256(name.encode()).hexdigest()
        return f"{self.root}/refs/{key[:2]}", key


def open_store(path: Path) -> Paths:
    """Check a store's directory; make it when absent or empty, adopt it when it is a plain OCI layout.

    An existing, complete store is only looked at, so one that is read-only opens.

    Raises:
        StoreError: no store, of a newer format, not safe to trust, or it cannot be made.
        StoreFullError: no room to make it.
    """
    paths = Paths(os.path.abspath(path))
    with disk.translated("open the store", paths.root):
        _make_with_parents(paths.root)
        owner = _check_directory(paths.root, (0, os.geteuid()))
        if not _is_marked(paths.root) or not _is_complete(paths.root):
            _complete(paths)
        for name in _CHECKED:
            if os.path.lexists(f"{paths.root}/{name}"):
                _check_directory(f"{paths.root}/{name}", (0, owner))
    return paths


def existing_store(path: str) -> Paths:
    """Check a store's directory, or an OCI layout's, that is only read and stays as it is.

    Raises:
        StoreError: it is not there, no store, of a newer format, or not safe to trust.
    """
    paths = Paths(os.path.abspath(path))
    with disk.translated("open the store", paths.root):
        owner = _check_directory(paths.root, (0, os.geteuid()))
        if not _is_marked(paths.root) and not os.path.lexists(f"{paths.root}/oci-layout"):
            raise StoreError(f"{paths.root} is not a store: it is empty", path=paths.root)
        for name in _CHECKED:
            if os.path.lexists(f"{paths.root}/{name}"):
                _check_directory(f"{paths.root}/{name}", (0, owner))
    return paths


def _make_with_parents(root: str) -> None:
    missing = []
    while not os.path.lexists(root):
        missing.append(root)
        root = os.path.dirname(root)
    for directory in reversed(missing):
        disk.make_directory(directory, 0o755)


def _check_directory(path: str, owners: tuple[int, ...]) -> int:
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        raise StoreError(f"{path} is a symbolic link to {os.readlink(path)}: a store is a directory itself", path=path)
    if not stat.S_ISDIR(info.st_mode):
        raise StoreError(f"{path} is no directory", path=path)
    if info.st_uid not in owners:
        raise StoreError(
            f"{path} belongs to user {info.st_uid}, not to {' or '.join(map(str, dict.fromkeys(owners)))}", path=path
        )
    if info.st_mode & stat.S_IWOTH:
        raise StoreError(f"{path} can be written by everyone (mode {stat.S_IMODE(info.st_mode):04o})", path=path)
    return info.st_uid


def _is_marked(root: str) -> bool:
    """Whether this is a store, and one that is understood here; a directory that may become one is none yet."""
    path = f"{root}/{MARK}"
    mark = disk.read(path, MARK_SIZE)
    if mark is not None:
        _check_format(mark, path)
        return True
    names = set(os.listdir(root)) - _NOTHING
    if names:
        layout = disk.read(f"{root}/oci-layout", MARK_SIZE)
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


def _is_complete(root: str) -> bool:
    return all(os.path.lexists(f"{root}/{name}") for name in (*_MADE, "oci-layout", "index.json"))


def _complete(paths: Paths) -> None:
    """Make what is missing. The mark comes first: without it, a half-made store would look like foreign files."""
    root = paths.root
    held = lock.acquire(paths.lock, wait=True)
    assert held is not None
    try:
        if not _is_marked(root):
            mark = json.dumps({"format": FORMAT}).encode() + b"\n"
            disk.replace(root, MARK, mark, temporary=f".{MARK}.new")
        for name, mode in _MADE.items():
            disk.make_directory(f"{root}/{name}", mode)
        for name, data in (("oci-layout", OCI_LAYOUT), ("index.json", encode_index(()))):
            if not os.path.lexists(f"{root}/{name}"):
                disk.replace(root, name, data, temporary=f".{name}.new")
    finally:
        os.close(held)
