"""Notes about uploads: private, taken by one alone, few, and gone when they are old."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastoci.errors import StoreError
from fastoci.store.store import Store
from fastoci.store.upload_notes import UploadNoteFiles

WEEK_S = 7 * 86400


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.at(tmp_path / "store")
    yield opened
    opened.close()


async def test_a_note_is_private_and_is_taken_once(store: Store, tmp_path: Path) -> None:
    notes = store.upload_notes
    assert await notes.take("a") is None
    await notes.keep("a", b"one")
    await notes.keep("a", b"two")
    await notes.keep("b", b"other")
    directory = tmp_path / "store/uploads"
    files = list(directory.iterdir())
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert [stat.S_IMODE(each.stat().st_mode) for each in files] == [0o600, 0o600]
    taken = await asyncio.gather(*(notes.take("a") for _ in range(8)))
    assert (taken.count(b"two"), taken.count(None)) == (1, 7)
    await notes.drop("b")
    await notes.drop("b")
    assert list(directory.iterdir()) == []


async def test_an_old_note_counts_as_none_and_goes_with_the_next(store: Store, tmp_path: Path) -> None:
    now = time.time()
    notes = UploadNoteFiles(store.paths, store.blobs.threads, now=lambda: now)
    for key in ("a", "b"):
        await notes.keep(key, b"old")
    now += WEEK_S + 60
    assert await notes.take("a") is None
    await notes.keep("c", b"new")
    assert len(list((tmp_path / "store/uploads").iterdir())) == 1


async def test_there_are_never_many_and_the_oldest_go(store: Store, tmp_path: Path) -> None:
    directory = tmp_path / "store/uploads"
    await store.upload_notes.keep("first", b"1")
    for count in range(300):
        name = directory / f"{count:064}"
        name.write_bytes(b"x")
        os.utime(name, (time.time() - 1000 + count,) * 2)
    await store.upload_notes.keep("last", b"1")
    assert len(list(directory.iterdir())) == 256
    assert (await store.upload_notes.take("last"), await store.upload_notes.take("first")) == (b"1", b"1")


async def test_a_note_that_was_put_there_by_others_is_not_read(store: Store, tmp_path: Path) -> None:
    await store.upload_notes.keep("a", b"mine")
    (file,) = (tmp_path / "store/uploads").iterdir()
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    file.unlink()
    file.symlink_to(secret)
    with pytest.raises(StoreError):
        await store.upload_notes.take("a")
    assert secret.read_bytes() == b"secret"
    file.write_bytes(bytes(65 << 10))
    with pytest.raises(StoreError, match="more than"):
        await store.upload_notes.take("a")
