"""What others implement: where blobs come from, and where they are kept. Places of images: ``image_interfaces``.

Control is async, on the event loop. Data (``Sink``) is synchronous, on worker threads. Each contract has one
conformance suite in ``fastoci.testing.suites``, run on every implementation.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from fastoci._core import Buffer
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.stored_image import StoredImage
from fastoci.stream.sink import Sink
from fastoci.stream.verify import Verified, Verifier


class BufferSource(Protocol):
    """Where empty buffers come from: waits for the budget, on the event loop."""

    async def take(self) -> Buffer:
        """An empty buffer with one reference, as soon as the budget has one."""

    def spare(self) -> Buffer | None:
        """An empty buffer that nobody waits for, if there is one."""

    @property
    def ahead(self) -> int:
        """Bytes that may be held ahead of their turn, over all fetches: the rest is for what goes on in order."""

    @property
    def pressed(self) -> set[Callable[[], object]]:
        """Called when ``ahead`` becomes smaller: who holds more gives back what is farthest ahead."""


class BlobSource(Protocol):
    """Somewhere that holds blobs: a registry, a mirror, a peer, another store."""

    @property
    def name(self) -> str:
        """For messages and events: ``127.0.0.1:5000/library/redis``."""

    def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield the blob's bytes from ``offset`` on, in order; each buffer's reference passes to the caller.

        Never yields a byte beyond ``blob.size``. Nothing is verified here. The iterator is closed by its caller
        (``aclose``), which ends the transfer.

        Raises:
            RegistryError, TransportError, StoreError: the blob cannot be had, or not all of it.
            SizeMismatchError: the source announces or sends another length than ``blob.size``.
        """


@runtime_checkable
class CorruptionAwareSource(Protocol):
    """A ``BlobSource`` over several servers, to which wrong bytes can be reported.

    A server is a text without secrets that means the same in another process, so it can be kept on disk.
    """

    def served_by(self, blob: Descriptor) -> tuple[str, ...]:
        """The servers that sent bytes of the last fetch of this blob; none before a fetch."""

    def report_corrupt(self, blob: Descriptor, servers: Collection[str]) -> None:
        """These servers sent wrong bytes of this blob, now or in an earlier run: ask them last, if at all.

        Texts that name no server of this source mean nothing.
        """


@runtime_checkable
class SizeAwareSource(Protocol):
    """A ``BlobSource`` that can say how large a blob is, for documents that do not: Docker's schema 1."""

    async def size_of(self, digest: Digest) -> int:
        """Bytes of a blob, as the source claims.

        Raises:
            FormatError: it does not say.
            NotFoundError, RegistryError, TransportError: the blob cannot be had.
        """


@runtime_checkable
class ForewarnedSource(Protocol):
    """A ``BlobSource`` that does better when it knows what else it is about to be asked for."""

    def expecting(self, blob: Descriptor) -> AbstractContextManager[None]:
        """Around the fetch of a blob, and the wait before it."""


class Ingest(Protocol):
    """One blob on its way into a store: invisible until ``commit``. Held by one owner, under a lock on its digest."""

    @property
    def blob(self) -> Descriptor:
        """What is on its way."""

    @property
    def offset(self) -> int:
        """Bytes that an earlier attempt left and that can be trusted: the fetch goes on here."""

    @property
    def hash_state(self) -> bytes:
        """The hasher's state at ``offset``; empty when ``offset`` is 0."""

    @property
    def corrupt_servers(self) -> tuple[str, ...]:
        """Who sent wrong bytes of this blob to earlier attempts: others are asked first."""

    @property
    def sink(self) -> Sink:
        """Writes buffers at ``offset`` and on. Its ``abort`` closes the data, and does not delete it."""

    def checkpoint(self, offset: int, hash_state: bytes) -> None:
        """Remember that ``offset`` bytes are written and hashed; called from the worker, between buffers."""

    async def commit(self, proof: Verified) -> None:
        """Make the blob durable and give it its final name, then let go of the digest. Closes, also on error.

        Raises:
            StoreError: the disk refused.
            ValueError: ``proof`` is of another blob.
        """

    async def abort(self, *, discard: bool = False, corrupt: Collection[str] = ()) -> None:
        """Let go of the digest and keep what the last checkpoint covers for a later attempt, or ``discard`` it.

        Args:
            corrupt: who sent wrong bytes of it, as ``CorruptionAwareSource`` says; remembered until it is committed.
        """


