"""fs-verity for layer files and merged metadata that have their names: from then on the kernel holds each read of one
against its digest, which is in its record.

A file whose digest nobody computed while it was written is hashed once, when the kernel holds it: the digest is of what
is in the file, and only this says that it is what was written. Synchronous, for threads. Spec: docs/store-format.md 9.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from fastoci import files
from fastoci.directory import Directory
from fastoci.errors import DigestMismatchError, MountError
from fastoci.image.digest import Digest
from fastoci.image.layer_file import LayerInfo, MergedInfo, ranges_beside
from fastoci.store.ingest.ingest import Held
from fastoci.store.layers import records
from fastoci.store.layers.ingest import digest_of, write
from fastoci.verity.fs_verity import enable_verity, measure_verity

Info = TypeVar("Info", LayerInfo, MergedInfo)


def enforce(held: Held, directory: Directory, name: str, info: Info) -> bool:
    """Have the kernel hold each read of a file against its digest from now on; False where it cannot.

    Args:
        held: the lock on what the file is of; stays the caller's.
        directory, name: where the file and its record are.
    Raises:
        DigestMismatchError: the file is not what was written.
        OSError: the disk refused.
    """
    fd = directory.open(f"{name}.erofs", files.READ)
    try:
        if measure_verity(fd) is None and not enable_verity(fd, info.path):
            return False
        measured = measure_verity(fd)
        assert measured is not None
        if not info.fs_verity:
            check_content(fd, info)
            _record(held, directory, name, msgspec.structs.replace(info, fs_verity=measured))
        elif measured != info.fs_verity:
            raise _other(info, info.fs_verity, measured)
        return True
    finally:
        os.close(fd)


def demand(fd: int, info: LayerInfo | MergedInfo) -> None:
    """Refuse a file that the kernel does not hold against its digest.

    Raises:
        MountError: it holds it against none.
        DigestMismatchError: it holds it against another one.
    """
    measured = measure_verity(fd)
    if measured is None or not info.fs_verity:
        text = (
            f"{info.path}: no kernel holds it against a digest: `fastoci pull --verity` does, where there is fs-verity"
        )
        raise MountError(text, path=info.path)
    if measured != info.fs_verity:
        raise _other(info, info.fs_verity, measured)


def check_content(fd: int, info: LayerInfo | MergedInfo) -> None:
    """Hash all of the file.

    Raises:
        DigestMismatchError: it is not what was written.
    """
    parts: list[tuple[Digest, Sequence[tuple[int, int]]]]
    if isinstance(info, MergedInfo):
        parts = [(info.digest, [(0, info.size)])]
    else:
        tar = info.tar_part
        parts = [(info.digest, ranges_beside(info)), *([(info.diff_id, [tar])] if tar else [])]
    for expected, ranges in parts:
        actual = digest_of(fd, ranges)
        if actual != expected:
            raise _other(info, str(expected), str(actual))


def _record(held: Held, directory: Directory, name: str, info: LayerInfo | MergedInfo) -> None:
    """Replace the record of a file, which is there all the time."""
    sync = isinstance(info, LayerInfo) and info.synced
    write(held.directory, "record", records.encode(info), sync=sync)
    held.directory.rename("record", directory, f"{name}.json")
    if sync:
        directory.sync()


def _other(info: LayerInfo | MergedInfo, expected: str, actual: str) -> DigestMismatchError:
    text = f"{info.path}: expected {expected}, it is {actual}"
    return DigestMismatchError(text, subject=info.path, expected=expected, actual=actual)
