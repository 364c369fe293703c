"""Ingests as others see them: which there are, how far each is, and that one is deleted only when nobody holds it."""

from __future__ import annotations

import os

import pytest

from fastoci.errors import StoreBusyError
from fastoci.interfaces import IngestStatus
from support.store_shelf import Shelf

DATA = bytes(range(256)) * 1024
CUT = 100_000


async def test_an_ingest_is_listed_while_it_is_held_and_after_it_was_left_half_way(shelf: Shelf) -> None:
    blob = shelf.describe(DATA)
    assert await shelf.store.ingests() == []
    assert await shelf.store.ingest(blob.digest) is None
    ingest = await shelf.begin(blob)
    assert ingest is not None
    verifier = shelf.feed(ingest, DATA, until=CUT)
    ingest.checkpoint(CUT, verifier.state())
    held = IngestStatus(blob.digest, CUT, True)
    assert await shelf.store.ingests() == [held]
    assert await shelf.store.ingest(blob.digest) == held
    with pytest.raises(StoreBusyError):
        await shelf.store.discard(blob.digest)
    await ingest.abort()
    assert await shelf.store.ingest(blob.digest) == IngestStatus(blob.digest, CUT, False)


async def test_a_blob_that_is_committed_is_no_ingest(shelf: Shelf) -> None:
    blob = await shelf.put(DATA, "sha512")
    assert await shelf.store.ingests() == []
    assert await shelf.store.discard(blob.digest) is False


async def test_what_was_left_half_way_is_deleted_once(shelf: Shelf) -> None:
    blob = shelf.describe(DATA)
    ingest = await shelf.begin(blob)
    assert ingest is not None
    verifier = shelf.feed(ingest, DATA, until=CUT)
    ingest.checkpoint(CUT, verifier.state())
    await ingest.abort()
    assert [status.digest for status in await shelf.store.ingests()] == [blob.digest]
    assert await shelf.store.discard(blob.digest) is True
    assert await shelf.store.discard(blob.digest) is False
    assert await shelf.store.ingests() == []
    assert not shelf.ingest(blob).exists()


async def test_what_is_no_ingest_is_passed_over(shelf: Shelf) -> None:
    folder = shelf.path / "ingest"
    (folder / "notes").mkdir()
    (folder / ("0" * 64)).touch()
    os.symlink(shelf.path, folder / ("1" * 64))
    (folder / ("2" * 64)).mkdir()
    assert await shelf.store.ingests() == []
