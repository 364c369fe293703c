"""Blobs by digest in a directory of the user's that is held open and locked: written, linked, and found to be right.

Everything goes by held descriptors, and is durable before it has its name. All of it blocks on the disk.
Knows no references, registries or platforms. Spec: docs/store-format.md 10.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Final

from fastoci import files
from fastoci._core import Buffer
from fastoci.errors import IntegrityError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image_interfaces import Way, WholeImage
from fastoci.interfaces import LinkableSource
from fastoci.stream.verify import Verifier
from fastoci.threads import Check

# Other file systems, too many links, links to others' files forbidden (fs.protected_hardlinks), no links at all, a file
# whose names are all gone.
_NO_LINK: Final = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOENT})


# Hashes open files, and says what is wrong with those that are not what their descriptors promise.
FindCorrupt = Callable[[Sequence[tuple[Descriptor, int]]], Sequence[IntegrityError]]


class BlobFiles:
    """A place that is extended by blobs. Its methods may be called on several threads, but for ``close``.

    Args:
        target: absolute.
        what: it is, in messages.
    """

    def __init__(self, target: Path, what: str) -> None:
        self.target = target
        self._what = what
        self._opened = ExitStack()

    def directory(self, digest: Digest) -> int:
        """Where a blob is: a descriptor that stays the place's."""
        raise NotImplementedError

    def finish(self, images: Sequence[WholeImage]) -> None:
        """Make the blobs durable, then name the images, at once.

        Raises:
            UnsupportedError: the place cannot hold them. StoreError: it cannot be written.
        """
        raise NotImplementedError

    def translated(self) -> AbstractContextManager[None]:
        """Give the disk's errors the name of what was done."""
        return files.translated(f"write {self._what}", str(self.target))

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
            StoreError: the place cannot be written.
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

    def adopt(self, blob: Descriptor, fd: int, state: bytes, check: Check) -> None:
        """Give a file the blob's name that was hashed while it was written and has no name, or copy it.

        Args:
            state: of its hasher, at the end.
        Raises:
            IntegrityError: it is not the blob. StoreError: the place cannot be written.
        """
        Verifier(blob.digest, blob.size, offset=blob.size, state=state).proof()
        with self.translated():
            _transfer(fd, self.directory(blob.digest), blob, check, is_new=True)

    def write(self, digest: Digest, data: bytes) -> None:
        """Give the place a small blob, whose bytes are right."""
        with self.translated():
            files.replace_at(self.directory(digest), digest.hex, data, temporary=_hidden(digest), mode=0o444)

    def close(self) -> None:
        """Unlock and close. Idempotent."""
        with self._opened.pop_all():
            pass


class NewBlob:
    """``Sink`` of a blob on its way into a place, under a hidden name until ``commit``.

    Raises:
        StoreError: it cannot be made.
    """

    def __init__(self, place: BlobFiles, digest: Digest) -> None:
        self._place = place
        self._name, self._new = digest.hex, _hidden(digest)
        self._offset = 0
        with place.translated():
            self._directory = place.directory(digest)
            with suppress(FileNotFoundError):
                os.unlink(self._new, dir_fd=self._directory)
            self._fd = os.open(self._new, files.CREATE, 0o600, dir_fd=self._directory)
        self._is_open = True

    def feed(self, buffer: Buffer) -> None:
        """Write the next bytes."""
        code = buffer.pwrite(self._fd, self._offset)
        with self._place.translated():
            if code:
                raise OSError(-code, os.strerror(-code))
        self._offset += len(buffer)

    def finish(self) -> None:
        """All bytes were fed; nothing is proven yet."""

    def commit(self) -> None:
        """Make the file durable, and give it the blob's name: its bytes were proven."""
        with self._place.translated():
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


def _transfer(source: int, directory: int, blob: Descriptor, check: Check, *, is_new: bool = False) -> Way:
    """Link or copy an open file to a hidden name, then rename it over what is there.

    Args:
        is_new: it is nobody's yet, and not durable.
    """
    hidden = _hidden(blob.digest)
    with suppress(FileNotFoundError):
        os.unlink(hidden, dir_fd=directory)
    try:
        is_linked = _link(source, directory, hidden)
        if not is_linked:
            _copy(source, directory, hidden, blob.size, check)
        elif is_new:
            os.fchmod(source, 0o444)
            os.fdatasync(source)
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
