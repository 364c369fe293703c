"""Verification: everything in a store, or what some references need, hashed again; and what is wrong with it.

Changes nothing. What refers to a bad blob is looked up at the end, by one walk over all references.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from fastoci import _core
from fastoci.aio import wait_to_end
from fastoci.errors import BlobNotFoundError, DigestMismatchError, FastociError, SizeMismatchError, StoreError
from fastoci.events import Observer, VerifyProgress, Warned
from fastoci.image.digest import Digest
from fastoci.image.graph import tops_of
from fastoci.image.links import Link
from fastoci.image.stored_image import StoredImage
from fastoci.jobs.rehash import OPEN, Outcome, Rehash, Target
from fastoci.store.graph import Read, descriptor, names, needed_by
from fastoci.store.layout import StoreLayout
from fastoci.store.store import Store
from fastoci.store.verify_cursor import CursorFile
from fastoci.threads import Check
from fastoci.transfer.buffers import Buffers
from fastoci.transfer.workers import WorkerPool

if TYPE_CHECKING:
    from fastoci.jobs.verify_unpacked import Key
    from fastoci.store.layers.unpacked import Unpacked

_SAVE_S: Final = 5.0  # between two saves of the cursor, and two events
_WARNINGS: Final = 10  # bad blobs that are named at once; all are in the result


class BadBlob(msgspec.Struct, frozen=True):
    """A blob that is not what it should be; or a layer file, by its diff_id, or merged metadata, by its manifest.

    ``what`` says which: "blob", "layer", "merged". ``kind`` is "corrupt" (other bytes), "size" (too few or too
    many), "missing", or "unreadable" (the disk refused, or it is not a regular file). Sizes are None when unknown;
    ``actual`` is the digest of what is there instead.
    """

    digest: str
    kind: str
    path: str
    expected: int | None
    found: int | None
    actual: str
    message: str
    references: tuple[str, ...] = ()
    what: str = "blob"

    @property
    def error(self) -> FastociError:
        """The error that it is."""
        if self.kind == "corrupt":
            return DigestMismatchError(self.message, subject=self.digest, expected=self.digest, actual=self.actual)
        if self.kind == "size":
            expected, found = self.expected or 0, self.found or 0
            return SizeMismatchError(self.message, subject=self.digest, expected=expected, actual=found)
        if self.kind == "missing":
            return BlobNotFoundError(self.message, path=self.path)
        return StoreError(self.message, path=self.path)


class Verification(msgspec.Struct, frozen=True):
    """What was hashed, and what is wrong. ``behind`` is the digest that an interrupted verification had reached.

    ``blobs`` are counted beside ``layers``: layer files and merged metadata.
    """

    blobs: int
    size: int
    bad: tuple[BadBlob, ...]
    behind: str = ""
    layers: int = 0


class Verifying:
    """Verifies a store on the engine's threads."""

    def __init__(
        self, store: Store, workers: WorkerPool, buffers: Buffers, *, threads: int, observer: Observer
    ) -> None:
        self._store = store
        self._workers = workers
        self._buffers = buffers
        self._threads = threads
        self._observe = observer

    async def everything(self, rate: int | None) -> Verification:
        """All blobs of the store itself; goes on where an earlier verification was interrupted.

        Raises:
            StoreBusyError: another process does this.
            StoreError: the disk refused.
        """
        from fastoci.jobs.verify_unpacked import parts

        own = self._store.paths
        cursor_file = await self._workers.acquire(lambda: CursorFile(own), CursorFile.close)
        try:
            unpacked = await self._store.unpacked()
            found = parts(unpacked)
            digests, cursor = await self._workers.run(lambda: (names(own), cursor_file.load()))
            there = set(cursor.bad)
            again = [name for name in (*digests, *found) if name > cursor.after or name in there]
            targets = (
                found[name].target(number, own) if name in found else _target(number, own, Digest.parse(name), None)
                for number, name in enumerate(again)
            )
            counts = _Counts(again, cursor.after)
            await self._hash(targets, counts, rate, cursor_file)
            bad = await self._explained(counts.bad, set(digests), unpacked)
            await self._workers.run(cursor_file.end)
        finally:
            cursor_file.close()
        return counts.result(bad, cursor.after)

    async def needed(self, refs: Sequence[StoredImage], rate: int | None) -> Verification:
        """What some references need, wherever it is, and what is unpacked of them."""
        from fastoci.jobs.verify_unpacked import parts

        unpacked = await self._store.unpacked()
        links = await self._store.walk(lambda read, _: self._needs(refs, sound(read), unpacked))
        wanted = await self._workers.run(lambda: {key for ref in refs for key in unpacked.made_of(ref)})
        found = parts(unpacked, wanted)
        targets = [self._target(number, link) for number, link in enumerate(links)]
        targets += [part.target(number, self._store.paths) for number, part in enumerate(found.values(), len(links))]
        counts = _Counts([], "")
        await self._hash(iter(targets), counts, rate, None)
        return counts.result(await self._explained(counts.bad, None, unpacked))

    def _needs(self, refs: Sequence[StoredImage], read: Read, unpacked: Unpacked) -> list[Link]:
        """What the references need, each digest once, in order; not what is absent and a layer file stands for."""
        found: dict[str, Link] = {}
        for ref in refs:
            spared = unpacked.spared(ref)
            for link in needed_by(tops_of(ref), read):
                if link.digest not in spared or self._is_here(link):
                    found[link.digest] = link
        return [found[digest] for digest in sorted(found)]

    def _is_here(self, link: Link) -> bool:
        return any(_is_in(place, link) for place in (self._store.paths, *self._store.additional))

    async def outcomes(self, links: Sequence[Link]) -> list[BadBlob]:
        """Hash these blobs; those that are bad, without what refers to them."""
        counts = _Counts([], "")
        await self._hash(iter([self._target(*each) for each in enumerate(links)]), counts, None, None)
        return counts.bad

    async def bad_unpacked(self, ref: StoredImage) -> list[BadBlob]:
        """Hash the layer files and merged metadata of an image; those that are bad, each once."""
        from fastoci.jobs.verify_unpacked import parts

        unpacked = await self._store.unpacked()
        found = parts(unpacked, await self._workers.run(lambda: set(unpacked.made_of(ref))))
        counts = _Counts([], "")
        own = self._store.paths
        targets = (part.target(number, own) for number, part in enumerate(found.values()))
        await self._hash(targets, counts, None, None)
        return list({(each.what, each.digest): each for each in counts.bad}.values())

    def _target(self, number: int, link: Link) -> Target:
        blob = descriptor(link)
        places = (self._store.paths, *self._store.additional)
        place = next((each for each in places if each.holds(blob.digest)), places[0])
        return _target(number, place, blob.digest, blob.size)

    async def _hash(
        self, targets: Iterator[Target], counts: _Counts, rate: int | None, cursor_file: CursorFile | None
    ) -> None:
        """All targets, on all threads, until the last; ``cursor_file`` keeps how far that is."""
        lanes = _core.lanes()
        capacity = self._buffers.pool.capacity // _core.BUFFER_SIZE
        threads = max(1, min(self._threads, capacity // 2 // lanes))
        each = max(1, min(OPEN, capacity // 2 // threads))
        rehash = Rehash(targets, rate=rate, done=lambda outcome: self._seen(counts, outcome), read=counts.add)
        buffers = []
        ticking = asyncio.create_task(self._tick(counts, cursor_file))
        try:
            for _ in range(threads * each):
                buffers.append(await self._buffers.take())
            shares = [buffers[start : start + each] for start in range(0, len(buffers), each)]
            await self._all(rehash, shares)
        finally:
            for buffer in buffers:
                buffer.release()
            ticking.cancel()
            _, cancelled = await wait_to_end(asyncio.wait([ticking]))
            if cursor_file is not None:
                await self._workers.finish(lambda: _save(cursor_file, counts))
        if cancelled:
            raise asyncio.CancelledError
        self._observe(VerifyProgress(counts.blobs, counts.size))

    async def _all(self, rehash: Rehash, shares: Sequence[Sequence[_core.Buffer]]) -> None:
        """A thread for each share of the buffers, to their end; they end early when this task is cancelled."""
        runs = [asyncio.create_task(self._workers.run(partial(rehash.run, share))) for share in shares]
        try:
            await asyncio.wait(runs, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            rehash.stop()
            _, cancelled = await wait_to_end(asyncio.wait(runs))
        for run in runs:
            run.result()
        if cancelled:
            raise asyncio.CancelledError

    async def _tick(self, counts: _Counts, cursor_file: CursorFile | None) -> None:
        while True:
            await asyncio.sleep(_SAVE_S)
            self._observe(VerifyProgress(counts.blobs, counts.size))
            news = counts.news()
            for bad in news[:_WARNINGS]:
                self._observe(Warned("", bad.message))
            if len(news) > _WARNINGS:
                self._observe(Warned("", f"and {len(news) - _WARNINGS} more bad blobs"))
            if cursor_file is not None:
                _, cancelled = await wait_to_end(
                    asyncio.to_thread(_save, cursor_file, counts)
                )  # all other threads are at work
                if cancelled:
                    return

    def _seen(self, counts: _Counts, outcome: Outcome) -> None:
        counts.done(outcome.target, None if outcome.error is None else _bad(outcome))

    async def _explained(
        self, found: Sequence[BadBlob], there: set[str] | None, unpacked: Unpacked
    ) -> tuple[BadBlob, ...]:
        """What needs the bad blobs; of a whole store also what is missing from it."""
        bad = {(each.what, each.digest): each for each in found}
        if not bad and there is None:
            return ()
        return await self._store.walk(lambda read, check: self._explain(bad, there, unpacked, sound(read), check))

    def _explain(
        self, bad: dict[Key, BadBlob], there: set[str] | None, unpacked: Unpacked, read: Read, check: Check
    ) -> tuple[BadBlob, ...]:
        users: dict[Key, list[str]] = {}
        sizes: dict[Key, int] = {}
        is_unpacked_bad = any(what != "blob" for what, _ in bad)
        for ref in self._store.refs.list(check=check)[0]:
            spared = unpacked.spared(ref)
            for link in needed_by(tops_of(ref), read):
                key = ("blob", link.digest)
                if there is not None and link.digest not in there and key not in bad and link.digest not in spared:
                    if any(_is_in(place, link) for place in self._store.additional):
                        continue
                    bad[key] = _missing(self._store.paths, link)
                if key in bad and not (link.digest in spared and bad[key].kind == "missing"):
                    users.setdefault(key, []).append(ref.name)
                    sizes[key] = link.size
            for key in set(unpacked.made_of(ref) if is_unpacked_bad else ()).intersection(bad):
                users.setdefault(key, []).append(ref.name)
        return tuple(
            _sized(replace(each, references=tuple(users.get(key, ()))), sizes.get(key))
            for key, each in sorted(bad.items())
            if key in users or each.kind != "missing"  # that nobody needs was removed meanwhile
        )


def sound(read: Read) -> Read:
    """Documents that are what their names say: a damaged one would name blobs that nobody needs."""

    def read_sound(link: Link) -> bytes | None:
        data = read(link)
        if data is not None and str(Digest.of(data, link.digest.partition(":")[0])) == link.digest:
            return data
        return None

    return read_sound


class _Counts:
    """What is hashed so far. Changed by one thread at a time, read by others."""

    def __init__(self, digests: Sequence[str], after: str) -> None:
        self.blobs = self.layers = self.size = 0
        self.bad: list[BadBlob] = []
        self._bad_names: list[str] = []
        self.after = after  # all digests up to here are done
        self._digests = digests
        self._next = 0
        self._ahead: set[int] = set()
        self._told = 0

    def add(self, size: int) -> None:
        """Count bytes that were hashed."""
        self.size += size

    def done(self, target: Target, bad: BadBlob | None) -> None:
        """Count a file, and move ``after`` over all that are done without a gap."""
        number = target.number
        self.blobs += target.what == "blob"
        self.layers += target.what in ("layer", "merged")
        if bad is not None:
            self.bad.append(bad)
            self._bad_names += self._digests[number : number + 1]
        self._ahead.add(number)
        while self._next in self._ahead:
            self._ahead.remove(self._next)
            if self._digests and self._digests[self._next] > self.after:
                self.after = self._digests[self._next]
            self._next += 1

    def bad_names(self) -> list[str]:
        """The names of all that is bad so far."""
        return list(self._bad_names)

    def result(self, bad: tuple[BadBlob, ...], behind: str = "") -> Verification:
        """All of it."""
        return Verification(self.blobs, self.size, bad, behind, self.layers)

    def news(self) -> list[BadBlob]:
        """The bad ones since the last call."""
        new = self.bad[self._told :]
        self._told += len(new)
        return new


def _target(number: int, place: StoreLayout, digest: Digest, size: int | None) -> Target:
    return Target(number, place.blob(digest), digest, size, lambda: place.open_blob(digest))


def _save(cursor_file: CursorFile, counts: _Counts) -> None:
    with suppress(StoreError):  # a full disk costs hashing again, and no more
        if counts.after:
            cursor_file.save(counts.after, counts.bad_names())


def _bad(outcome: Outcome) -> BadBlob:
    target, error = outcome.target, outcome.error
    assert error is not None
    kind, actual = "unreadable", ""
    if isinstance(error, BlobNotFoundError):
        kind = "missing"
    elif isinstance(error, SizeMismatchError):
        kind = "size"
    elif isinstance(error, DigestMismatchError):
        kind, actual = "corrupt", str(error.actual)
    found = outcome.size if kind in ("corrupt", "size") else None
    message = f"{target.path}: its {found} bytes are {actual}" if actual else error.message
    what = "layer" if target.what == "tar" else target.what
    expected = None if target.ranges else target.size
    return BadBlob(target.name, kind, target.path, expected, found, actual, message, what=what)


def _missing(paths: StoreLayout, link: Link) -> BadBlob:
    path = paths.blob(descriptor(link).digest)
    return BadBlob(link.digest, "missing", path, link.size, None, "", f"{link.digest} is not there")


def _is_in(place: StoreLayout, link: Link) -> bool:
    return place.holds(descriptor(link).digest)


def _sized(bad: BadBlob, expected: int | None) -> BadBlob:
    """With the size that references tell; bytes that are too few or too many are so for that reason."""
    expected = bad.expected if bad.expected is not None else expected
    short = bad.kind == "corrupt" and expected is not None and bad.found != expected
    return replace(bad, expected=expected, kind="size" if short else bad.kind)
