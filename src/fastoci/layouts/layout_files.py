"""The files of an OCI image layout that is held open and locked: blobs by digest, and ``index.json``, which comes last.

Knows no references, registries or platforms. Spec: image-spec v1.1 image-layout.md; docs/store-format.md 10.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from fastoci import files, locks, path_walk
from fastoci.errors import FormatError, StoreError, UnsupportedError
from fastoci.image import index
from fastoci.image.descriptor import encode
from fastoci.image.digest import Digest
from fastoci.image.layout import EMPTY_INDEX, OCI_LAYOUT, REF_NAME, named, parse_layout
from fastoci.image.mediatype import OCI_INDEX
from fastoci.image_interfaces import WholeImage
from fastoci.layouts.blob_files import BlobFiles

_LOCK: Final = ".fastoci.lock"  # 0600, and there only while it is held: others may read all else in a layout
_UNFINISHED: Final = ".oci-layout.new"
_SIZE: Final = 64 << 20  # bytes of an index.json that is extended


class LayoutFiles(BlobFiles):
    """A layout that is extended. Its methods may be called on several threads, but for ``close``.

    Args:
        target: absolute; made when it is absent or empty.
        shared: where its blobs are, absolute, as by other layouts: one process at a time brings some there.
    Raises:
        StoreBusyError: another process extends the layout; nothing was done.
        StoreError: the directory is neither empty nor an OCI layout, or cannot be written.
    """

    def __init__(self, target: Path, shared: Path | None = None) -> None:
        super().__init__(target, "the layout")
        self._directories: dict[str, int] = {}  # of blobs, by algorithm
        self._opening = threading.Lock()
        with self.translated(), ExitStack() as opened:
            self._root = path_walk.open_directory(target, make=0o755)
            opened.callback(os.close, self._root)
            opened.enter_context(_locked(self._root, target))
            self._blobs = opened.enter_context(_directory(self._root, "blobs"))
            if shared is not None:
                self._blobs = path_walk.open_directory(shared, make=0o755)
                opened.callback(os.close, self._blobs)
                opened.enter_context(locks.locked_at(self._blobs, _LOCK, f"{shared}/{_LOCK}"))
            self._opened = opened.pop_all()

    def finish(self, images: Sequence[WholeImage]) -> None:
        """Make the blobs durable, then name the images: ``index.json`` changes at once."""
        with self.translated():
            for directory in self._directories.values():
                os.fsync(directory)
            _add_entries(self._root, images, self.target)

    def directory(self, digest: Digest) -> int:
        """Where blobs of its algorithm are: a descriptor that stays the layout's."""
        with self._opening:
            found = self._directories.get(digest.algorithm)
            if found is None:
                found = self._opened.enter_context(_directory(self._blobs, digest.algorithm))
                self._directories[digest.algorithm] = found
            return found


@contextmanager
def _locked(root: int, target: Path) -> Iterator[None]:
    """Hold the layout's lock, by which one process at a time extends it, and check or make ``oci-layout``."""
    _demand_layout_or_nothing(root, target)
    with locks.locked_at(root, _LOCK, f"{target}/{_LOCK}"):
        data = _read(root, "oci-layout", f"{target}/oci-layout", 1 << 16)
        if data is None or not data.strip(b"\0"):  # as a power cut may have left it
            _demand_layout_or_nothing(root, target)
            files.replace_at(root, "oci-layout", OCI_LAYOUT, temporary=_UNFINISHED)
            data = OCI_LAYOUT
        try:
            parse_layout(data)
        except (FormatError, UnsupportedError) as error:
            raise StoreError(f"{target} is not an OCI layout: {error}", path=str(target)) from error
        yield


def _demand_layout_or_nothing(root: int, target: Path) -> None:
    names = set(os.listdir(root)) - {files.LOST_AND_FOUND, _LOCK, _UNFINISHED}
    if names and "oci-layout" not in names:
        raise StoreError(f"{target} is neither empty nor an OCI layout", path=str(target))


@contextmanager
def _directory(parent: int, name: str) -> Iterator[int]:
    """An open directory, made and durable when absent, no symbolic link."""
    files.make_directory_at(parent, name, 0o755, exact=False)
    fd = files.open_directory_at(parent, name)
    try:
        yield fd
    finally:
        os.close(fd)


def _add_entries(root: int, images: Sequence[WholeImage], target: Path) -> None:
    path = str(target / "index.json")
    data = _read(root, "index.json", path, _SIZE)
    if data is None:
        data = EMPTY_INDEX
    try:
        index.parse(data, OCI_INDEX)
    except (FormatError, UnsupportedError) as error:
        raise StoreError(f"{path} is not an index of an OCI layout: {error}", path=path) from error
    # Plain values from here on: entries of others may have fields that are unknown here, and must keep them.
    document = json.loads(data)
    names = {image.name for image in images if image.name}
    nameless = {str(image.top.digest) for image in images if not image.name}
    kept = [other for other in document["manifests"] or () if not _is_replaced(other, names, nameless)]
    manifests = [*kept, *map(_entry, images)]
    new = json.dumps({**document, "manifests": manifests}, separators=(",", ":"), ensure_ascii=False).encode()
    files.replace_at(root, "index.json", new, temporary=".index.json.new")


def _entry(image: WholeImage) -> dict[str, object]:
    return encode(named(image.top, {REF_NAME: image.name} if image.name else {}))


def _is_replaced(entry: dict[str, object], names: set[str], nameless: set[str]) -> bool:
    annotations = entry.get("annotations")
    named = annotations.get(REF_NAME, "") if isinstance(annotations, dict) else ""
    return named in names if named else entry["digest"] in nameless


def _read(root: int, name: str, path: str, limit: int) -> bytes | None:
    """The content of a file; None when it is absent."""
    try:
        fd = files.open_file_at(root, name)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        if os.fstat(fd).st_size > limit:
            raise StoreError(f"{path} has more than {limit} bytes", path=path)
        return file.read(limit)
