"""What the store has: hashed before it is handed on, and mended when it is not what its name says.

A blob that is there is believed by its name and size: to hash each again would cost a pull more than all else it does.
Whoever hands blobs on under their digests, or finds that one makes no sense, has them hashed here. What is damaged
counts as absent from then on, and is fetched again when there is somebody to ask.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import ExitStack, suppress
from typing import Final, TypeVar

from fastoci import _core
from fastoci._core import Buffer
from fastoci.aio import all_or_first, wait_to_end
from fastoci.errors import BlobNotFoundError, FastociError, IntegrityError
from fastoci.events import FetchDuplicated, Observer, Warned
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image_interfaces import ImageSink, ImageWriter, WholeImage
from fastoci.interfaces import BlobSource, BlobStore
from fastoci.jobs.rehash import StoppedError, find_corrupt
from fastoci.layouts.blob_files import FindCorrupt
from fastoci.threads import Check
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.scheduler import BytesSource, Scheduler
from fastoci.transfer.stored_source import StoredSource
from fastoci.transfer.workers import WorkerPool

_OPEN: Final = 32  # files that are open at a time
_REPLACED: Final = 3  # times that one job works anew because another process replaced the same file
_NO_FILE: Final = (-1, -1, -1)

T = TypeVar("T")
FileStamp = tuple[int, int, int]  # device, inode, time of the last write: other bytes of a blob are another file


def stamp_of(fd: int) -> FileStamp:
    """Which file it is."""
    info = os.fstat(fd)
    return info.st_dev, info.st_ino, info.st_mtime_ns


class Mending:
    """What one job mends of an image's blobs: each once, so that a disk that damages all it keeps ends it.

    ``opened``, ``opened_layers``: which files of blobs, and of layers, the last attempt read.

    Args:
        source: who is asked for them; None when nobody may be.
        documents: those that are at hand, by digest: a source is asked for blobs only.
    """

    def __init__(self, image: str, source: BlobSource | None, documents: Mapping[Digest, bytes] | None = None) -> None:
        self.image = image
        self.mended: set[Digest] = set()
        self.opened: dict[Digest, FileStamp] = {}
        self.opened_layers: dict[Digest, FileStamp] = {}
        self._replaced: Counter[Digest] = Counter()
        self._source = source
        self._documents = documents or {}

    def source(self, digest: Digest) -> BlobSource | None:
        """Where a damaged blob comes from now; None when it is lost."""
        if digest in self.mended or self._source is None:
            return None
        self.mended.add(digest)
        document = self._documents.get(digest)
        return self._source if document is None else BytesSource(document)

    def count(self, digests: Set[Digest]) -> bool:
        """Whether another job mended any of these since this job did; counted as mended here from now on."""
        new = digests - self.mended
        self.mended |= new
        return bool(new)

    def begin(self) -> None:
        """The job begins an attempt, which has read nothing yet."""
        self.opened.clear()
        self.opened_layers.clear()

    def count_replaced(self, opened: Mapping[Digest, FileStamp], now: Mapping[Digest, FileStamp | None]) -> bool:
        """Whether what was read is there no more, since another process replaced it; each a few times at most.

        Args:
            now: the files that are there, and were hashed and found right; None for one that is not there.
        """
        replaced = {digest for digest, stamp in now.items() if opened.get(digest, stamp) != stamp}
        few = {digest for digest in replaced if self._replaced[digest] < _REPLACED}
        self._replaced.update(few)
        return bool(few)


class Stored:
    """Hashes and mends the blobs of one engine's store."""

    def __init__(
        self, store: BlobStore, scheduler: Scheduler, workers: WorkerPool, buffers: Buffers, observer: Observer
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._workers = workers
        self._buffers = buffers
        self._observe = observer
        self.source = StoredSource(store, workers)
        self._mending = asyncio.Lock()  # who hashes the old bytes beside who brings the new ones would delete these
        self._found: set[Digest] = set()  # by any job of the engine: the others read the damaged bytes, too

    async def mend(self, blobs: Sequence[Descriptor], reason: FastociError, mending: Mending) -> None:
        """Hash blobs of which something is wrong, and fetch those again that are damaged.

        Returns at once when another job, or another process, mended what this one read.

        Args:
            reason: what was wrong.
        Raises:
            FastociError: ``reason``, when all of them are what their names say; or a damaged one cannot be had.
            IntegrityError: one is damaged, and nobody may be asked, or it was mended before.
        """
        async with self._mending:
            opened = dict(mending.opened)
            if isinstance(reason, BlobNotFoundError):
                opened |= {blob.digest: _NO_FILE for blob in blobs if str(blob.digest) == reason.subject}
            hashed: dict[Digest, FileStamp] = {}
            damaged = await self._damaged(blobs, hashed)
            found = {blob.digest for blob, _ in damaged}
            absent = await self._absent([blob for blob in blobs if blob.digest not in found], opened)
            if damaged or absent:
                await self._fetch([*damaged, *((blob, reason) for blob in absent)], reason, mending)
            elif not (
                mending.count(self._found.intersection(blob.digest for blob in blobs))
                or mending.count_replaced(opened, hashed)
            ):
                raise reason

    async def _fetch(
        self, damaged: Sequence[tuple[Descriptor, FastociError]], reason: FastociError, mending: Mending
    ) -> None:
        fetches = []
        for blob, error in damaged:
            source = mending.source(blob.digest)
            if source is None:
                cause = None if error is reason else reason
                if isinstance(error, BlobNotFoundError):
                    text = f"{error.message}: `fastoci pull`, without --layers-only, brings it again"
                    raise BlobNotFoundError(text, path=error.path, subject=error.subject) from cause
                raise error from cause
            self._observe(Warned(mending.image, f"{error.message}: it is fetched again"))
            self._observe(FetchDuplicated(mending.image, str(blob.digest), "", 0, blob.size, "damaged in the store"))
            fetches.append((blob, source))
        async with self._store.session([blob for blob, _ in fetches]) as session, session.reserve() as writer:
            await all_or_first(
                [
                    asyncio.create_task(self._scheduler.fetch(writer, blob, source, image=mending.image, cached=True))
                    for blob, source in fetches
                ]
            )
            await writer.flush()

    async def put(self, sink: ImageSink, images: Sequence[WholeImage], mending: Mending) -> None:
        """Bring images into a sink; when one of their blobs turns out damaged, it is mended, and all begins anew.

        Raises: as ``ImageSink``, ``ImageWriter`` and ``mend``.
        """
        blobs = list({blob.digest: blob for image in images for blob in image.blobs}.values())
        while True:
            try:
                async with sink.begin() as writer:
                    await self._hand_over(writer, images, blobs)
                return
            except (IntegrityError, BlobNotFoundError) as error:
                mending.begin()
                mending.opened |= {blob.digest: _NO_FILE for blob in blobs if str(blob.digest) == error.subject}
                await self.mend(blobs, error, mending)

    async def _hand_over(self, writer: ImageWriter, images: Sequence[WholeImage], blobs: Sequence[Descriptor]) -> None:
        """Blobs first, then documents, and last those that names stand for."""
        missing = await writer.missing(blobs)
        turns = asyncio.Semaphore(writer.at_once)

        async def put(blob: Descriptor) -> None:
            async with turns:
                await writer.put_blob(blob, self.source)

        tops = {image.top.digest for image in images}
        documents = [blob for blob in missing if blob.media_type in mediatype.MANIFESTS | mediatype.INDEXES]
        await all_or_first([asyncio.create_task(put(blob)) for blob in missing if blob not in documents])
        for document in sorted(documents, key=lambda blob: blob.digest in tops):
            await writer.put_blob(document, self.source)
        for image in images:
            await writer.name(image)

    async def run_hashing(self, work: Callable[[FindCorrupt, Check], T]) -> T:
        """Run work on a thread, with what hashes files there; it ends early when this task is cancelled."""
        stop = threading.Event()
        buffers = await self._take()

        def check() -> None:
            if stop.is_set():
                raise StoppedError

        try:
            running = asyncio.ensure_future(
                self._workers.run(lambda: work(lambda files: find_corrupt(files, buffers, stop), check))
            )
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                stop.set()
                with suppress(StoppedError, FastociError):
                    await wait_to_end(running)
                raise
        finally:
            for buffer in buffers:
                buffer.release()

    async def _damaged(
        self, blobs: Sequence[Descriptor], hashed: dict[Digest, FileStamp]
    ) -> list[tuple[Descriptor, IntegrityError]]:
        """The blobs that are there and are not what their names say: the store does not have them any more.

        Args:
            hashed: takes which files were.
        """
        found = await self.run_hashing(lambda find, check: self._hash(blobs, find, hashed))
        errors = {error.subject: error for error in found}
        damaged = [(blob, errors[str(blob.digest)]) for blob in blobs if str(blob.digest) in errors]
        for blob, _ in damaged:
            self._found.add(blob.digest)
            await self._store.mark_corrupt(blob.digest)
        return damaged

    async def _absent(self, blobs: Sequence[Descriptor], opened: Iterable[Digest]) -> list[Descriptor]:
        """The blobs that were here and are not: found damaged by a job that did not get to fetch them again, or
        deleted since this one read them.

        What is on its way to this job is none of them.
        """
        lost = self._found.union(opened)
        return await self._store.missing([blob for blob in blobs if blob.digest in lost])

    def _hash(
        self, blobs: Sequence[Descriptor], find: FindCorrupt, hashed: dict[Digest, FileStamp]
    ) -> list[IntegrityError]:
        """On a thread: what is wrong with those that are there."""
        found: list[IntegrityError] = []
        for start in range(0, len(blobs), _OPEN):
            with ExitStack() as opened:
                files = []
                for blob in blobs[start : start + _OPEN]:
                    with suppress(BlobNotFoundError):  # on its way, or deleted: whoever needs it says so
                        files.append((blob, self._store.open(blob)))
                        opened.callback(os.close, files[-1][1])
                        hashed[blob.digest] = stamp_of(files[-1][1])
                found += find(files)
        return found

    async def _take(self) -> list[Buffer]:
        """A buffer, and one for each lane of the hash when nobody waits for them."""
        buffers = [await self._buffers.take()]
        while len(buffers) < _core.lanes() and (buffer := self._buffers.spare()) is not None:
            buffers.append(buffer)
        return buffers
