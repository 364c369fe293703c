"""What every ``StoreSession`` holds to: its steps in their order, space before bytes, names after blobs."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from fastoci.errors import BlobNotFoundError, StoreFullError
from fastoci.image.descriptor import Descriptor
from fastoci.image.stored_image import StoredImage
from fastoci.interfaces import BlobStore
from fastoci.testing.suites.filling import blob_of, bring, feed, finish, put, raises

NAME: Final = "registry.test/app:1"


def image_of(document: Descriptor, platform: str = "linux/amd64", *, name: str = NAME) -> StoredImage:
    """An image of one document."""
    return StoredImage(name, document, {platform: document}, "2023-11-14T22:13:20Z")


class StoreSessionSuite:
    """Subclass it and define ``open`` and ``open_small``."""

    def open(self, directory: Path) -> AbstractAsyncContextManager[BlobStore]:
        """Open the store in a directory; again, also while it is open, as another process would."""
        raise NotImplementedError

    def open_small(self, directory: Path, size: int) -> AbstractAsyncContextManager[BlobStore]:
        """Open a store that is empty and may hold ``size`` bytes."""
        raise NotImplementedError

    def test_a_session_knows_what_is_missing_each_once_and_in_order(self, tmp_path: Path) -> None:
        async def run() -> None:
            (one, data), (two, _), (three, _) = (blob_of(100, seed) for seed in range(3))
            async with self.open(tmp_path) as store:
                await put(store, [(one, data)])
                async with store.session([three, one, two, three]) as session:
                    assert tuple(session.missing) == (three, two)
                async with store.session([]) as session, session.reserve() as writer:
                    assert tuple(session.missing) == ()
                    await writer.flush()

        finish(run())

    def test_a_writer_brings_the_blobs_of_its_session_alone(self, tmp_path: Path) -> None:
        async def run() -> None:
            (one, data), (two, _) = blob_of(100), blob_of(200)
            async with self.open(tmp_path) as store:
                async with store.session([one]) as session, session.reserve() as writer:
                    with raises(ValueError, "a blob that no lease protects"):
                        await writer.begin(two)
                    with raises(ValueError, "a wait for a blob of no session"):
                        await writer.wait(two, lambda size: None)
                    await bring(writer, one, data)
                    with raises(ValueError, "a name for what no lease protects"):
                        await writer.record(image_of(two))
                assert await store.missing([one, two]) == [two]

        finish(run())

    def test_a_writer_adopts_what_another_process_brought(self, tmp_path: Path) -> None:
        async def run() -> None:
            (one, data), (two, _) = blob_of(100), blob_of(200)
            async with self.open(tmp_path) as store, store.session([one]) as session, session.reserve() as writer:
                with raises(BlobNotFoundError, "a blob that nobody brought"):
                    await writer.adopt(one)
                with raises(ValueError, "a blob of no session"):
                    await writer.adopt(two)
                async with self.open(tmp_path) as other:
                    await put(other, [(one, data)])
                await writer.adopt(one)
                await writer.record(image_of(one))
                assert await store.image(NAME) == image_of(one)

        finish(run())

    def test_a_writer_is_over_with_its_session(self, tmp_path: Path) -> None:
        async def run() -> None:
            (one, data), (two, _) = blob_of(100), blob_of(200)
            async with self.open(tmp_path) as store:
                async with store.session([one, two]) as session, session.reserve() as writer:
                    await bring(writer, one, data)
                with raises(ValueError, "begin after the session"):
                    await writer.begin(two)
                with raises(ValueError, "wait after the session"):
                    await writer.wait(two, lambda size: None)
                with raises(ValueError, "record after the session"):
                    await writer.record(image_of(one))
                with raises(BlobNotFoundError, "a name that was recorded too late"):
                    await store.image(NAME)

        finish(run())

    def test_a_name_comes_after_its_blobs_and_is_replaced_whole(self, tmp_path: Path) -> None:
        async def run() -> None:
            (one, data), (two, other) = blob_of(100), blob_of(200)
            async with self.open(tmp_path) as store:
                async with store.session([one]) as session, session.reserve() as writer:
                    with raises(BlobNotFoundError, "a name for what is not there"):
                        await writer.record(image_of(one))
                    with raises(BlobNotFoundError, "what was refused is recorded"):
                        await store.image(NAME)
                    await bring(writer, one, data)
                    await writer.record(image_of(one))
                assert await store.image(NAME) == image_of(one)
                async with store.session([two]) as session, session.reserve() as writer:
                    with raises(BlobNotFoundError, "a name for what is not there"):
                        await writer.record(image_of(two))
                    assert await store.image(NAME) == image_of(one), "a refused name replaced a good one"
                    await bring(writer, two, other)
                    await writer.record(image_of(two))
                assert await store.image(NAME) == image_of(two)
                async with self.open(tmp_path) as again:
                    assert await again.image(NAME) == image_of(two)

        finish(run())

    def test_platforms_of_one_index_add_up_under_its_name(self, tmp_path: Path) -> None:
        async def run() -> None:
            (top, document), (one, data), (two, other) = blob_of(100), blob_of(200), blob_of(300)
            async with self.open(tmp_path) as store:
                await put(store, [(top, document), (one, data), (two, other)])
                async with store.session([top, one, two]) as session, session.reserve() as writer:
                    for platform, manifest in (("linux/amd64", one), ("linux/arm64", two)):
                        await writer.record(StoredImage(NAME, top, {platform: manifest}, "2023-11-14T22:13:20Z"))
                assert dict((await store.image(NAME)).images) == {"linux/amd64": one, "linux/arm64": two}

        finish(run())

    def test_space_is_refused_before_anything_is_begun_and_held_for_one_session(self, tmp_path: Path) -> None:
        async def run() -> None:
            (large, data), (small, _) = blob_of(1_000_000), blob_of(200_000)
            async with self.open_small(tmp_path, 1_100_000) as store:
                async with store.session([large]) as session, store.session([small]) as second:
                    async with session.reserve(), session.reserve():  # the same blobs again take nothing more
                        with raises(StoreFullError, "space that another session holds"):
                            async with second.reserve():
                                pass
                    async with second.reserve():  # given up, so free again
                        with raises(StoreFullError, "space that another session holds"):
                            async with session.reserve():
                                pass
                async with store.session([large]) as session, session.reserve() as writer:
                    await bring(writer, large, data)
                    await writer.flush()
                assert await store.ingests() == []
                async with store.session([small]) as session:
                    with raises(StoreFullError, "space that a blob takes"):
                        async with session.reserve():
                            pass
                    assert await store.missing([large, small]) == [small]

        finish(run())

    def test_a_session_that_fails_records_nothing_and_holds_nothing(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, data = blob_of(2000)
            async with self.open(tmp_path) as store:
                with raises(KeyError, "an exception of the body"):
                    async with store.session([blob]) as session, session.reserve() as writer:
                        ingest = await writer.begin(blob)
                        assert ingest is not None
                        feed(ingest, data, until=100)
                        await ingest.abort(discard=True)
                        raise KeyError
                assert await store.missing([blob]) == [blob]
                assert await store.ingests() == []
                with raises(BlobNotFoundError, "a name of a session that failed"):
                    await store.image(NAME)
                await put(store, [(blob, data)])

        finish(run())

    def test_many_sessions_share_a_store(self, tmp_path: Path) -> None:
        async def run() -> None:
            shared, data = blob_of(50_000)

            async def job(store: BlobStore, number: int) -> None:
                own, content = blob_of(1000 + number)
                async with store.session([shared, own]) as session, session.reserve() as writer:
                    await bring(writer, own, content)
                    while shared in await store.missing([shared]):
                        async with lock:  # single flight is the caller's
                            await bring(writer, shared, data)
                    await writer.record(image_of(own, name=f"registry.test/app:{number}"))

            lock = asyncio.Lock()
            async with self.open(tmp_path) as store:
                await asyncio.gather(*(job(store, number) for number in range(20)))
                names = [f"registry.test/app:{number}" for number in range(20)]
                assert list(await store.recorded([*names, "registry.test/nothing:1"])) == names
                for name in names:
                    image = await store.image(name)
                    assert await store.missing([shared, image.descriptor]) == []

        finish(run())

    def test_readers_keep_blobs_whether_their_image_has_a_name_or_not(self, tmp_path: Path) -> None:
        async def run() -> None:
            blob, data = blob_of(100)
            async with self.open(tmp_path) as store:
                await put(store, [(blob, data)])
                async with store.keep([blob], name=NAME), store.keep([blob]):
                    assert await store.read(blob) == data
                async with store.session([blob]) as session, session.reserve() as writer:
                    await writer.record(image_of(blob))
                async with store.keep([blob], name=NAME):
                    assert await store.read(blob) == data
                assert await store.image(NAME) == image_of(blob)

        finish(run())
