"""The files of an OCI image layout that is held open and locked: blobs by digest, and ``index.json``, which comes last.

Everything goes by held descriptors, and is durable before it has its name. All of it blocks on the disk.
Knows no references, registries or platforms. Spec: image-spec v1.1 image-layout.md; docs/store-format.md 10.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from fastoci import files, locks, path_walk
from fastoci._core import Buffer
from fastoci.errors import FormatError, IntegrityError, StoreError, UnsupportedError
from fastoci.image import index
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.layout import OCI_LAYOUT, REF_NAME, encode_index, parse_layout
from fastoci.image.mediatype import OCI_INDEX
from fastoci.image_interfaces import Way, WholeImage
from fastoci.interfaces import LinkableSource
from fastoci.threads import Check

_LOCK: Final = ".fastoci.lock"  # 0600, and there only while it is held: others may read all else in a layout
_UNFINISHED: Final = ".oci-layout.new"
_SIZE: Final = 64 << 20  # bytes of an index.json that is extended
# Other file systems, too many links, links to others' files forbidden (fs.protected_hardlinks), no links at all.
_NO_LINK: Final = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP})


# Hashes open files, and says what is wrong with those that are not what their descriptors promise.
FindCorrupt = Callable[[Sequence[tuple[Descriptor, int]]], Sequence[IntegrityError]]


class LayoutFiles:
    """A layout that is extended. Its methods may be called on several threads, but for ``close``.

    Args:
        target: absolute; made when it is absent or empty.
        shared: where its blobs are, absolute, as by other layouts: one process at a time brings some there.
    Raises:
        StoreBusyError: another process extends the layout; nothing was done.
        StoreError: the directory is neither empty nor an OCI layout, or cannot be written.
    """

    def __init__(self, target: Path, shared: Path | None = None) -> None:
        self.target = target
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

    def translated(self) -> AbstractContextManager[None]:
        """Give the disk's errors the name of what was done."""
        return files.translated("write the layout", str(self.target))

    def right(self, blobs: Sequence[Descriptor], find_corrupt: FindCorrupt) -> set[Digest]:
        """Which of a few blobs are there, and are what their names say."""
        with self.translated(), ExitStack() as opened:
            sources = []
            for blob in blobs:
                fd = _open(self.directory(blob.digest), blob)
                if fd is not None:
                    opened.callback(os.close, fd)
                    sources.append((blob, fd))
            wrong = {error.subject for error in find_corrupt(sources)}
        return {blob.digest for blob, _ in sources if str(blob.digest) not in wrong}

    def link(
        self, blobs: Sequence[tuple[Descriptor, LinkableSource]], find_corrupt: FindCorrupt, check: Check
    ) -> dict[Digest, Way]:
        """Hash a few files of others, then link or copy them: the files that were hashed, whatever has their names.

        Raises:
            BlobNotFoundError, IntegrityError: one of them is not there, or not right; none was taken.
            StoreError: the layout cannot be written.
        """
        ways: dict[Digest, Way] = {}
        with self.translated(), ExitStack() as opened:
            sources = []
            for blob, source in blobs:
                sources.append((blob, source.open_linkable(blob)))
                opened.callback(os.close, sources[-1][1])
            for error in find_corrupt(sources):
                raise error
            for blob, fd in sources:
                check()
                ways[blob.digest] = _transfer(fd, self.directory(blob.digest), blob, check)
        return ways

    def write(self, digest: Digest, data: bytes) -> None:
        """Give the layout a small blob, whose bytes are right."""
        with self.translated():
            files.replace_at(self.directory(digest), digest.hex, data, temporary=_hidden(digest), mode=0o444)

    def finish(self, images: Sequence[WholeImage]) -> None:
        """Make the blobs durable, then name the images: ``index.json`` changes at once."""
        with self.translated():
            for directory in self._directories.values():
                os.fsync(directory)
            _add_entries(self._root, images, self.target)

    def close(self) -> None:
        """Unlock and close. Idempotent."""
        with self._opened.pop_all():
            pass

    def directory(self, digest: Digest) -> int:
        """Where blobs of its algorithm are: a descriptor that stays the layout's."""
        with self._opening:
            found = self._directories.get(digest.algorithm)
            if found is None:
                found = self._opened.enter_context(_directory(self._blobs, digest.algorithm))
                self._directories[digest.algorithm] = found
            return found


class NewBlob:
    """``Sink`` of a blob on its way into a layout, under a hidden name until ``commit``.

    Raises:
        StoreError: it cannot be made.
    """

    def __init__(self, layout: LayoutFiles, digest: Digest) -> None:
        self._layout = layout
        self._name, self._new = digest.hex, _hidden(digest)
        self._offset = 0
        with layout.translated():
            self._directory = layout.directory(digest)
            with suppress(FileNotFoundError):
                os.unlink(self._new, dir_fd=self._directory)
            self._fd = os.open(self._new, files.CREATE, 0o600, dir_fd=self._directory)
        self._is_open = True

    def feed(self, buffer: Buffer) -> None:
        """Write the next bytes."""
        code = buffer.pwrite(self._fd, self._offset)
        with self._layout.translated():
            if code:
                raise OSError(-code, os.strerror(-code))
        self._offset += len(buffer)

    def finish(self) -> None:
        """All bytes were fed; nothing is proven yet."""

    def commit(self) -> None:
        """Make the file durable, and give it the blob's name: its bytes were proven."""
        with self._layout.translated():
            os.fchmod(self._fd, 0o444)
            os.fdatasync(self._fd)
            os.rename(self._new, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._is_open = False
        files.close(self._fd)

    def abort(self) -> None:
        """Take the file away, unless it has its name. Idempotent."""
        if self._is_open:
            self._is_open = False
            files.close(self._fd)
            with suppress(OSError):
                os.unlink(self._new, dir_fd=self._directory)


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


def _hidden(digest: Digest) -> str:
    """What a blob is called on its way: by whoever holds the lock."""
    return f".{digest.hex}.new"


def _open(directory: int, blob: Descriptor) -> int | None:
    """A file that may be the blob; None when it is none of that size."""
    try:
        fd = os.open(blob.digest.hex, files.READ, dir_fd=directory)
    except OSError:  # absent, or something that is replaced
        return None
    info = os.fstat(fd)
    if stat.S_ISREG(info.st_mode) and info.st_size == blob.size:
        return fd
    os.close(fd)
    return None


def _transfer(source: int, directory: int, blob: Descriptor, check: Check) -> Way:
    """Link or copy an open file to a hidden name, then rename it over what is there."""
    hidden = _hidden(blob.digest)
    with suppress(FileNotFoundError):
        os.unlink(hidden, dir_fd=directory)
    try:
        is_linked = _link(source, directory, hidden)
        if not is_linked:
            _copy(source, directory, hidden, blob.size, check)
        os.rename(hidden, blob.digest.hex, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(hidden, dir_fd=directory)
        raise
    return "linked" if is_linked else "sent"


def _link(source: int, directory: int, name: str) -> bool:
    try:
        files.link_open_at(source, directory, name)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def _copy(source: int, directory: int, name: str, size: int, check: Check) -> None:
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
