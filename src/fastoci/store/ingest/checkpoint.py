"""Where an ingest can go on: which bytes are trusted at its begin, and the record of them that is kept meanwhile.

Within one boot the record tells what is hashed, and what was written behind that is hashed again: whoever was killed
had no time to say so. For the next boot the data is synced now and then in one of the store's threads, and a record is
written that says so; after a power cut what was synced is hashed again, and nothing else.
Knows nothing of the blob's name and lock. Spec: docs/store-format.md 4.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import zlib
from concurrent.futures import Future, wait
from typing import Final

import msgspec

from fastoci import files
from fastoci._core import BUFFER_SIZE, Sha256
from fastoci.directory import Directory
from fastoci.errors import StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.threads import Threads, check

STATE_SIZE: Final = 512  # within one page: a killed writer leaves the old record or the new, and the CRC tells the rest
_BODY: Final = STATE_SIZE - 9  # before the CRC's 8 digits and the newline
_STEP: Final = 64 << 20  # bytes between two syncs: what a power cut costs, and 16 of a disk's many syncs a GB
_PIECE: Final = 1 << 20  # bytes that are hashed at a time


class State(msgspec.Struct, frozen=True):
    """``offset`` bytes of the data are written and hashed, of which the first ``synced`` were on the disk before."""

    boot_id: str
    synced: int
    offset: int
    hash_state: bytes

    def encode(self) -> bytes:
        """The record as it is on disk.

        Raises:
            ValueError: it is longer than a record may be.
        """
        text = json.dumps(
            {
                "boot_id": self.boot_id,
                "synced": self.synced,
                "offset": self.offset,
                "hash_state": self.hash_state.hex(),
            }
        )
        body = text.encode().ljust(_BODY)
        if len(body) != _BODY:
            raise ValueError(f"a hash state of {len(self.hash_state)} bytes does not fit")
        return body + b"%08x\n" % zlib.crc32(body)

    @staticmethod
    def decode(record: bytes) -> State | None:
        """The value, or None for a record that is torn, of another length, or not this at all."""
        body = record[:_BODY]
        if len(record) != STATE_SIZE or record[_BODY:] != b"%08x\n" % zlib.crc32(body):
            return None
        try:
            fields = json.loads(body)
            boot_id, synced, offset = fields["boot_id"], fields["synced"], fields["offset"]
            hash_state = bytes.fromhex(fields["hash_state"])
        except (ValueError, LookupError, TypeError):
            return None
        if type(boot_id) is not str or type(synced) is not int or type(offset) is not int:
            return None
        if not 0 <= synced <= offset:
            return None
        return State(boot_id, synced, offset, hash_state)


class Record:
    """The ``state`` of an ingest under way. ``save`` is called by one worker at a time, the rest by store threads.

    ``offset`` is what the record covers; ``lost`` turns true when the disk failed to sync: nothing is believed then.

    Args:
        directories: the ingest's and the one of all ingests; not owned, as ``data_fd`` is.
        data_fd: not owned, open until ``wait_to_end`` has returned. ``state_fd`` is owned.
        threads: where syncs run; None for no syncs.
    """

    def __init__(
        self,
        directories: tuple[Directory, Directory],
        *,
        data_fd: int,
        state_fd: int,
        start: State,
        threads: Threads | None,
    ) -> None:
        self.offset = start.offset
        self.lost = False
        self._directories = directories
        self._data_fd = data_fd
        self._state_fd = state_fd
        self._guard = threading.Lock()  # the record is written by two threads
        self._state = start
        self._threads = threads
        self._next_sync = start.offset + _STEP
        self._syncing: Future[None] | None = None

    def save(self, offset: int, hash_state: bytes) -> None:
        """Note that ``offset`` bytes are written and hashed.

        Raises:
            StoreError: the disk refused, or has lost data.
        """
        directory = self._directories[0].path
        path = f"{directory}/state"
        if self._state_fd < 0:
            raise ValueError(f"{path} is closed")
        if self.lost:
            raise StoreError(f"the disk lost what was written below {directory}", path=path)
        with files.translated("write", path, wanted=STATE_SIZE), self._guard:
            self._write(State(self._state.boot_id, self._state.synced, offset, hash_state))
        if self._threads is not None and offset >= self._next_sync and (not self._syncing or self._syncing.done()):
            self._next_sync = offset + _STEP
            self._syncing = self._threads.start(self._sync)

    def settle(self) -> None:
        """Wait for a sync under way, however it ends. Its thread was there first, so a thread of the store may wait."""
        if self._syncing is not None:
            wait([self._syncing])

    def close(self) -> None:
        """Close the record; idempotent."""
        self.settle()
        if self._state_fd >= 0:
            files.close(self._state_fd)
            self._state_fd = -1

    def _write(self, state: State) -> None:
        os.pwrite(self._state_fd, state.encode(), 0)
        self._state = state
        self.offset = state.offset

    def _sync(self) -> None:
        with self._guard:
            synced = self._state.offset
        try:
            os.fdatasync(self._data_fd)
            with self._guard:
                first = not self._state.synced
                self._write(State(self._state.boot_id, synced, self._state.offset, self._state.hash_state))
            os.fdatasync(self._state_fd)
            if first:
                for directory in self._directories:
                    directory.sync()
        except BaseException as error:
            self.lost = True  # or nobody knows what became of it
            if not isinstance(error, OSError):
                raise


def trusted(data_fd: int, state_fd: int, blob: Descriptor, boot_id: str) -> State:
    """What an earlier attempt left and this one may build on, as a record of this boot.

    Raises:
        OSError: the disk refused.
    """
    nothing = State(boot_id, 0, 0, b"")
    state = State.decode(os.pread(state_fd, STATE_SIZE + 1, 0))
    if state is None or blob.digest.algorithm != "sha256" or state.offset > blob.size:
        return nothing
    written = os.fstat(data_fd).st_size
    same = state.boot_id == boot_id
    if written < (state.offset if same else state.synced):
        return nothing
    hasher = Sha256()
    if same and state.offset and not _restore(hasher, state.hash_state):
        return nothing
    # The data has no holes: it is written from front to back, and its length is what was written.
    start, end = (state.offset, written if written <= blob.size else state.offset) if same else (0, state.synced)
    _hash(hasher, data_fd, start, end)
    return State(boot_id, state.synced, end, hasher.state()) if end else nothing


def begin(state_fd: int, blob: Descriptor, start: State) -> None:
    """Replace the record of an earlier attempt by ``start``, which says what is hashed now, and in which boot.

    What was said of bytes that are cut off must not be believed of those that follow. A small blob that starts at 0 is
    left without a record: fetching it again costs less than to keep one for each.

    Raises:
        OSError: the disk refused.
    """
    if start.offset or (blob.size > BUFFER_SIZE and blob.digest.algorithm == "sha256"):
        os.pwrite(state_fd, start.encode(), 0)
    elif os.fstat(state_fd).st_size:
        os.ftruncate(state_fd, 0)


def _restore(hasher: Sha256, hash_state: bytes) -> bool:
    try:
        hasher.restore(hash_state)
    except ValueError:
        return False
    return True


def _hash(hasher: Sha256, fd: int, start: int, end: int) -> None:
    for offset in range(start, end, _PIECE):
        check()
        piece = os.pread(fd, min(_PIECE, end - offset), offset)
        hasher.update(piece)
        if len(piece) < min(_PIECE, end - offset):
            raise OSError(errno.EIO, "the data ends early")