class SmallIngest(Protocol):
    """A blob on its way into a store that comes as a whole: nothing of it is kept before all is there."""

    @property
    def blob(self) -> Descriptor:
        """What is on its way."""

    def commit(self, buffer: Buffer, verifier: Verifier) -> Awaitable[None]:
        """Hash all bytes of the blob, make it durable and give it its name, then let go of the digest; also on error.

        Args:
            buffer: has all of them; its reference passes to the store.
            verifier: has seen none of them.
        Raises:
            IntegrityError: other bytes, or not as many; ``abort`` then says from whom.
            StoreBusyError: another has begun meanwhile, in a way that this one cannot wait for.
            StoreError: the disk refused.
        """

    async def abort(self, *, corrupt: Collection[str] = ()) -> None:
        """Let go of the digest. As ``Ingest.abort``, but that there is nothing to keep; also after ``commit``."""


class IngestStatus(msgspec.Struct, frozen=True):
    """A blob that is on its way into a store, or was left half-way.

    ``size`` bytes of it are there, as far as anybody sees from outside; ``held`` while somebody is at work on it.
    """

    digest: Digest
    size: int
    held: bool


class BlobStore(Protocol):
    """Keeps verified blobs by digest, and the names of images. Used by many jobs at once, in many processes.

    A job that brings blobs enters a ``session``; one that only reads them enters ``keep``. Nothing else protects blobs
    from a gc that runs meanwhile.
    """

    def session(self, blobs: Collection[Descriptor]) -> AbstractAsyncContextManager[StoreSession]:
        """Begin a job that needs these blobs: keep them from gc until its end, then see which are missing.

        Raises:
            StoreError: the disk refused, or the store cannot be written.
        """

    def keep(self, blobs: Collection[Descriptor], *, name: str = "") -> AbstractAsyncContextManager[None]:
        """Keep blobs from gc while they are read. A store that this process may not write is read without that.

        Args:
            name: of the image that they are of: it is used now, and read without that when the disk is full, too.
        """

    async def missing(self, blobs: Collection[Descriptor]) -> list[Descriptor]:
        """Which of these are absent, or present with another size; each digest once, in the order given.

        The answer is worth nothing beside a gc, unless a ``session`` or ``keep`` protects the blobs.
        """

    async def read(self, blob: Descriptor) -> bytes:
        """All bytes of a small blob (a manifest or config).

        Raises:
            BlobNotFoundError: absent, or of another size.
        """

    def open(self, blob: Descriptor) -> int:
        """A read-only descriptor of the blob's file; the caller closes it. May be called from any thread.

        Raises:
            BlobNotFoundError: absent, or of another size, or not a regular file.
        """

    async def mark_corrupt(self, digest: Digest) -> None:
        """Count a blob as absent until it is replaced: it was hashed, and is not what its name says."""

    async def image(self, name: str) -> StoredImage:
        """What was recorded last under this name.

        Raises:
            BlobNotFoundError: nothing was.
        """

    async def recorded(self, names: Collection[str]) -> dict[str, StoredImage]:
        """What was recorded last under these names; those that have nothing, or nothing that can be read, are left out.

        A job of many images asks once.
        """

    async def ingests(self) -> list[IngestStatus]:
        """All blobs that are on their way, or were left half-way."""

    async def ingest(self, digest: Digest) -> IngestStatus | None:
        """How far one of them is; None when there is none."""

    async def discard(self, digest: Digest) -> bool:
        """Delete what an earlier attempt left of a blob; whether there was anything.

        Raises:
            StoreBusyError: somebody is at work on it.
        """


class StoreSession(Protocol):
    """A job's time in a store. Its blobs are safe from gc; which of them are ``missing`` is known, and announced.

    Nothing can be fetched yet: ``reserve`` gives who can.
    """

    @property
    def missing(self) -> tuple[Descriptor, ...]:
        """What was absent when the session began, each digest once, in the order given."""

    def reserve(self, *, root: Path | None = None, unpacked: int = 0) -> AbstractAsyncContextManager[StoreWriter]:
        """Hold space for what is missing, beside what other sessions of this process hold, until it is there.

        Args:
            root: a directory, made or not, that the job fills with ``unpacked`` bytes of files.
        Raises:
            StoreFullError: there is not enough; nothing was fetched.
        """


