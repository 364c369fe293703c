"""Reads files again and hashes them, several at a time on each thread, so that their streams share lanes.

Each thread keeps a few files open and takes a buffer of each in turn: no news to the event loop between buffers, so a
small file costs little more than its system calls. Hashing is ``stream.verify``'s.
Spec: docs/architecture.md, "One hasher".
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Literal

import msgspec

from fastoci import _core
from fastoci._core import Buffer
from fastoci.errors import BlobNotFoundError, DigestMismatchError, IntegrityError, SizeMismatchError, StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.stream.verify import Verifier, hash_buffers

OPEN: Final = 8  # files that one thread has open at most, each with a buffer
_LARGE: Final = (
    256 << 10
)  # bytes: of such files a thread opens as many as there are lanes; more would not fit the cache
_NOREUSE: Final = getattr(os, "POSIX_FADV_NOREUSE", 5)


Range = tuple[int, int]  # a begin and an end in a file
What = Literal["blob", "layer", "tar", "merged"]  # a layer file but for its tar; its tar; merged metadata


class Target(msgspec.Struct, frozen=True):
    """A file, what it must hash to, and how long it must be when that is known.

    Args:
        open: opens it for reading, or raises ``OSError``. ``path`` is for people.
        ranges: what of it is hashed, in order; all when there are none.
        of: the digest that it goes by, when that is another one.
    """

    number: int
    path: str
    digest: Digest
    size: int | None
    open: Callable[[], int]
    ranges: tuple[Range, ...] = ()
    what: What = "blob"
    of: Digest | None = None

    @property
    def name(self) -> str:
        """The digest that it goes by."""
        return str(self.of or self.digest)


class Outcome(msgspec.Struct, frozen=True):
    """A file that was read. ``error`` says what is wrong with it, ``size`` what it has, -1 when nobody knows."""

    target: Target
    size: int
    error: StoreError | DigestMismatchError | SizeMismatchError | None


class StoppedError(Exception):
    """Hashing ended because nobody waits for it any more."""


def find_corrupt(
    files: Sequence[tuple[Descriptor, int]], buffers: Sequence[Buffer], stop: threading.Event
) -> list[IntegrityError]:
    """Hash open files, in lanes; what is wrong with those that are not what their descriptors say, in their order.

    Args:
        buffers: empty; as many files are hashed together.
        stop: ends it within a buffer's time.
    Raises:
        StoppedError: ``stop`` was set. StoreError: the disk refused.
    """
    outcomes: list[Outcome] = []
    targets = (
        Target(number, os.readlink(f"/proc/self/fd/{fd}"), blob.digest, blob.size, partial(os.dup, fd))
        for number, (blob, fd) in enumerate(files)
    )
    Rehash(targets, rate=None, done=outcomes.append, read=lambda size: None, stop=stop).run(buffers)
    if stop.is_set():
        raise StoppedError
    found = []
    for outcome in sorted(outcomes, key=lambda outcome: outcome.target.number):
        if isinstance(outcome.error, StoreError):
            raise outcome.error
        if outcome.error is not None:
            found.append(_named(outcome, outcome.error))
    return found


def _named(outcome: Outcome, error: DigestMismatchError | SizeMismatchError) -> IntegrityError:
    if isinstance(error, SizeMismatchError):
        return error
    text = f"{outcome.target.path}: its {outcome.size} bytes are {error.actual}, not {error.expected}"
    return DigestMismatchError(text, subject=error.subject, expected=error.expected, actual=error.actual)


class Rate:
    """So many bytes a second over all threads, without a debt for the time when nothing was read."""

    def __init__(self, size: int | None, stop: threading.Event) -> None:
        self._size = size
        self._stop = stop
        self._lock = threading.Lock()
        self._free_at = 0.0

    def wait(self, size: int) -> None:
        """Let ``size`` bytes count, and wait until they may have been read, or until all stops."""
        if self._size is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + size / self._size
            pause = self._free_at - now
        self._stop.wait(pause)


class Rehash:
    """One pass over targets, shared by threads that each call ``run``.

    Args:
        rate: bytes a second, None for no limit.
        done: called with each file, as ``read`` is with the bytes read since; by one thread at a time.
        stop: set from outside, as ``stop`` does.
    """

    def __init__(
        self,
        targets: Iterable[Target],
        *,
        rate: int | None,
        done: Callable[[Outcome], None],
        read: Callable[[int], None],
        stop: threading.Event | None = None,
    ) -> None:
        self._targets = iter(targets)
        self._done = done
        self._read = read
        self._lock = threading.Lock()
        self._stop = stop or threading.Event()
        self._rate = Rate(rate, self._stop)

    def stop(self) -> None:
        """Let every thread end within a buffer's time."""
        self._stop.set()

    def run(self, buffers: Sequence[Buffer]) -> None:
        """Hash until no target is left; ``buffers`` are empty and stay the caller's."""
        free = list(buffers)
        files: list[_File] = []
        try:
            while not self._stop.is_set():
                self._fill(files, free)
                if not files:
                    return
                self._step(files, free)
        finally:
            for file in files:
                file.close()

    def _fill(self, files: list[_File], free: list[Buffer]) -> None:
        lanes = _core.lanes()
        large = sum(file.large for file in files)
        while free and large < lanes and not self._stop.is_set():
            with self._lock:
                target = next(self._targets, None)
            if target is None:
                return
            try:
                file = _File(target, free[-1])
            except StoreError as error:
                self._tell(Outcome(target, -1, error))
            except SizeMismatchError as error:
                self._tell(Outcome(target, int(error.actual), error))
            else:
                free.pop()
                files.append(file)
                large += file.large

    def _step(self, files: list[_File], free: list[Buffer]) -> None:
        """A buffer of each file; those that end leave."""
        ended: list[Outcome] = []
        pairs = []
        count = 0
        for file in files:
            try:
                if file.read():
                    count += len(file.buffer)
                    pairs.append((file.verifier, file.buffer))
            except (StoreError, SizeMismatchError) as error:
                file.failed = error
        hash_buffers(pairs)
        for file in list(files):
            if file.failed is not None or file.ended:
                ended.append(file.outcome())
                files.remove(file)
                free.append(file.buffer)
                file.close()
        with self._lock:
            self._read(count)
            for outcome in ended:
                self._done(outcome)
        self._rate.wait(count)

    def _tell(self, outcome: Outcome) -> None:
        with self._lock:
            self._done(outcome)


