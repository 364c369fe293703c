"""What dead processes left: ingests that nobody goes on with, and markers of blobs that are gone.

Spec: docs/store-format.md 4 and 5.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from fastoci import files, locks
from fastoci.directory import Directory
from fastoci.image.digest import HEX_DIGITS, Digest
from fastoci.store.ingest import unsynced as boot
from fastoci.store.ingest.checkpoint import STATE_SIZE, State
from fastoci.store.ingest.ingest import hold, remove
from fastoci.store.ingest.unsynced import Unsynced
from fastoci.store.layers import places
from fastoci.store.layout import StoreLayout

_IDLE_S: Final = 24 * 3600.0  # an ingest that was not written for so long is not gone on with
_INGEST: Final = re.compile("|".join(f"[0-9a-f]{{{digits}}}" for digits in HEX_DIGITS.values()))
_LAYER: Final = re.compile(r"(?:layer|image|overlay|rootfs)-[0-9a-f]{64}(?:[0-9a-f]{64})?")
_STAGING: Final = re.compile(r"\.[0-9a-f]{64,128}\.[0-9a-f]{16}\.fastoci")  # docs/store-format.md 10
_ALGORITHMS: Final = {digits: algorithm for algorithm, digits in HEX_DIGITS.items()}


def stale_ingests(paths: StoreLayout, boot_id: str, now: float) -> Iterator[tuple[str, int, str]]:
    """Ingests that can go: digest, bytes and why. Those that are locked are at work."""
    with files.translated("list", f"{paths.root}/ingest"):
        for name in filter(_INGEST.fullmatch, paths.ingests.names()):
            # gone meanwhile; no directory, least of all a link: not ours
            with suppress(FileNotFoundError, NotADirectoryError), paths.ingests.enter(name) as directory:
                why = _why(paths, directory, name, boot_id, now)
                if why and not locks.is_held(directory, "lock"):
                    yield f"{_ALGORITHMS[len(name)]}:{name}", _size(directory), why


def remove_ingest(paths: StoreLayout, digest: str, boot_id: str, now: float) -> bool:
    """Delete one that ``stale_ingests`` found, unless somebody goes on with it; whether it did."""
    name = digest.partition(":")[2]
    deleting, gone = files.translated("delete", paths.ingests.at(name)), (FileNotFoundError, NotADirectoryError)
    with deleting, suppress(*gone), paths.ingests.enter(name) as directory:
        if not _why(paths, directory, name, boot_id, now):
            return False
        held = locks.acquire(directory, "lock", wait=False)
        if held is None:
            return False
        try:
            if _why(paths, directory, name, boot_id, now):
                remove(directory, paths.ingests)
                return True
        finally:
            files.close(held)
    return False


def left_over(paths: StoreLayout) -> Iterator[tuple[str, int, str]]:
    """What killed processes left of unpacked layers: name, bytes and why. Nobody goes on with one."""
    with files.translated("list", f"{paths.root}/ingest"):
        for name in filter(_LAYER.fullmatch, paths.ingests.names()):
            with suppress(FileNotFoundError, NotADirectoryError), paths.ingests.enter(name) as directory:
                if not locks.is_held(directory, "lock"):
                    yield name, _size(directory), "left half-way"
    with files.translated("list", f"{paths.root}/{places.ROOTS}"), suppress(FileNotFoundError):
        roots = paths.directory(places.ROOTS)
        for name in filter(_STAGING.fullmatch, roots.names()):
            with suppress(FileNotFoundError, NotADirectoryError), roots.enter(name) as directory:
                if not locks.is_held(directory, "lock"):
                    yield f"{places.ROOTS}/{name}", 0, "left half-way"


def remove_left_over(paths: StoreLayout, name: str) -> bool:
    """Delete one that ``left_over`` found, unless somebody makes it anew; whether it did."""
    place, _, last = name.rpartition("/")
    if place:
        return _remove_staging(paths.directory(place), last)
    with files.translated("delete", paths.ingests.at(name)):
        held = hold(paths, name) if paths.ingests.has(name) else None
        if held is None:
            return False
        try:
            places.clear(held)
        finally:
            held.close()
    return True


def _remove_staging(roots: Directory, name: str) -> bool:
    """Delete what an unpack left beside its target, unless it is at work."""
    with files.translated("delete", roots.at(name)), suppress(FileNotFoundError), roots.enter(name) as directory:
        held = locks.acquire(directory, "lock", wait=False)
        if held is not None:
            try:
                places.delete_tree(roots, name)
            finally:
                files.close(held)
            return True
    return False


def stale_markers(paths: StoreLayout, unsynced: Unsynced) -> Iterator[str]:
    """Markers of other boots whose blob is not there, by path."""
    for other, name in unsynced.others():
        algorithm, _, digits = name.partition("-")
        if not paths.holds(Digest(algorithm, digits)):
            yield f"{paths.root}/unsynced/{other}/{name}"


def remove_marker(paths: StoreLayout, path: str) -> bool:
    """Delete one that ``stale_markers`` found: nobody adds to those of other boots."""
    _, other, name = path.rsplit("/", 2)
    with files.translated("delete", path):
        return boot.remove_marker(paths, other, name)


def _why(paths: StoreLayout, directory: Directory, name: str, boot_id: str, now: float) -> str:
    """Why the ingest of a digest can go; empty when it stays."""
    written = os.fstat(directory.fd).st_mtime
    for file in ("data", "state"):
        with suppress(FileNotFoundError):
            written = max(written, directory.stat(file).st_mtime)
    if now - written > _IDLE_S:
        return f"not gone on with for {(now - written) / 3600:.0f} hours"
    if not directory.has("data"):
        done = paths.holds(Digest(_ALGORITHMS[len(name)], name))
        return "a rest of one that is done" if done else ""
    record = files.read(directory, "state", STATE_SIZE)
    state = None if record is None else State.decode(record)
    if state is not None and state.boot_id != boot_id and not state.synced:
        return "of another boot and not synced"
    return ""


def _size(directory: Directory) -> int:
    with suppress(FileNotFoundError):
        return files.held_size(directory.stat("data"))
    return 0