class StoreWriter(Protocol):
    """Who brings the blobs of a session: those that were missing, and any other of them that is found corrupt.

    ``begin`` → (sink.feed)* → ``commit`` | ``abort``, blob by blob, then ``record`` or ``flush``. While another process
    has a digest, ``begin`` raises and ``wait`` waits, holding nothing.
    """

    async def begin(self, blob: Descriptor, *, cached: bool = False) -> Ingest | None:
        """Take hold of the digest; None when the blob is there by then.

        Resumes what an earlier attempt left.

        Args:
            cached: the blob is read back soon: keep it in the page cache, which a large blob otherwise leaves alone.
        Raises:
            StoreBusyError: another process, or another task, has it.
            StoreError: the disk refused.
            ValueError: the session does not have the blob, or is over.
        """

    def begin_small(self, blob: Descriptor) -> SmallIngest | None:
        """``begin`` for a blob that the store takes as a whole; None when it must be begun by ``begin``, or is there.

        Raises: as ``begin``.
        """

    async def wait(self, blob: Descriptor, progressed: Callable[[int], None]) -> bool:
        """Return when nobody else holds the digest any more; whether the blob is there. Holds no thread or descriptor.

        Args:
            progressed: is called with the number of bytes that the other has, now and then, when that changes.
        Raises:
            StoreBusyError: the other makes no progress for longer than any fetch waits.
            StoreError: the disk refused.
        """

    async def adopt(self, blob: Descriptor) -> None:
        """Take over a blob that another process committed on behalf of this session: what is to come for it comes here.

        Raises:
            BlobNotFoundError: it is not there.
            StoreError: the disk refused.
            ValueError: the session does not have the blob, or is over.
        """

    async def record(self, image: StoredImage) -> None:
        """Give an image its name, durably, after its blobs. Replaces what had the name.

        Raises:
            BlobNotFoundError: a manifest or index that it names is not in the store.
            StoreError: the disk refused.
            ValueError: the session does not have what it names, or is over.
        """

    async def use(self, name: str) -> None:
        """Note that an image is used: those least recently used go first. A name that is not there says nothing."""

    async def flush(self) -> None:
        """Make durable what was committed, for a job that records nothing.

        Raises:
            StoreError: the disk lost a blob, which is absent from now on.
        """


@runtime_checkable
class LinkableSource(Protocol):
    """A ``BlobSource`` whose blobs are files that nobody changes: a sink may link them where it would write them."""

    def open_linkable(self, blob: Descriptor) -> int:
        """A read-only descriptor of the blob's file; the caller closes it. May be called from any thread.

        Raises:
            BlobNotFoundError: absent, or of another size, or not a regular file.
        """


@runtime_checkable
class FileSource(Protocol):
    """A ``BlobSource`` whose blobs are files: the thread that hashes one reads it, too, in place of ``fetch``."""

    async def open_file(self, blob: Descriptor) -> int:
        """A read-only descriptor of the blob's file, which had the right size; the caller closes it.

        Raises:
            StoreError, SizeMismatchError: the blob cannot be had.
        """


class HashPoint(msgspec.Struct, frozen=True):
    """How far a stream is hashed, and the state of the hash there."""

    offset: int
    state: bytes


@runtime_checkable
class SpoolingSource(Protocol):
    """A ``BlobSource`` that had blobs in its hands before anybody knew them, and kept them in files without names."""

    def spooled(self, blob: Descriptor) -> tuple[int, bytes] | None:
        """A file that has just this blob, which stays the source's, and the state of its hasher at the end.

        None when the blob has no file of its own. Who takes it may give the file the blob's name.

        Raises:
            BlobNotFoundError, SizeMismatchError: there is no such blob.
        """


class Spooler(Protocol):
    """A store that takes blobs whose digests are known when all of them is there."""

    async def spool(self) -> int:
        """An unnamed file on the store's disk, which the caller closes."""

    async def leave(self, blob: Descriptor, fd: int, hash_state: bytes) -> None:
        """Let such a file be the blob's bytes, which need not be fetched then; where that can be done."""


class Streaming(Protocol):
    """How bytes go through an engine: in buffers of its budget, hashed on its threads, told to its observer."""

    async def into(self, blob: Descriptor, source: BlobSource, sink: Sink) -> Verified:
        """Give a blob's bytes to a sink, each buffer when it is hashed; ``sink`` is finished then, or else aborted.

        What a sink has is nobody's before the proof.

        Raises:
            IntegrityError: other bytes, or not as many.
            FastociError: as the source, or the sink, says.
        """

    def verified(
        self, blob: Descriptor, source: BlobSource, *, points: list[HashPoint] | None = None
    ) -> AsyncGenerator[Buffer, None]:
        """Yield a blob's bytes, hashed; each buffer's reference passes to the caller.

        The last buffer comes when all are proven: nobody gets the whole of a blob that is not what its name says.

        Args:
            points: of earlier streams of this blob: this one begins at the last, and adds to them now and then.
        Raises:
            ValueError: the last of ``points`` is no state.
            IntegrityError: other bytes, or not as many.
            FastociError: as the source says.
        """


class UploadNotes(Protocol):
    """Keeps small notes about uploads that are under way, for whoever goes on with them after this process."""

    async def take(self, key: str) -> bytes | None:
        """Take a note away: it is its taker's from now on. None when there is none, or it is too old.

        Raises:
            StoreError: the disk refused.
        """

    async def keep(self, key: str, data: bytes) -> None:
        """Keep a note, in place of an earlier one. Raises: as ``take``."""

    async def drop(self, key: str) -> None:
        """Have no note. Raises: as ``take``."""
