"""Layer directories that a power cut leaves: all files of the disk are synced, then their records say so.

Synchronous, for threads. Spec: docs/store-format.md 9.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

import msgspec

from fastoci import _extract, files
from fastoci.errors import StoreBusyError
from fastoci.image.digest import Digest
from fastoci.store.ingest.ingest import hold
from fastoci.store.layers import places, records
from fastoci.store.layers.ingest import write
from fastoci.store.layout import StoreLayout


def sync_directories(paths: StoreLayout, chain_ids: Collection[Digest], boot_id: str) -> None:
    """Make layer directories durable, as far as they are there.

    Raises:
        StoreError: the disk refused; ``StoreBusyError``: somebody is making one of them anew.
    """
    with files.translated("sync", f"{paths.root}/{places.TREES}"), suppress(FileNotFoundError):
        trees = paths.directory(places.TREES)
        unsynced = {each: inode for each in chain_ids if (inode := _unsynced(paths, each, boot_id)) is not None}
        if not unsynced:
            return
        fd = trees.open(".", files.DIRECTORY)
        try:
            _extract.sync_filesystem(fd)
        finally:
            files.close(fd)
        for each, inode in unsynced.items():
            _say_so(paths, each, inode, boot_id)


def _unsynced(paths: StoreLayout, chain_id: Digest, boot_id: str) -> int | None:
    """Which record says of a directory that it is not synced, by its inode; None when none does."""
    with suppress(FileNotFoundError), paths.enter(paths.directory(places.TREES), chain_id.hex) as own:
        inode = own.stat("done").st_ino
        found = records.tree(own, chain_id, boot_id)
        return inode if found is not None and not found.synced else None
    return None


def _say_so(paths: StoreLayout, chain_id: Digest, inode: int, boot_id: str) -> None:
    """Under the lock of who would make it anew: the record says that it is synced, unless it is another by now."""
    held = hold(paths, f"overlay-{chain_id.hex}")
    if held is None:
        raise StoreBusyError(f"another process unpacks {chain_id}", path=f"{paths.root}/{places.TREES}/{chain_id.hex}")
    try:
        with paths.enter(paths.directory(places.TREES), chain_id.hex) as own:
            found = records.tree(own, chain_id, boot_id)
            if found is not None and not found.synced and own.stat("done").st_ino == inode:
                places.empty(held)
                write(held.directory, "done", records.encode(msgspec.structs.replace(found, synced=True)), sync=True)
                held.directory.rename("done", own, "done")
                own.sync()
        places.clear(held)
    finally:
        held.close()
