"""One blob on its way into the store: held under its digest's lock, resumable, invisible until it is committed.

Data is written by a worker thread through ``sink``; what waits for the disk runs in the store's threads. Knows nothing
of the network and hashes nothing: ``Verified`` is the proof. Spec: docs/store-format.md 4.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from fastoci._core import Sha256
from fastoci.errors import StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.settle import settle
from fastoci.store import disk, lock
from fastoci.store.boot import Unsynced
from fastoci.store.data import DataSink, open_data
from fastoci.store.paths import Paths
from fastoci.store.state import STATE_SIZE, State
from fastoci.stream.sink import Sink
from fastoci.stream.verify import Verified


def hold(directory: str) -> int | None:
    """Take the lock of an ingest's directory, both made when absent; None while another task or process has it."""
    with disk.translated("begin", directory):
        while True:
            with suppress(FileExistsError):
                os.mkdir(directory, 0o700)
            with suppress(FileNotFoundError):
                if not stat.S_ISDIR(os.lstat(directory).st_mode):
                    raise StoreError(f"{directory} is no directory: remove it", path=directory)
            with suppress(FileNotFoundError):  # its last holder has just deleted it
                return lock.acquire(f"{directory}/lock", wait=False)


def remove(directory: str) -> None:
    """Delete an ingest whose lock the caller holds. The lock goes last: whoever comes then starts anew."""
    for name in ("data", "state", "lock"):
        with suppress(FileNotFoundError):
            os.unlink(f"{directory}/{name}")
    with suppress(OSError):  # another has begun in it again, or it holds a foreign file
        os.rmdir(directory)


class StoreIngest:
    """``Ingest`` on a file; made in one of the store's threads.

    ``held`` is the lock of the blob's ingest: it passes to the ingest, unless this constructor fails.
    """

    def __init__(
        self,
        blob: Descriptor,
        paths: Paths,
        *,
        boot_id: str,
        held: int,
        threads: ThreadPoolExecutor,
        unsynced: Unsynced,
        cached: bool,
    ) -> None:
        self._blob = blob
        self._paths = paths
        self._directory = paths.ingest(blob.digest)
        self._boot_id = boot_id
        self._lock = held
        self._threads = threads
        self._unsynced = unsynced
        self._state_fd = -1
        with disk.translated("begin", self._directory, wanted=blob.size):
            fd = open_data(f"{self._directory}/data")
            try:
                self._state_fd = os.open(f"{self._directory}/state", disk.CHANGE, 0o600)
                start = self._trusted(os.fstat(fd).st_size)
                os.ftruncate(fd, start.offset)
                data = f"{self._directory}/data"
                self._sink = DataSink(fd, data, offset=start.offset, size=blob.size, cached=cached)
            except BaseException:
                os.close(fd)
                if self._state_fd >= 0:
                    os.close(self._state_fd)
                raise
        self._start = start
        self._kept = start.offset

    @property
    def blob(self) -> Descriptor:
        return self._blob

    @property
    def offset(self) -> int:
        return self._start.offset

    @property
    def hash_state(self) -> bytes:
        return self._start.hash_state

    @property
    def sink(self) -> Sink:
        return self._sink

    def checkpoint(self, offset: int, hash_state: bytes) -> None:
        if not hash_state:  # an algorithm that cannot be resumed
            return
        if self._state_fd < 0 or not 0 <= offset <= self._sink.offset:
            raise ValueError(f"{self._directory}: no checkpoint at {offset}, {self._sink.offset} bytes are written")
        with disk.translated("write", f"{self._directory}/state", wanted=STATE_SIZE):
            os.pwrite(self._state_fd, State(self._boot_id, False, offset, hash_state).encode(), 0)
        self._kept = offset

    async def commit(self, proof: Verified) -> None:
        if type(proof) is not Verified or (proof.digest, proof.size) != (self._blob.digest, self._blob.size):
            await self.abort()
            raise ValueError(f"the proof is not of {self._blob.digest}, {self._blob.size} bytes")
        await self._run(self._commit)

    async def abort(self, *, discard: bool = False) -> None:
        if self._lock >= 0:
            await self._run(lambda: self.release(discard))

    def release(self, discard: bool = False) -> None:
        """``abort`` for a thread that may wait for the disk."""
        if self._lock < 0:
            return
        try:
            self._sink.abort()
            if discard or not self._kept:
                with disk.translated("delete", self._directory):
                    remove(self._directory)
        finally:
            self._close()

    async def _run(self, work: Callable[[], None]) -> None:
        _, cancelled = await settle(asyncio.get_running_loop().run_in_executor(self._threads, work))
        if cancelled:
            raise asyncio.CancelledError

    def _commit(self) -> None:
        if self._sink.fd < 0:
            self.release()
            raise ValueError(f"{self._directory}: commit after abort")
        try:
            with disk.translated("commit", self._paths.blob(self._blob.digest), wanted=self._blob.size):
                self._make_durable()
                self._publish(self._sink.fd)
        finally:
            self._close()

    def _make_durable(self) -> None:
        try:
            size = os.fstat(self._sink.fd).st_size
            if size != self._blob.size:
                data = f"{self._directory}/data"
                raise StoreError(f"{data} has {size} bytes, not {self._blob.size}", path=data)
            self._sink.sync()
        except (OSError, StoreError):
            # The kernel tells of a lost page once: a second sync would succeed over a hole.
            with suppress(OSError):
                remove(self._directory)
            raise

    def _publish(self, fd: int) -> None:
        os.fchmod(fd, 0o444)
        os.rename(f"{self._directory}/data", self._paths.blob(self._blob.digest))
        disk.sync_directory(self._paths.blobs(self._blob.digest))
        self._unsynced.clear(self._blob.digest)
        with suppress(OSError):  # the blob is there; a rest of the ingest is swept later
            remove(self._directory)

    def _close(self) -> None:
        """Close everything, the lock last."""
        self._sink.abort()
        for fd in (self._state_fd, self._lock):
            if fd >= 0:
                os.close(fd)
        self._state_fd = self._lock = -1

    def _trusted(self, written: int) -> State:
        """What an earlier attempt left and this one may build on."""
        nothing = State(self._boot_id, False, 0, b"")
        state = State.decode(os.pread(self._state_fd, STATE_SIZE + 1, 0))
        if state is None or not (state.synced or state.boot_id == self._boot_id):
            return nothing
        if not 0 < state.offset <= min(written, self._blob.size) or self._blob.digest.algorithm != "sha256":
            return nothing
        try:
            Sha256().restore(state.hash_state)
        except ValueError:
            return nothing
        return state
