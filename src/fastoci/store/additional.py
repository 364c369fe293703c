"""Additional stores: other directories, read-only, whose blobs save a download.

A blob is believed by its size, so an additional store must be as safe to trust as the store itself: owned by root or by
whoever opens it, and not writable by everyone. One that is not, or is gone, or of a newer format, is left out by name.
Documents are not taken from here for good: a store has the manifests of all its references itself.
Used from any thread. Spec: docs/store-format.md 12.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastoci import files
from fastoci.errors import StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.links import has_links
from fastoci.store.ingest.unsynced import Unsynced
from fastoci.store.layout import MARK, StoreLayout
from fastoci.store.opening import MARK_SIZE, existing_store

_FIELD: Final = "additional"  # of fastoci.json


class Additional:
    """The blobs of one additional store."""

    def __init__(self, paths: StoreLayout, boot: str) -> None:
        self.paths = paths
        self._unsynced = Unsynced(paths, boot)

    def holds(self, blob: Descriptor) -> bool:
        """Whether the blob need not be fetched; never says so of a document."""
        if has_links(blob.media_type):
            return False
        try:
            info = self.paths.blobs(blob.digest.algorithm).stat(blob.digest.hex)
        except OSError:  # an unmounted or broken disk costs a download, and no more
            return False
        return stat.S_ISREG(info.st_mode) and info.st_size == blob.size and not self._unsynced.distrusts(blob.digest)

    def open(self, blob: Descriptor) -> int | None:
        """A descriptor of the blob's file, also of a document's; None when it is not there."""
        try:
            fd = self.paths.open_blob(blob.digest)
        except OSError:
            return None
        info = os.fstat(fd)
        if stat.S_ISREG(info.st_mode) and info.st_size == blob.size and not self._unsynced.distrusts(blob.digest):
            return fd
        os.close(fd)
        return None


class Borrowed(Additional):
    """Blobs that a directory of another program has in ``blobs``, as long as that program keeps them: by name."""

    def __init__(self, paths: StoreLayout, boot: str) -> None:
        super().__init__(paths, boot)
        self.digests: set[Digest] = set()

    def holds(self, blob: Descriptor) -> bool:
        """Whether the blob is kept there: ``Additional.holds``."""
        return blob.digest in self.digests and super().holds(blob)

    def open(self, blob: Descriptor) -> int | None:
        """Open the blob when it is kept there: ``Additional.open``."""
        return super().open(blob) if blob.digest in self.digests else None


def open_additional(
    own: StoreLayout, directories: Sequence[Path], boot: str
) -> tuple[tuple[Additional, ...], tuple[StoreError, ...]]:
    """The additional stores that can be used, those given before those that the store itself names, and why others not.

    Raises:
        StoreError: ``fastoci.json`` cannot be read, or names them in a wrong way.
    """
    found: dict[str, Additional] = {}
    refused = []
    for directory in (*directories, *_configured(own)):
        path = os.path.abspath(directory)
        if path == own.root or path in found:
            continue
        try:
            found[path] = _open(path, boot)
        except StoreError as error:
            refused.append(StoreError(f"additional store left out: {error}", path=path))
    return tuple(found.values()), tuple(refused)


def _open(path: str, boot: str) -> Additional:
    paths = existing_store(path)
    try:
        return Additional(paths, boot)
    except BaseException:
        paths.close()
        raise


def _configured(own: StoreLayout) -> list[Path]:
    path = own.top.at(MARK)
    value: object = []
    with suppress(ValueError):  # whoever opened the store has checked that it is JSON
        value = json.loads(files.read(own.top, MARK, MARK_SIZE) or b"{}").get(_FIELD, [])
    if not isinstance(value, list) or not all(map(_is_path, value)):
        raise StoreError(f'{path}: "{_FIELD}" is not an array of absolute paths', path=path)
    return [Path(each) for each in value]


def _is_path(value: object) -> bool:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        return False
    with suppress(UnicodeEncodeError):  # JSON has lone surrogates, file names that are given as bytes have some
        os.fsencode(value)
        return True
    return False
