"""Layer files and merged metadata hashed again: damage anywhere is found, and what they stand for is not missing.

Covers: jobs/verify_unpacked.py.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import fastoci
from fastoci import _core
from fastoci.errors import BlobNotFoundError, DigestMismatchError
from fastoci.image.digest import Digest
from fastoci.jobs.rehash import Outcome, Rehash, Target
from fastoci.store.unpacked_only import drop_blobs
from fastoci.store.verify_cursor import CursorFile
from support.layer_files import compressed, file_of, image, put, put_tree, tar_of
from support.store_shelf import Shelf

TARS = [tar_of(0, 2_500_000), tar_of(1), tar_of(2)]
DIGESTS = [Digest.of(tar) for tar in TARS]


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    shelf = Shelf(tmp_path / "store")
    yield shelf
    shelf.store.close()


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


async def verified(shelf: Shelf, *references: str) -> fastoci.Verification:
    async with fastoci.Engine(shelf.path) as engine:
        return await engine.verify(references)


async def test_layer_files_are_hashed_with_the_blobs(shelf: Shelf) -> None:
    ref = await image(shelf, "one", *TARS[:2])
    await put(shelf.store.layers, TARS[2], form="4k")
    await put_tree(shelf.store.layers, TARS[2])
    sizes = [
        path.stat().st_size
        for pattern in ("blobs/*/*", "layers/*/*/*.erofs", "images/*.erofs")
        for path in shelf.path.glob(pattern)
    ]
    found = await verified(shelf)
    assert (found.bad, found.layers, found.size) == ((), 4, sum(sizes))
    found = await verified(shelf, ref.name)
    assert (found.bad, found.layers, found.size) == ((), 3, sum(sizes) - len(file_of(TARS[2])))


@pytest.mark.parametrize("where", ["superblock", "first of the tar", "last of the tar", "padding", "metadata"])
async def test_damage_anywhere_in_a_layer_file_is_found(shelf: Shelf, where: str) -> None:
    ref = await image(shelf, "one", *TARS[:2])
    path = shelf.store.layers.path(DIGESTS[0])
    end = 4096 + len(TARS[0])
    offsets = {"superblock": 1024, "first of the tar": 4096, "last of the tar": end - 1, "padding": end, "metadata": -1}
    flip(path, offsets[where])
    for found in (await verified(shelf), await verified(shelf, ref.name)):
        assert [(bad.what, bad.digest, bad.kind, bad.path, bad.references) for bad in found.bad] == [
            ("layer", str(DIGESTS[0]), "corrupt", str(path), (ref.name,))
        ]
        assert isinstance(found.bad[0].error, DigestMismatchError)
        assert str(path) in found.bad[0].message


async def test_damage_in_merged_metadata_is_found(shelf: Shelf) -> None:
    ref = await image(shelf, "one", TARS[1])
    flip(shelf.path / "images" / f"{ref.descriptor.digest.hex}.erofs", 0)
    found = await verified(shelf)
    assert [(bad.what, bad.digest, bad.references) for bad in found.bad] == [
        ("merged", str(ref.descriptor.digest), (ref.name,))
    ]


async def test_what_layer_files_stand_for_is_not_missing(shelf: Shelf) -> None:
    ref = await image(shelf, "one", *TARS[:2], layers_only=True)
    await drop_blobs(shelf.store, [ref.name])
    assert (await verified(shelf)).bad == ()
    assert (await verified(shelf, ref.name)).bad == ()
    shelf.store.layers.path(DIGESTS[1]).unlink()
    blob = str(shelf.describe(compressed(TARS[1])).digest)
    for found in (await verified(shelf), await verified(shelf, ref.name)):
        assert [(bad.what, bad.digest, bad.kind) for bad in found.bad] == [("blob", blob, "missing")]
        assert isinstance(found.bad[0].error, BlobNotFoundError)


async def test_a_blob_that_another_image_needs_is_missing(shelf: Shelf) -> None:
    one = await image(shelf, "one", TARS[1], layers_only=True)
    two = await image(shelf, "another", TARS[1])
    blob = shelf.describe(compressed(TARS[1]))
    shelf.file(blob).unlink()
    found = await verified(shelf)
    assert [(bad.digest, bad.references) for bad in found.bad] == [(str(blob.digest), (two.name,))]
    assert (await verified(shelf, one.name)).bad == ()
    assert [bad.kind for bad in (await verified(shelf, two.name)).bad] == ["missing"]


async def test_an_interrupted_verification_goes_on_among_layer_files(shelf: Shelf) -> None:
    await image(shelf, "one", *TARS)
    names = sorted(f"unpacked:layers/sha256/{digest.hex[:2]}/{digest.hex}" for digest in DIGESTS)
    first = next(digest for digest in DIGESTS if names[0].endswith(digest.hex))
    flip(shelf.store.layers.path(first), 0)
    cursor = CursorFile(shelf.store.paths)
    cursor.save(names[1], [names[0]])
    cursor.close()
    found = await verified(shelf)
    assert (found.blobs, found.behind) == (0, names[1])
    assert [bad.digest for bad in found.bad] == [str(first)]
    assert found.layers == 2, "what was bad, and what is behind the cursor; of the last before it only the tar"


def test_parts_of_files_are_hashed_whatever_their_ends(tmp_path: Path) -> None:

    data = tar_of(3, 3_000_000)
    path = tmp_path / "file"
    path.write_bytes(data)
    ranges = [((0, 3_000_000),), ((0, 1), (5, 5), (7, 2_000_003)), ((1 << 20, 2 << 20),), ((2_999_999, 3_000_000),)]
    outcomes: list[Outcome] = []
    targets = [
        Target(
            number,
            str(path),
            Digest.of(b"".join(data[a:b] for a, b in each)),
            len(data),
            lambda: os.open(path, 0),
            each,
        )
        for number, each in enumerate(ranges)
    ]
    targets.append(Target(9, str(path), Digest.of(b"none"), len(data), lambda: os.open(path, 0), ((0, 4),)))
    pool = _core.Pool(2 << 20)
    buffers = [buffer for buffer in (pool.take(), pool.take()) if buffer is not None]
    Rehash(targets, rate=None, done=outcomes.append, read=lambda size: None).run(buffers)
    assert sorted(outcome.target.number for outcome in outcomes if outcome.error is None) == [0, 1, 2, 3]
    assert len(outcomes) == 5
    for buffer in buffers:
        buffer.release()
