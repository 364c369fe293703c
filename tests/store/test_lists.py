"""Lists in a store: what references remember of them, one job of each at a time, and what is left by a list.

Covers: store/lists.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fastoci.errors import StoreBusyError
from fastoci.image.descriptor import Descriptor
from fastoci.image.mediatype import OCI_INDEX
from fastoci.image.stored_image import StoredImage
from fastoci.store.lists import Leaving, Lists
from support.store_shelf import Shelf

TOP = Descriptor.of(b"index", OCI_INDEX)
WHEN = "2026-01-02T03:04:05Z"
A, B, C = (f"example.com/{name}:1" for name in "abc")


@pytest.fixture
def lists(shelf: Shelf) -> Lists:
    return Lists(shelf.store)


def bring(shelf: Shelf, name: str, list_name: str = "prod", *, pinned: bool = False) -> None:
    shelf.store.refs.set(StoredImage(name, TOP, {}, WHEN, pinned, lists={list_name: pinned}, is_brought=True))


def pull(shelf: Shelf, name: str) -> None:
    shelf.store.refs.set(StoredImage(name, TOP, {}, WHEN))


def names(shelf: Shelf) -> list[str]:
    return [image.name for image in shelf.store.refs.list()[0]]


def test_a_reference_on_disk_says_which_lists_want_it_as_the_format_says(shelf: Shelf) -> None:
    bring(shelf, A, pinned=True)
    pull(shelf, B)
    documents = [json.loads(Path(shelf.store.paths.ref_path(name)).read_bytes()) for name in (A, B)]
    assert documents[0]["lists"] == {"prod": True}
    assert documents[0]["is_brought"] is True
    assert documents[1].keys().isdisjoint({"lists", "is_brought"})
    assert shelf.store.refs.get(A).lists == {"prod": True}


async def test_what_the_list_does_not_want_goes_and_the_rest_stays(shelf: Shelf, lists: Lists) -> None:
    for name in (A, B):
        bring(shelf, name, pinned=True)
    bring(shelf, C, "test")
    pull(shelf, "example.com/d:1")
    planned = await lists.leaving("prod", {B: True})
    assert names(shelf) == [A, B, C, "example.com/d:1"]
    assert await lists.leave("prod", {B: True}) == planned
    assert planned.removed == (A,)
    assert names(shelf) == [B, C, "example.com/d:1"]
    assert await lists.leave("prod", {B: False}) == Leaving(unpinned=(B,))
    assert not shelf.store.refs.get(B).pinned


async def test_a_list_that_wants_what_is_there_keeps_it_from_the_list_that_brought_it(
    shelf: Shelf, lists: Lists
) -> None:
    bring(shelf, A)
    pull(shelf, B)
    await lists.join("test", {A: False, B: True, "example.com/absent:1": True})
    assert (await lists.leave("prod", {})).removed == ()
    assert shelf.store.refs.get(B).pinned
    left = await lists.leave("test", {})
    assert (left.removed, left.unpinned) == ((A,), (B,))
    assert shelf.store.refs.get(B) == StoredImage(B, TOP, {}, WHEN)


async def test_leaving_is_no_use_of_an_image_and_joining_what_is_joined_writes_nothing(
    shelf: Shelf, lists: Lists
) -> None:
    pull(shelf, A)
    path = Path(shelf.store.paths.ref_path(A))
    os.utime(path, (1, 1))
    await lists.join("prod", {A: True})
    joined = path.stat()
    await lists.join("prod", {A: True})
    assert path.stat() == joined
    await lists.leave("prod", {})
    assert path.stat().st_mtime == 1
    assert not shelf.store.refs.get(A).pinned


async def test_a_broken_reference_is_told_and_stays(shelf: Shelf, lists: Lists) -> None:
    bring(shelf, A)
    bring(shelf, B)
    broken = Path(shelf.store.paths.ref_path(A))
    broken.write_bytes(b"{")
    await lists.join("prod", {A: True})
    left = await lists.leave("prod", {})
    assert left.removed == (B,)
    assert [error.path for error in left.broken] == [str(broken)]
    assert broken.read_bytes() == b"{"
    bring(shelf, A)
    assert not shelf.store.refs.get(A).is_brought, "nobody knows who brought what the broken file was of"


async def test_one_job_of_a_list_is_at_work_at_a_time_and_leaves_no_lock(shelf: Shelf, lists: Lists) -> None:
    async with lists.alone("prod"):
        [lock] = (shelf.path / "lists").iterdir()
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
        assert stat.S_IMODE(lock.parent.stat().st_mode) == 0o700
        with pytest.raises(StoreBusyError, match="another job of the list prod is at work"):
            async with lists.alone("prod"):
                pass
        async with lists.alone("test"):
            pass
    assert list((shelf.path / "lists").iterdir()) == []
    async with lists.alone("prod"):
        pass


def test_the_lock_of_a_killed_job_is_free(shelf: Shelf, lists: Lists) -> None:
    script = (
        "import asyncio, os, sys; from pathlib import Path; from fastoci.store.store import Store;"
        "from fastoci.store.lists import Lists\n"
        "async def main():\n"
        "    async with Lists(Store.at(Path(sys.argv[1]))).alone('prod'): os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())"
    )
    assert subprocess.run([sys.executable, "-c", script, shelf.path], check=False).returncode == -9
    assert len(list((shelf.path / "lists").iterdir())) == 1

    async def alone() -> None:
        async with lists.alone("prod"):
            pass

    asyncio.run(alone())
    assert list((shelf.path / "lists").iterdir()) == []
