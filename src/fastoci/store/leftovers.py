"""What dead processes left: ingests that nobody goes on with, and markers of blobs that are gone.

Spec: docs/store-format.md 4 and 5.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from fastoci.store import disk, lock
from fastoci.store.boot import Unsynced
from fastoci.store.ingest import remove
from fastoci.store.paths import Paths
from fastoci.store.state import STATE_SIZE, State

_IDLE_S: Final = 24 * 3600.0  # an ingest that was not written for so long is not gone on with
_INGEST: Final = re.compile(r"[0-9a-f]{64}(?:[0-9a-f]{64})?")
_ALGORITHMS: Final = {64: "sha256", 128: "sha512"}


def ingests(paths: Paths, boot_id: str, now: float) -> Iterator[tuple[str, int, str]]:
    """Ingests that can go: digest, bytes and why. Those that are locked are at work."""
    with disk.translated("list", paths.ingests):
        for name in os.listdir(paths.ingests):
            if not _INGEST.fullmatch(name):
                continue
            with suppress(FileNotFoundError, NotADirectoryError):  # gone meanwhile; no directory: not ours
                why = _why(paths, name, boot_id, now)
                if why and not lock.is_held(f"{paths.ingests}/{name}/lock"):
                    yield f"{_ALGORITHMS[len(name)]}:{name}", _size(f"{paths.ingests}/{name}/data"), why


def remove_ingest(paths: Paths, digest: str, boot_id: str, now: float) -> bool:
    """Delete one that ``ingests`` found, unless somebody goes on with it; whether it did."""
    name = digest.partition(":")[2]
    directory = f"{paths.ingests}/{name}"
    with disk.translated("delete", directory), suppress(FileNotFoundError, NotADirectoryError):
        if not _why(paths, name, boot_id, now):
            return False
        held = lock.acquire(f"{directory}/lock", wait=False)
        if held is None:
            return False
        try:
            if _why(paths, name, boot_id, now):
                remove(directory)
                return True
        finally:
            disk.close(held)
    return False


def markers(paths: Paths, unsynced: Unsynced) -> Iterator[str]:
    """Markers of other boots whose blob is not there, by path."""
    for name, path in unsynced.others():
        algorithm, _, digits = name.partition("-")
        if not os.path.lexists(f"{paths.root}/blobs/{algorithm}/{digits}"):
            yield path


def remove_marker(path: str) -> bool:
    """Delete one that ``markers`` found: nobody adds to those of other boots."""
    with disk.translated("delete", path), suppress(FileNotFoundError):
        os.unlink(path)
        with suppress(OSError):  # not empty: the boot has other markers
            os.rmdir(os.path.dirname(path))
        return True
    return False


def _why(paths: Paths, name: str, boot_id: str, now: float) -> str:
    """Why an ingest can go; empty when it stays."""
    directory = f"{paths.ingests}/{name}"
    info = os.lstat(directory)
    if not stat.S_ISDIR(info.st_mode):  # least of all a link: what it leads to is not the store's
        return ""
    written = info.st_mtime
    for file in ("data", "state"):
        with suppress(FileNotFoundError):
            written = max(written, os.lstat(f"{directory}/{file}").st_mtime)
    if now - written > _IDLE_S:
        return f"not gone on with for {(now - written) / 3600:.0f} hours"
    if not os.path.lexists(f"{directory}/data"):
        return (
            "a rest of one that is done"
            if os.path.lexists(f"{paths.root}/blobs/{_ALGORITHMS[len(name)]}/{name}")
            else ""
        )
    record = disk.read(f"{directory}/state", STATE_SIZE)
    state = None if record is None else State.decode(record)
    if state is not None and state.boot_id != boot_id and not state.synced:
        return "of another boot and not synced"
    return ""


def _size(path: str) -> int:
    with suppress(FileNotFoundError):
        return os.lstat(path).st_size
    return 0
