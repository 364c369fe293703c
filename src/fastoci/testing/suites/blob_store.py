"""What every ``BlobStore`` holds to: the life of an ingest, and that nothing is visible before it is verified."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from fastoci.errors import BlobNotFoundError, DigestMismatchError, StoreBusyError, StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import BlobStore, Ingest, StoreWriter
from fastoci.testing.suites.filling import NOWHERE, blob_of, bring, feed, finish, proof_of, put, raises

LARGE: Final = (3 << 20) + 17  # bytes: large enough to be resumed


class BlobStoreSuite:
    """Subclass it and define ``open``. ``remembers`` says whether two openings of one directory see the same store."""

    remembers = True

    def open(self, directory: Path) -> AbstractAsyncContextManager[BlobStore]:
        """Open the store in a directory; again, also while it is open, as another process would."""
        raise NotImplementedError

    def test_a_new_store_misses_everything(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, _ = blob_of(100)
            absent = Descriptor("a/b", NOWHERE, 3)
            async with self.open(tmp_path) as store:
                assert await store.missing([blob, absent, blob]) == [blob, absent], "each once, in order"
                with raises(BlobNotFoundError, "reading what is absent"):
                    await store.read(blob)
                with raises(BlobNotFoundError, "opening what is absent"):
                    store.open(blob)
                with raises(BlobNotFoundError, "a name that nothing has"):
                    await store.image("registry.test/nothing:1")
                assert await store.recorded(["registry.test/nothing:1"]) == {}
                assert await store.ingests() == []
                assert await store.ingest(blob.digest) is None
                assert not await store.discard(blob.digest)

        finish(run())

    def test_a_blob_is_invisible_until_it_is_committed_and_then_whole(self, tmp_path: Path) -> None:
        async def run() -> None:
            for size in (0, 1, 4096, LARGE):
                blob, data = blob_of(size)
                async with self.open(tmp_path) as store, self.writer(store, blob) as writer:
                    ingest = await begin(writer, blob)
                    verifier = feed(ingest, data)
                    ingest.sink.finish()
                    await self.demand_absent(store, blob)
                    await ingest.commit(verifier.proof())
                    assert await store.missing([blob]) == [], f"{size} bytes are missing after their commit"
                    assert await store.read(blob) == data
                    assert read_all(store.open(blob)) == data
                    assert await writer.begin(blob) is None, "what is there is not begun again"
                    assert await store.ingests() == [], "an ingest that was committed is over"

        finish(run())

    def test_what_is_committed_is_there_for_whoever_opens_the_store_next(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, data = blob_of(5000)
            async with self.open(tmp_path) as store:
                await put(store, [(blob, data)])
                async with self.open(tmp_path) as other:
                    assert await other.read(blob) == data
            async with self.open(tmp_path) as store:
                assert await store.read(blob) == data

        if self.remembers:
            finish(run())

    def test_a_blob_of_another_size_than_the_descriptor_says_is_absent(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, data = blob_of(1000)
            longer = Descriptor(blob.media_type, blob.digest, 1001)
            async with self.open(tmp_path) as store:
                await put(store, [(blob, data)])
                await self.demand_absent(store, longer)

        finish(run())

    def test_an_ingest_is_listed_and_inspected_while_it_is_held(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, data = blob_of(LARGE)
            async with self.open(tmp_path) as store, self.writer(store, blob) as writer:
                ingest = await begin(writer, blob)
                feed(ingest, data, until=2 << 20)
                status = await store.ingest(blob.digest)
                assert status is not None and status.held, "an ingest under way is held"
                assert status.digest == blob.digest and status.size <= 2 << 20
                assert [each.digest for each in await store.ingests()] == [blob.digest]
                with raises(StoreBusyError, "discarding what somebody is at work on"):
                    await store.discard(blob.digest)
                await ingest.abort(discard=True)

        finish(run())

    def test_an_aborted_ingest_goes_on_from_its_checkpoint(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, data = blob_of(LARGE)
            async with self.open(tmp_path) as store:
                await self.leave_half(store, blob, data)
                await self.demand_absent(store, blob)
                status = await store.ingest(blob.digest)
                assert status is not None and not status.held and status.size >= 2 << 20
                async with self.writer(store, blob) as writer:
                    ingest = await begin(writer, blob)
                    assert 2 << 20 <= ingest.offset <= status.size, "what the checkpoint covers is fetched again"
                    verifier = feed(ingest, data)  # wrong state or data, and there is no proof
                    ingest.sink.finish()
                    await ingest.commit(verifier.proof())
                assert await store.read(blob) == data
                assert await store.ingests() == []

        finish(run())

    def test_what_was_left_half_way_survives_the_store_and_can_be_discarded(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, data = blob_of(LARGE)
            async with self.open(tmp_path) as store:
                await self.leave_half(store, blob, data)
            async with self.open(tmp_path) as store:
                if self.remembers:
                    assert [status.digest for status in await store.ingests()] == [blob.digest]
                    assert await store.discard(blob.digest)
                assert not await store.discard(blob.digest), "it is gone already"
                assert await store.ingests() == []
                async with self.writer(store, blob) as writer:
                    ingest = await begin(writer, blob)
                    assert ingest.offset == 0 and ingest.hash_state == b""
                    await ingest.abort(discard=True)

        finish(run())

    def test_an_ingest_that_is_aborted_and_discarded_leaves_nothing(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, data = blob_of(LARGE)
            async with self.open(tmp_path) as store, self.writer(store, blob) as writer:
                ingest = await begin(writer, blob)
                verifier = feed(ingest, data, until=2 << 20)
                ingest.checkpoint(verifier.offset, verifier.state())
                await ingest.abort(discard=True)
                await ingest.abort()  # idempotent
                assert await store.ingests() == [], "an ingest is left after abort(discard=True)"
                await self.demand_absent(store, blob)
                again = await begin(writer, blob)
                assert again.offset == 0, "bytes that were discarded are resumed from"
                await again.abort(discard=True)

        finish(run())

    def test_a_digest_is_held_by_one_at_a_time(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, data = blob_of(1000)
            async with self.open(tmp_path) as store, self.open(tmp_path) as second:
                other = second if self.remembers else store
                async with self.writer(store, blob) as writer, self.writer(other, blob) as rival:
                    ingest = await begin(writer, blob)
                    for each in (writer, rival):
                        with raises(StoreBusyError, "two begins of one digest at once"):
                            await each.begin(blob)
                    await ingest.abort(discard=True)
                    await (await begin(rival, blob)).abort(discard=True)
                    await bring(rival, blob, data)
                    assert await writer.begin(blob) is None

        finish(run())

    def test_many_who_begin_at_once_are_one(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, _ = blob_of(1000)
            async with self.open(tmp_path) as store, self.writer(store, blob) as writer:
                results = await asyncio.gather(*(writer.begin(blob) for _ in range(8)), return_exceptions=True)
                held = [each for each in results if not isinstance(each, BaseException)]
                busy = [each for each in results if isinstance(each, StoreBusyError)]
                assert len(held) == 1 and len(busy) == 7, results
                assert held[0] is not None
                await held[0].abort(discard=True)

        finish(run())

    def test_who_waits_is_told_when_the_digest_is_free_and_whether_the_blob_is_there(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, data = blob_of(1000)
            async with self.open(tmp_path) as store, self.writer(store, blob) as writer:
                for committed in (False, True):
                    ingest = await begin(writer, blob)
                    waiting = asyncio.create_task(writer.wait(blob, lambda size: None))
                    await asyncio.sleep(0.05)
                    assert not waiting.done(), "wait returned while the digest was held"
                    if committed:
                        verifier = feed(ingest, data)
                        ingest.sink.finish()
                        await ingest.commit(verifier.proof())
                    else:
                        await ingest.abort(discard=True)
                    assert await asyncio.wait_for(waiting, 10) is committed
                assert await writer.wait(blob, lambda size: None), "nobody holds it, and it is there"

        finish(run())

    def test_a_cancelled_wait_leaves_the_others_alone(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, _ = blob_of(1000)
            async with self.open(tmp_path) as store, self.writer(store, blob) as writer:
                ingest = await begin(writer, blob)
                waits = [asyncio.create_task(writer.wait(blob, lambda size: None)) for _ in range(2)]
                await asyncio.sleep(0.02)
                waits[0].cancel()
                await asyncio.wait(waits[:1])
                await ingest.abort(discard=True)
                assert await asyncio.wait_for(waits[1], 10) is False
                assert waits[0].cancelled()

        finish(run())

    def test_bytes_that_are_not_proven_are_never_visible(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, data = blob_of(LARGE)
            wrong = bytes([data[0] ^ 1]) + data[1:]
            async with self.open(tmp_path) as store, self.writer(store, blob) as writer:
                ingest = await begin(writer, blob)
                verifier = feed(ingest, wrong)
                with raises(DigestMismatchError, "wrong bytes"):
                    verifier.proof()
                with raises(ValueError, "a commit by the proof of other bytes"):
                    await ingest.commit(proof_of(wrong))
                await self.demand_absent(store, blob)
                with raises(BlobNotFoundError, "the blob that the proof is of is there by another's commit"):
                    await store.read(Descriptor.of(wrong, blob.media_type))
                await bring(writer, blob, data)  # and it let go of the digest
                assert await store.read(blob) == data

        finish(run())

    def test_a_right_proof_of_bytes_that_were_not_all_written_is_refused(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, data = blob_of(1000)
            async with self.open(tmp_path) as store, self.writer(store, blob) as writer:
                ingest = await begin(writer, blob)
                feed(ingest, data, until=999)
                with raises((StoreError, ValueError), "a commit of too few bytes"):
                    await ingest.commit(proof_of(data))
                await self.demand_absent(store, blob)
                await bring(writer, blob, data)

        finish(run())

    def test_a_commit_after_an_abort_is_refused(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, data = blob_of(1000)
            async with self.open(tmp_path) as store, self.writer(store, blob) as writer:
                ingest = await begin(writer, blob)
                verifier = feed(ingest, data)
                await ingest.abort(discard=True)
                with raises((StoreError, ValueError), "a commit after abort"):
                    await ingest.commit(verifier.proof())
                await self.demand_absent(store, blob)

        finish(run())

    def test_a_checkpoint_beyond_what_is_written_is_refused(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, data = blob_of(LARGE)
            async with self.open(tmp_path) as store, self.writer(store, blob) as writer:
                ingest = await begin(writer, blob)
                verifier = feed(ingest, data, until=1 << 20)
                with raises(ValueError, "a checkpoint of bytes that never came"):
                    ingest.checkpoint((1 << 20) + 1, verifier.state())
                await ingest.abort(discard=True)

        finish(run())

    def test_who_sent_wrong_bytes_is_remembered_until_the_blob_is_there(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, data = blob_of(1000)
            async with self.open(tmp_path) as store, self.writer(store, blob) as writer:
                for server in ("http://one.test:80", "http://two.test:80"):
                    ingest = await begin(writer, blob)
                    feed(ingest, data, until=10)
                    await ingest.abort(discard=True, corrupt=[server])
                ingest = await begin(writer, blob)
                assert ingest.offset == 0
                assert set(ingest.corrupt_servers) == {"http://one.test:80", "http://two.test:80"}
                await ingest.abort()
                await bring(writer, blob, data)
                assert await store.ingests() == []

        finish(run())

    def test_a_blob_that_is_marked_corrupt_is_absent_until_it_is_replaced(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, data = blob_of(1000)
            async with self.open(tmp_path) as store:
                await put(store, [(blob, data)])
                await store.mark_corrupt(blob.digest)
                await self.demand_absent(store, blob)
                await put(store, [(blob, data)])
                assert await store.missing([blob]) == []
                assert await store.read(blob) == data

        finish(run())

    @asynccontextmanager
    async def writer(self, store: BlobStore, *blobs: Descriptor) -> AsyncIterator[StoreWriter]:
        """Who may bring these blobs."""
        async with store.session(blobs) as session, session.reserve() as writer:
            yield writer

    async def leave_half(self, store: BlobStore, blob: Descriptor, data: bytes) -> None:
        """Feed two MiB of a blob, and abort after a checkpoint."""
        async with self.writer(store, blob) as writer:
            ingest = await begin(writer, blob)
            verifier = feed(ingest, data, until=2 << 20)
            ingest.checkpoint(verifier.offset, verifier.state())
            await ingest.abort()

    async def demand_absent(self, store: BlobStore, blob: Descriptor) -> None:
        """Fail when the blob can be seen in any way."""
        assert await store.missing([blob]) == [blob], f"{blob.digest} is visible"
        with raises(BlobNotFoundError, "reading what must not be visible"):
            await store.read(blob)
        with raises(BlobNotFoundError, "opening what must not be visible"):
            os.close(store.open(blob))


async def begin(writer: StoreWriter, blob: Descriptor) -> Ingest:
    """Take hold of a blob that is absent."""
    ingest = await writer.begin(blob)
    assert ingest is not None, f"{blob.digest} is there before it was committed"
    return ingest


def read_all(fd: int) -> bytes:
    """What an open file holds; it must be open for reading only."""
    with open(fd, "rb") as file:
        with raises(OSError, "writing to a blob that is open"):
            os.pwrite(file.fileno(), b"x", 0)
        file.seek(0)
        return file.read()
