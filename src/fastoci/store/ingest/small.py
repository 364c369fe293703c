"""Blobs that come as a whole: hashed, written and named in one visit to a thread, many at a time.

There is no directory, lock file or record for one of them: its file has no name until it has the blob's, and a killed
process leaves nothing. Its digest is held by a byte of the store's gate, for the time that it takes to fetch.
What cannot go this way goes the other (``ingest``): a blob that something is left of, or whose name is taken.
Spec: docs/store-format.md 4, "Small blobs".
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

import msgspec

from fastoci import files, locks
from fastoci._core import Buffer, let_go, place
from fastoci._core import hold as hold_byte
from fastoci.errors import StoreBusyError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.store.ingest import corrupt_sources
from fastoci.store.ingest.durability import Durability
from fastoci.store.ingest.ingest import StoreIngest, hold
from fastoci.store.layout import GATE, StoreLayout
from fastoci.stream.verify import Verifier, hash_buffers
from fastoci.threads import Threads

_SIZE: Final = 64 << 10  # bytes: what an interrupted fetch may cost again
_MOST: Final = 64  # blobs of one visit, each with an open file
_FIRST: Final = 1 << 32  # byte of the gate: those before are others'
_UNABLE: Final = frozenset({-errno.EOPNOTSUPP, -errno.EISDIR, -errno.EINVAL})  # no files without names


class _Whole(msgspec.Struct, eq=False):
    """All bytes of a blob, on their way."""

    blob: Descriptor
    buffer: Buffer
    verifier: Verifier
    named: asyncio.Future[None]
    error: BaseException | None = None


class SmallBlobs:
    """The small blobs on their way into one store, on its event loop.

    Args:
        anew: begins a blob the other way, on a thread, as ``Blobs.begin``.
    """

    def __init__(
        self,
        paths: StoreLayout,
        threads: Threads,
        durability: Durability,
        anew: Callable[[Descriptor], StoreIngest | None],
    ) -> None:
        self._paths = paths
        self._threads = threads
        self._durability = durability
        self._anew = anew
        self._gate = -1
        self._able = True
        self._held: set[Digest] = set()
        self._waiting: list[_Whole] = []
        self._visiting = False

    def begin(self, blob: Descriptor) -> SmallIngest | None:
        """Take hold of the digest of a blob that can go this way: ``StoreWriter.begin_small``.

        A few looks at names that the kernel has at hand, so it is done on the loop.
        """
        digest = blob.digest
        if not (self._able and 0 < blob.size <= _SIZE):
            return None
        if digest in self._held:
            raise self._busy(digest)
        try:
            code = self._hold(digest)
        except OSError:
            return None
        if code == -errno.EAGAIN:
            raise self._busy(digest)
        if code != 1:
            return None
        self._held.add(digest)
        return SmallIngest(blob, self)

    def finish(self, blob: Descriptor, buffer: Buffer, verifier: Verifier) -> asyncio.Future[None]:
        """Hash, write and name a blob: ``SmallIngest.commit``."""
        whole = _Whole(blob, buffer, verifier, asyncio.get_running_loop().create_future())
        self._waiting.append(whole)
        if not self._visiting:
            self._visit()
        return whole.named

    async def blame(self, digest: Digest, servers: Collection[str]) -> None:
        """Remember who sent a blob wrong."""
        await self._threads.run(partial(self._blame, digest, servers))

    def let_go(self, digest: Digest) -> None:
        """Hold a digest no more."""
        self._held.discard(digest)
        if self._gate >= 0:
            let_go(self._gate, byte_of(digest))

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        if self._gate >= 0:
            files.close(self._gate)
            self._gate = -1

    def _busy(self, digest: Digest) -> StoreBusyError:
        path = self._paths.ingest(digest)
        return StoreBusyError(f"another process is fetching {digest}", path=path)

    def _hold(self, digest: Digest) -> int:
        if self._gate < 0:
            self._gate = locks.open_to_lock(self._paths.leases, GATE)
        blobs, ingests = self._paths.blobs(digest.algorithm).fd, self._paths.ingests.fd
        return hold_byte(self._gate, byte_of(digest), blobs, ingests, digest.hex.encode())

    def _visit(self) -> None:
        batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        self._visiting = True
        try:
            visit = self._threads.ask(partial(self._bring, batch))
        except RuntimeError as error:  # the threads have ended
            for whole in batch:
                whole.error = error
            self._over(batch)
        else:
            visit.add_done_callback(lambda _: self._over(batch))

    def _over(self, batch: Sequence[_Whole]) -> None:
        self._visiting = False
        if self._waiting:
            self._visit()
        for whole in batch:
            self.let_go(whole.blob.digest)
            if whole.named.done():  # cancelled
                continue
            if whole.error is None:
                whole.named.set_result(None)
            else:
                whole.named.set_exception(whole.error)

    def _bring(self, batch: Sequence[_Whole]) -> None:
        """On a thread: hash all, and name those that are right; each has its error in the end."""
        try:
            _hash(batch)
            right = [whole for whole in batch if whole.error is None]
            for algorithm in {whole.blob.digest.algorithm for whole in right}:
                self._place(algorithm, [whole for whole in right if whole.blob.digest.algorithm == algorithm])
        except BaseException as error:
            for whole in batch:
                whole.error = whole.error or error
        for whole in batch:
            whole.buffer.release()

    def _place(self, algorithm: str, batch: Sequence[_Whole]) -> None:
        """On a thread: write and name what is right; what cannot go this way goes the other."""
        directory = f"{self._paths.root}/blobs/{algorithm}"
        codes = list[int]()

        def placed(sync: bool) -> list[Digest]:
            named = [(whole.blob.digest.hex.encode(), whole.buffer) for whole in batch]
            found, code = place(self._paths.ingests.fd, self._paths.blobs(algorithm).fd, named, sync)
            codes.extend(found)
            if code:
                raise OSError(-code, os.strerror(-code), directory)
            return [whole.blob.digest for whole, code in zip(batch, codes, strict=True) if not code]

        with files.translated("commit", directory, wanted=sum(whole.blob.size for whole in batch)):
            self._durability.name_together([whole.blob.digest for whole in batch], placed)
        if not _UNABLE.isdisjoint(codes):
            self._able = False
        for whole, code in zip(batch, codes, strict=True):
            if code:
                self._bring_anew(whole)

    def _bring_anew(self, whole: _Whole) -> None:
        """On a thread: the other way, which says in full what is wrong."""
        try:
            ingest = self._anew(whole.blob)
            if ingest is not None:
                ingest.fill(whole.buffer, whole.verifier.proof())
        except Exception as error:
            whole.error = error

    def _blame(self, digest: Digest, servers: Collection[str]) -> None:
        """On a thread: remember who sent a blob wrong."""
        held = hold(self._paths, digest.hex)
        if held is None:
            return
        try:
            with files.translated("write", held.directory.path):
                corrupt_sources.write(held.directory, servers)
        finally:
            held.close()


class SmallIngest:
    """``interfaces.SmallIngest``: made by ``SmallBlobs.begin``."""

    __slots__ = ("_blobs", "_holds", "blob")

    def __init__(self, blob: Descriptor, blobs: SmallBlobs) -> None:
        self.blob = blob
        self._blobs = blobs
        self._holds = True

    def commit(self, buffer: Buffer, verifier: Verifier) -> asyncio.Future[None]:
        """As ``interfaces.SmallIngest.commit``."""
        self._holds = False
        return self._blobs.finish(self.blob, buffer, verifier)

    async def abort(self, *, corrupt: Collection[str] = ()) -> None:
        """As ``interfaces.SmallIngest.abort``."""
        try:
            if corrupt:
                await self._blobs.blame(self.blob.digest, corrupt)
        finally:
            if self._holds:
                self._holds = False
                self._blobs.let_go(self.blob.digest)


def byte_of(digest: Digest) -> int:
    """The byte of the gate that stands for a digest; that two have one does no harm but to wait."""
    return _FIRST + int(digest.hex[:14], 16)


def _hash(batch: Sequence[_Whole]) -> None:
    """Hold each against its digest and size."""
    pairs = []
    for whole in batch:
        try:
            whole.verifier.expect(whole.buffer)
            pairs.append((whole.verifier, whole.buffer))
        except Exception as error:
            whole.error = error
    hash_buffers(pairs)
    for whole in batch:
        try:
            if whole.error is None:
                whole.verifier.proof()
        except Exception as error:
            whole.error = error
