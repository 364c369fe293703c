"""One blob on its way into the store: held under its digest's lock, resumable, invisible until it is committed.

Data is written by a worker thread through ``sink``; what waits for the disk runs in the store's threads. Knows nothing
of the network and hashes nothing: ``Verified`` is the proof. Spec: docs/store-format.md 4.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from contextlib import suppress
from typing import Final

import msgspec

from fastoci import files, locks
from fastoci._core import Buffer
from fastoci.directory import Directory
from fastoci.errors import StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.store.ingest import corrupt_sources
from fastoci.store.ingest.checkpoint import Record, State, begin, trusted
from fastoci.store.ingest.data_file import DataFile, open_data
from fastoci.store.ingest.durability import Durability
from fastoci.store.layout import StoreLayout
from fastoci.stream.sink import Sink
from fastoci.stream.verify import Verified
from fastoci.threads import Threads

_LOG: Final = logging.getLogger(__name__)


class Held(msgspec.Struct):
    """The directory of one ingest, in the directory of all, and the descriptor of its lock."""

    directory: Directory
    ingests: Directory
    lock: int

    def remove(self) -> None:
        """Delete the ingest. What holds it stays open."""
        remove(self.directory, self.ingests)

    def close(self) -> None:
        """Let go, of the lock last. Idempotent."""
        self.directory.close()
        if self.lock >= 0:
            files.close(self.lock)
            self.lock = -1


def hold(paths: StoreLayout, name: str) -> Held | None:
    """Take the lock of an ingest, both made when absent; None while another task or process has it."""
    with files.translated("begin", f"{paths.root}/ingest/{name}"):
        while True:
            with suppress(FileExistsError):
                paths.ingests.mkdir(name, 0o700)
            with suppress(FileNotFoundError):  # its last holder has just deleted it
                directory = paths.enter(paths.ingests, name)
                try:
                    held = locks.acquire(directory, "lock", wait=False)
                except BaseException:
                    directory.close()
                    raise
                if held is not None:
                    return Held(directory, paths.ingests, held)
                directory.close()
                return None


def remove(directory: Directory, ingests: Directory) -> None:
    """Delete an ingest whose lock the caller holds. The lock goes last: whoever comes then starts anew."""
    for name in ("data", "state", corrupt_sources.NAME, "lock"):
        with suppress(FileNotFoundError):
            directory.unlink(name)
    with suppress(OSError):  # another has begun in it again, or it holds a foreign file
        ingests.rmdir(os.path.basename(directory.path))


def fill(held: Held, data: int, state: State) -> None:
    """Put an unnamed file in place of an ingest's data, of which ``state`` says how far it is hashed.

    Raises:
        OSError: the file cannot get a name here; the ingest has no data then.
    """
    for name in ("state", "data"):  # without a state, data says nothing
        with suppress(FileNotFoundError):
            held.directory.unlink(name)
    os.link(f"/proc/self/fd/{data}", "data", dst_dir_fd=held.directory.fd, follow_symlinks=True)
    fd = held.directory.open("state", files.CHANGE)
    try:
        files.write_all(fd, state.encode())
    finally:
        files.close(fd)


class StoreIngest:
    """``Ingest`` on a file; made in one of the store's threads.

    ``held`` is the blob's ingest, locked: it passes to this one, unless this constructor fails.
    """

    def __init__(
        self,
        blob: Descriptor,
        paths: StoreLayout,
        *,
        boot_id: str,
        held: Held,
        threads: Threads,
        durability: Durability,
        cached: bool,
    ) -> None:
        self._blob = blob
        self._paths = paths
        self._held = held
        self._directory = held.directory.path  # for people
        self._threads = threads
        self._durability = durability
        self._corrupt_servers = corrupt_sources.read(held.directory)
        data = f"{self._directory}/data"
        with files.translated("begin", self._directory, wanted=blob.size):
            fd = open_data(held.directory, "data")
            state_fd = -1
            try:
                state_fd = held.directory.open("state", files.CHANGE)
                self._start = trusted(fd, state_fd, blob, boot_id)
                os.ftruncate(fd, self._start.offset)
                begin(state_fd, blob, self._start)
                self._sink = DataFile(fd, data, offset=self._start.offset, size=blob.size, cached=cached)
            except BaseException:
                files.close(fd)
                if state_fd >= 0:
                    files.close(state_fd)
                raise
        # What is thrown away after a power cut need not be synced on its way.
        syncs = threads if durability.level != "none" else None
        directories = (held.directory, held.ingests)
        self._record = Record(directories, data_fd=fd, state_fd=state_fd, start=self._start, threads=syncs)

    @property
    def blob(self) -> Descriptor:
        """As ``interfaces.Ingest.blob``."""
        return self._blob

    @property
    def offset(self) -> int:
        """As ``interfaces.Ingest.offset``."""
        return self._start.offset

    @property
    def hash_state(self) -> bytes:
        """As ``interfaces.Ingest.hash_state``."""
        return self._start.hash_state

    @property
    def corrupt_servers(self) -> tuple[str, ...]:
        """As ``interfaces.Ingest.corrupt_servers``."""
        return self._corrupt_servers

    @property
    def sink(self) -> Sink:
        """As ``interfaces.Ingest.sink``."""
        return self._sink

    def checkpoint(self, offset: int, hash_state: bytes) -> None:
        """As ``interfaces.Ingest.checkpoint``.

        Raises:
            ValueError: so many bytes are not written.
            StoreError: the disk refused.
        """
        if not hash_state:  # an algorithm that cannot be resumed
            return
        if self._sink.fd < 0 or not 0 <= offset <= self._sink.offset:
            raise ValueError(f"{self._directory}: no checkpoint at {offset}, {self._sink.offset} bytes are written")
        self._record.save(offset, hash_state)

    async def commit(self, proof: Verified) -> None:
        """As ``interfaces.Ingest.commit``; raises as it says."""
        if not self._is_proven(proof):
            await self.abort()
            raise ValueError(f"the proof is not of {self._blob.digest}, {self._blob.size} bytes")
        try:
            await self._threads.run(self._commit)
        except BaseException:
            await self.abort()  # when no thread came to it
            raise

    def fill(self, buffer: Buffer, proof: Verified) -> None:
        """On a thread of the store's: write all of the blob, whatever is left of it, and ``commit``."""
        try:
            assert self._is_proven(proof)
            with files.translated("write", f"{self._directory}/data", wanted=self._blob.size):
                if code := buffer.pwrite(self._sink.fd, 0):
                    raise OSError(-code, os.strerror(-code))
            self._commit()
        except BaseException:
            self.release(discard=True)
            raise

    def _is_proven(self, proof: Verified) -> bool:
        return type(proof) is Verified and (proof.digest, proof.size) == (self._blob.digest, self._blob.size)

    async def abort(self, *, discard: bool = False, corrupt: Collection[str] = ()) -> None:
        """As ``interfaces.Ingest.abort``."""
        if self._held.lock >= 0:
            await self._threads.run(lambda: self.release(discard, corrupt))

    def release(self, discard: bool = False, corrupt: Collection[str] = ()) -> None:
        """``abort`` for a thread of the store's."""
        if self._held.lock < 0:
            return
        try:
            self._record.settle()
            self._sink.abort()
            _LOG.debug("%s: ingest given up, %s", self._blob.digest, "nothing kept" if discard else "to be resumed")
            if discard or self._record.lost or not self._record.offset:
                with files.translated("delete", self._directory):
                    self._empty(dict.fromkeys((*self._corrupt_servers, *corrupt)))
        finally:
            self._close()

    def _empty(self, servers: Collection[str]) -> None:
        """Delete what was fetched, and remember who sent it wrong; all goes when nobody did."""
        if servers:
            for name in ("data", "state"):
                self._held.directory.unlink(name)
            corrupt_sources.write(self._held.directory, servers)
        else:
            self._held.remove()

    def _commit(self) -> None:
        if self._sink.fd < 0:
            self.release()
            raise ValueError(f"{self._directory}: commit after abort")
        digest, size = self._blob.digest, self._blob.size
        try:
            with files.translated("commit", self._paths.blob(digest), wanted=size):
                self._check()
                self._durability.name(digest, size, sync=self._sync, rename=self._rename)
                with suppress(OSError):  # the blob is there; a rest of the ingest is swept later
                    self._held.remove()
        finally:
            self._close()

    def _check(self) -> None:
        """Refuse data that another process has changed, or the disk lost."""
        self._record.settle()
        size = os.fstat(self._sink.fd).st_size
        if self._record.lost or size != self._blob.size:
            with suppress(OSError):
                self._held.remove()
            data = f"{self._directory}/data"
            found = "was lost by the disk" if self._record.lost else f"has {size} bytes, not {self._blob.size}"
            raise StoreError(f"{data} {found}", path=data)

    def _sync(self) -> None:
        try:
            self._sink.sync()
        except OSError:
            # The kernel tells of a lost page once: a second sync would succeed over a hole.
            with suppress(OSError):
                self._held.remove()
            raise

    def _rename(self) -> None:
        os.fchmod(self._sink.fd, 0o444)
        digest = self._blob.digest
        self._held.directory.rename("data", self._paths.blobs(digest.algorithm), digest.hex)

    def _close(self) -> None:
        """Close everything, the lock last."""
        try:
            self._record.close()
            self._sink.abort()
        finally:
            self._held.close()
