"""One image in a directory, as skopeo's ``dir:`` has it: ``manifest.json``, ``version``, and blobs by their hex digits.

The manifests of an index have ``.manifest.json`` behind the digits. ``manifest.json`` is replaced when all else is
there; what the image before it had, and this one has not, goes after that.
Spec: containers-transports(5), "dir:".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from fastoci import files, locks, path_walk
from fastoci.errors import StoreError, UnsupportedError
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image_interfaces import WholeImage
from fastoci.layouts.blob_files import BlobFiles
from fastoci.layouts.oci_layout import OciLayout

MANIFEST: Final = "manifest.json"
VERSION: Final = "version"
VERSION_1_1: Final = b"Directory Transport Version: 1.1\n"
VERSION_BEGINS: Final = b"Directory Transport Version: 1."
_SIZE: Final = 64 << 20  # bytes of a manifest
_LOCK: Final = ".fastoci.lock"
_NEW: Final = f".{MANIFEST}.new"
_OURS: Final = re.compile(r"([0-9a-f]{64}|[0-9a-f]{128})(\.manifest\.json)?|signature-[0-9]+|\.[0-9a-f]{64,128}\.new")
DOCUMENTS: Final = mediatype.MANIFESTS | mediatype.INDEXES | mediatype.SCHEMA1


class DirectoryFiles(BlobFiles):
    """A directory for one image. Its methods may be called on several threads, but for ``close``.

    Args:
        target: absolute; made when it is absent or empty.
    Raises:
        StoreBusyError: another process writes there; nothing was done.
        StoreError: it is neither empty nor such a directory, or cannot be written.
    """

    def __init__(self, target: Path) -> None:
        super().__init__(target, "the directory")
        with self.translated(), ExitStack() as opened:
            self._root = path_walk.open_directory(target, make=0o755)
            opened.callback(os.close, self._root)
            opened.enter_context(_locked(self._root, target))
            self._opened = opened.pop_all()

    def directory(self, digest: Digest) -> int:
        """All blobs are in it."""
        return self._root

    def finish(self, images: Sequence[WholeImage]) -> None:
        """Let the image be what the directory has, at once; then take away what was of another."""
        if len({image.top.digest for image in images}) > 1:
            raise UnsupportedError(f"{self.target} takes one image: dir: has no names")
        if not images:
            return
        top, blobs = images[0].top, images[0].blobs
        documents = {blob.digest for blob in blobs if blob.media_type in DOCUMENTS} - {top.digest}
        with self.translated():
            data = self._read(top)
            for digest in documents:
                os.rename(digest.hex, file_of(digest), src_dir_fd=self._root, dst_dir_fd=self._root)
            os.fsync(self._root)
            files.replace_at(self._root, MANIFEST, data, temporary=_NEW)
            kept = {blob.digest.hex for blob in blobs if blob.digest not in documents and blob.digest != top.digest}
            self._keep(kept | {file_of(digest) for digest in documents})

    def _read(self, document: Descriptor) -> bytes:
        fd = files.open_file_at(self._root, document.digest.hex)
        with open(fd, "rb") as file:
            return file.read(_SIZE)

    def _keep(self, kept: set[str]) -> None:
        """Remove what is of another image."""
        for name in os.listdir(self._root):
            if name not in kept and _OURS.fullmatch(name):
                with suppress(FileNotFoundError, IsADirectoryError):
                    os.unlink(name, dir_fd=self._root)


class Directory(OciLayout):
    """``ImageSink`` of a directory for one image, made when it is absent or empty."""

    def hold(self) -> BlobFiles:
        """On a thread: hold the directory, alone."""
        return DirectoryFiles(self._target)


def file_of(digest: Digest) -> str:
    """What the manifest of an index is called."""
    return f"{digest.hex}.{MANIFEST}"


@contextmanager
def _locked(root: int, target: Path) -> Iterator[None]:
    """Hold the lock, by which one process at a time writes there, and check or write ``version``."""
    _demand_directory_or_nothing(root, target)
    with locks.locked_at(root, _LOCK, f"{target}/{_LOCK}"):
        if not _demand_directory_or_nothing(root, target):
            files.replace_at(root, VERSION, VERSION_1_1, temporary=f".{VERSION}.new")
        yield


def _demand_directory_or_nothing(root: int, target: Path) -> bool:
    """Whether it is one by now."""
    names = set(os.listdir(root)) - {files.LOST_AND_FOUND, _LOCK, f".{VERSION}.new"}
    if VERSION in names:
        with open(files.open_file_at(root, VERSION), "rb") as file:
            if file.read(len(VERSION_1_1)).startswith(VERSION_BEGINS):
                return True
    if names:
        raise StoreError(f"{target} is neither empty nor a directory of dir:", path=str(target))
    return False
