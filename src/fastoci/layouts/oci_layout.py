"""An OCI image layout in a directory of the user's: made, or extended by images whose blobs a ``BlobStore`` holds.

Blobs are shared with the store by hard links where the file system allows it, and copied elsewhere; each is hashed
before it has its name here, by whoever calls. Everything is durable before it has its name, and ``index.json``, which
names the image, comes last.
Knows no references, registries or platforms. Spec: image-spec v1.1 image-layout.md; docs/store-format.md 10.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from fastoci import files, locks, path_walk
from fastoci.aio import when_free
from fastoci.errors import FormatError, IntegrityError, StoreError, UnsupportedError
from fastoci.image import index
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.layout import OCI_LAYOUT, REF_NAME, encode_index, parse_layout
from fastoci.image.mediatype import OCI_INDEX
from fastoci.interfaces import BlobStore, WholeImage

_LOG: Final = logging.getLogger(__name__)

_LOCK: Final = ".fastoci.lock"  # 0600, and there only while it is held: others may read all else in a layout
_UNFINISHED: Final = ".oci-layout.new"
_SIZE: Final = 64 << 20  # bytes of an index.json that is extended
_LOCK_S: Final = 300.0  # for another process that extends the layout, and may copy some gigabytes
_OPEN: Final = 32  # blobs of the store that are open at a time
# Other file systems, too many links, links to others' files forbidden (fs.protected_hardlinks), no links at all.
_NO_LINK: Final = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP})


# Hashes open files, and says what is wrong with those that are not what their descriptors promise.
FindCorrupt = Callable[[Sequence[tuple[Descriptor, int]]], Sequence[IntegrityError]]
# Runs work on a thread, with what hashes files there, and with what it calls now and then: that may end it.
RunHashing = Callable[[Callable[[FindCorrupt, Callable[[], None]], None]], Awaitable[None]]


class OciLayout:
    """``ImageSink`` of a directory, made when it is absent or empty. Blobs that are there and right stay.

    Args:
        target: absolute.
        run: runs the work, which hashes.
    """

    def __init__(self, target: Path, run: RunHashing) -> None:
        self._target = target
        self._run = run

    async def put(self, images: Sequence[WholeImage], store: BlobStore) -> None:
        """Put images into the layout: ``ImageSink.put``. When it fails, the blobs so far stay.

        Raises:
            StoreError: the directory is neither empty nor an OCI layout, or cannot be written.
            BlobNotFoundError, IntegrityError, StoreBusyError: as ``ImageSink.put``.
        """
        await when_free(
            lambda: self._run(
                lambda find_corrupt, check: write_images(self._target, images, store, find_corrupt, check=check)
            ),
            within_s=_LOCK_S,
        )


def write_images(
    target: Path,
    images: Sequence[WholeImage],
    store: BlobStore,
    find_corrupt: FindCorrupt,
    *,
    check: Callable[[], None] = lambda: None,
) -> None:
    """``OciLayout.put`` on this thread, once.

    Raises:
        StoreBusyError: another process extends the layout; nothing was done.
        BlobNotFoundError, IntegrityError, StoreError: as ``OciLayout.put``.
    """
    with files.translated("write the layout", str(target)):
        root = path_walk.open_directory(target, make=0o755)
        try:
            with _locked(root, target):
                blobs = {blob.digest: blob for image in images for blob in image.blobs}
                _add_blobs(root, list(blobs.values()), store, find_corrupt, check)
                _add_entries(root, images, target)
                _LOG.debug("%s: %d images of %d blobs are in the layout", target, len(images), len(blobs))
        finally:
            os.close(root)


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


def _add_blobs(
    root: int, blobs: Sequence[Descriptor], store: BlobStore, find_corrupt: FindCorrupt, check: Callable[[], None]
) -> None:
    with _directory(root, "blobs") as parent, ExitStack() as opened:
        directories = {
            algorithm: opened.enter_context(_directory(parent, algorithm))
            for algorithm in dict.fromkeys(blob.digest.algorithm for blob in blobs)
        }
        for start in range(0, len(blobs), _OPEN):
            _add_some(directories, blobs[start : start + _OPEN], store, find_corrupt, check)
        for directory in directories.values():
            os.fsync(directory)


def _add_some(
    directories: Mapping[str, int],
    blobs: Sequence[Descriptor],
    store: BlobStore,
    find_corrupt: FindCorrupt,
    check: Callable[[], None],
) -> None:
    """What is linked or copied are the files that were hashed, whatever their names lead to by then."""
    with ExitStack() as opened:
        sources = []
        for blob in blobs:
            sources.append((blob, store.open(blob)))
            opened.callback(os.close, sources[-1][1])
        for error in find_corrupt(sources):
            raise error
        for blob, source in sources:
            check()
            directory = directories[blob.digest.algorithm]
            if not _has(directory, blob, source, find_corrupt):
                _transfer(source, directory, blob, check)


@contextmanager
def _directory(parent: int, name: str) -> Iterator[int]:
    """An open directory, made and durable when absent, no symbolic link."""
    files.make_directory_at(parent, name, 0o755, exact=False)
    fd = files.open_directory_at(parent, name)
    try:
        yield fd
    finally:
        os.close(fd)


def _has(directory: int, blob: Descriptor, source: int, find_corrupt: FindCorrupt) -> bool:
    """Whether the blob is there: as the store's own file, or another that is hashed."""
    try:
        fd = os.open(blob.digest.hex, files.READ, dir_fd=directory)
    except OSError:  # absent, or something that is replaced
        return False
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size != blob.size:
            return False
        return os.path.samestat(info, os.fstat(source)) or not find_corrupt([(blob, fd)])
    finally:
        os.close(fd)


def _transfer(source: int, directory: int, blob: Descriptor, check: Callable[[], None]) -> None:
    """Link or copy an open file to a hidden name, then rename it over what is there."""
    hidden = f".{blob.digest.hex}.new"
    with suppress(FileNotFoundError):
        os.unlink(hidden, dir_fd=directory)
    try:
        if not _link(source, directory, hidden):
            _copy(source, directory, hidden, blob.size, check)
        os.rename(hidden, blob.digest.hex, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(hidden, dir_fd=directory)
        raise


def _link(source: int, directory: int, name: str) -> bool:
    try:
        files.link_open_at(source, directory, name)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def _copy(source: int, directory: int, name: str, size: int, check: Callable[[], None]) -> None:
    fd = os.open(name, files.CREATE, 0o600, dir_fd=directory)
    try:
        files.copy_all(source, fd, size, check)
        os.fchmod(fd, 0o444)
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _add_entries(root: int, images: Sequence[WholeImage], target: Path) -> None:
    path = str(target / "index.json")
    data = _read(root, "index.json", path, _SIZE)
    if data is None:
        data = encode_index(())
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
    new = json.dumps({**document, "manifests": manifests}, indent=1).encode() + b"\n"
    files.replace_at(root, "index.json", new, temporary=".index.json.new")


def _entry(image: WholeImage) -> dict[str, object]:
    annotations = {**image.top.annotations, REF_NAME: image.name} if image.name else dict(image.top.annotations)
    return {**encode(image.top), "annotations": annotations} if annotations else encode(image.top)


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
