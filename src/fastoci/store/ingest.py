"""One blob on its way into the store: held under its digest's lock, resumable, invisible until it is committed.

Data is written by a worker thread through ``sink``; what waits for the disk runs in the store's threads. Knows nothing
of the network and hashes nothing: ``Verified`` is the proof. Spec: docs/store-format.md 4.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from fastoci.errors import StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.store import disk, lock
from fastoci.store.data import DataSink, open_data
from fastoci.store.durable import Durability
from fastoci.store.paths import Paths
from fastoci.store.resume import Record, begin, trusted
from fastoci.store.threads import Threads
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
        threads: Threads,
        durability: Durability,
        cached: bool,
    ) -> None:
        self._blob = blob
        self._paths = paths
        self._directory = paths.ingest(blob.digest)
        self._lock = held
        self._threads = threads
        self._durability = durability
        data = f"{self._directory}/data"
        with disk.translated("begin", self._directory, wanted=blob.size):
            fd = open_data(data)
            state_fd = -1
            try:
                state_fd = os.open(f"{self._directory}/state", disk.CHANGE, 0o600)
                self._start = trusted(fd, state_fd, blob, boot_id)
                os.ftruncate(fd, self._start.offset)
                begin(state_fd, blob, self._start)
                self._sink = DataSink(fd, data, offset=self._start.offset, size=blob.size, cached=cached)
            except BaseException:
                disk.close(fd)
                if state_fd >= 0:
                    disk.close(state_fd)
                raise
        # What is thrown away after a power cut need not be synced on its way.
        syncs = threads if durability.level != "none" else None
        self._record = Record(self._directory, data_fd=fd, state_fd=state_fd, start=self._start, threads=syncs)

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
        if self._sink.fd < 0 or not 0 <= offset <= self._sink.offset:
            raise ValueError(f"{self._directory}: no checkpoint at {offset}, {self._sink.offset} bytes are written")
        self._record.save(offset, hash_state)

    async def commit(self, proof: Verified) -> None:
        if type(proof) is not Verified or (proof.digest, proof.size) != (self._blob.digest, self._blob.size):
            await self.abort()
            raise ValueError(f"the proof is not of {self._blob.digest}, {self._blob.size} bytes")
        await self._threads.run(self._commit)

    async def abort(self, *, discard: bool = False) -> None:
        if self._lock >= 0:
            await self._threads.run(lambda: self.release(discard))

    def release(self, discard: bool = False) -> None:
        """``abort`` for a thread of the store's."""
        if self._lock < 0:
            return
        try:
            self._record.settle()
            self._sink.abort()
            if discard or self._record.lost or not self._record.offset:
                with disk.translated("delete", self._directory):
                    remove(self._directory)
        finally:
            self._close()

    def _commit(self) -> None:
        if self._sink.fd < 0:
            self.release()
            raise ValueError(f"{self._directory}: commit after abort")
        digest, size = self._blob.digest, self._blob.size
        try:
            with disk.translated("commit", self._paths.blob(digest), wanted=size):
                self._check()
                self._durability.name(digest, size, sync=self._sync, rename=self._rename)
                with suppress(OSError):  # the blob is there; a rest of the ingest is swept later
                    remove(self._directory)
        finally:
            self._close()

    def _check(self) -> None:
        """Refuse data that another process has changed, or the disk lost."""
        self._record.settle()
        size = os.fstat(self._sink.fd).st_size
        if self._record.lost or size != self._blob.size:
            with suppress(OSError):
                remove(self._directory)
            data = f"{self._directory}/data"
            found = "was lost by the disk" if self._record.lost else f"has {size} bytes, not {self._blob.size}"
            raise StoreError(f"{data} {found}", path=data)

    def _sync(self) -> None:
        try:
            self._sink.sync()
        except OSError:
            # The kernel tells of a lost page once: a second sync would succeed over a hole.
            with suppress(OSError):
                remove(self._directory)
            raise

    def _rename(self) -> None:
        os.fchmod(self._sink.fd, 0o444)
        os.rename(f"{self._directory}/data", self._paths.blob(self._blob.digest))

    def _close(self) -> None:
        """Close everything, the lock last."""
        self._record.close()
        self._sink.abort()
        if self._lock >= 0:
            disk.close(self._lock)
            self._lock = -1