class _File:
    """One file on its way through the hash."""

    def __init__(self, target: Target, buffer: Buffer) -> None:
        self.target = target
        self.buffer = buffer
        self.failed: StoreError | SizeMismatchError | None = None
        self.ended = False
        try:
            self._fd = target.open()
        except OSError as cause:
            raise _cannot_open(target, cause) from cause
        try:
            info = os.fstat(self._fd)
            if not stat.S_ISREG(info.st_mode):
                raise StoreError(f"{target.path} is not a regular file", path=target.path)
            if target.size is not None and info.st_size != target.size:
                raise _wrong_size(target, info.st_size)
            self._ranges = [each for each in target.ranges if each[0] < each[1]]
            self._size = sum(end - begin for begin, end in self._ranges) if target.ranges else info.st_size
            self.verifier = Verifier(target.digest, self._size)
            self.large = self._size >= _LARGE
            if self.large:
                os.posix_fadvise(self._fd, 0, 0, _NOREUSE)  # others need their place in the page cache
        except BaseException:
            os.close(self._fd)
            raise

    def read(self) -> bool:
        """Fill the buffer; whether there is something to hash."""
        self.buffer.clear()
        count = self._fill()
        if not count and self.verifier.offset != self._size:
            raise _wrong_size(self.target, self.verifier.offset)
        self.verifier.expect(self.buffer)
        self.ended = self.verifier.offset + count == self._size
        return count > 0

    def _fill(self) -> int:
        """Read on, of a range no further than its end; bytes read, 0 at the end."""
        if not self.target.ranges:
            count = self.buffer.pread(self._fd, self.verifier.offset)
        else:
            begin, end = self._ranges[0] if self._ranges else (0, 0)
            count = read_piece(self.buffer, self._fd, begin, end)
            self._ranges[:1] = [(begin + count, end)] if begin + count < end else []
        if count < 0:
            path = self.target.path
            raise StoreError(f"cannot read {path}: {os.strerror(-count)}", path=path)
        return count

    def outcome(self) -> Outcome:
        """What became of it."""
        if self.failed is not None:
            return Outcome(self.target, self.verifier.offset, self.failed)
        try:
            self.verifier.proof()
        except DigestMismatchError as error:
            return Outcome(self.target, self._size, error)
        return Outcome(self.target, self._size, None)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read_piece(buffer: Buffer, fd: int, begin: int, end: int) -> int:
    """Read from a part of a file; bytes read, 0 at the end, -errno."""
    if end - begin >= buffer.room:
        return buffer.pread(fd, begin)
    try:
        count = os.preadv(fd, [buffer.reserve(end - begin)], begin)
    except OSError as cause:
        return -(cause.errno or errno.EIO)
    buffer.advance(count)
    return count


def _cannot_open(target: Target, cause: OSError) -> StoreError:
    if isinstance(cause, FileNotFoundError):
        return BlobNotFoundError(f"{target.name} is not there", path=target.path, subject=target.name)
    if cause.errno == errno.ELOOP:
        return StoreError(f"{target.path} is a symbolic link, which is not followed", path=target.path)
    return StoreError(f"cannot open {target.path}: {os.strerror(cause.errno or 0)}", path=target.path)


def _wrong_size(target: Target, actual: int) -> SizeMismatchError:
    expected = target.size if target.size is not None else -1
    text = f"{target.name}: expected {target.size} bytes, found {actual}"
    return SizeMismatchError(text, subject=target.name, expected=expected, actual=actual)
