"""fs-verity of what has a name in the store: enabled, recorded, demanded; said plainly where the kernel has none."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci.errors import BlobNotFoundError, DigestMismatchError, MountError
from fastoci.image.digest import Digest
from fastoci.image.layer_file import MergedInfo
from fastoci.store.layers.verity import check_content, demand
from fastoci.testing.suites.filling import proof_of
from fastoci.verity.fs_verity import FsVerity, measure_verity
from support.disks import disk
from support.layer_files import facts_of, put, put_merged, tar_of, write
from support.store_shelf import Shelf

TAR = tar_of()
DIFF_ID = Digest.of(TAR)
MANIFEST = Digest.of(b"manifest")
HAS_VERITY = os.path.exists("/sys/fs/ext4/features/verity")


def opened(path: str) -> int:
    return os.open(path, os.O_RDONLY)


async def test_where_the_kernel_cannot_nothing_changes(shelf: Shelf) -> None:
    layers = shelf.store.layers
    with pytest.raises(BlobNotFoundError):
        await layers.enforce(DIFF_ID)
    with pytest.raises(BlobNotFoundError):
        await layers.enforce_merged(MANIFEST)
    made = await put(layers, TAR)
    await put_merged(layers, MANIFEST, [DIFF_ID])
    if HAS_VERITY:
        pytest.skip("this kernel has fs-verity")
    assert await layers.enforce(DIFF_ID) is False
    assert await layers.enforce_merged(MANIFEST) is False
    assert layers.find(DIFF_ID) == made
    assert os.listdir(shelf.path / "ingest") == []


async def test_who_makes_the_file_again_is_waited_for(shelf: Shelf) -> None:
    layers = shelf.store.layers
    await put(layers, TAR)
    ingest = await layers.begin(DIFF_ID, form="4k")
    assert ingest is not None
    enforcing = asyncio.create_task(layers.enforce(DIFF_ID))
    await asyncio.sleep(0)
    write(ingest, TAR)
    await ingest.commit(facts_of(TAR, form="4k"), proof_of(TAR))
    await enforcing
    found = layers.find(DIFF_ID)
    assert found is not None
    assert found.form == "4k"


async def test_a_file_that_the_kernel_does_not_hold_against_its_digest_is_refused(shelf: Shelf) -> None:
    made = await put(shelf.store.layers, TAR)
    fd = opened(made.path)
    try:
        with pytest.raises(MountError, match="no kernel holds it against a digest"):
            demand(fd, made)
    finally:
        os.close(fd)


@pytest.mark.parametrize("at", [0, 5000, -1], ids=["head", "tar", "metadata"])
async def test_a_file_is_hashed_whole_before_its_digest_is_believed(shelf: Shelf, at: int) -> None:
    made = await put(shelf.store.layers, TAR)
    data = bytearray(Path(made.path).read_bytes())
    data[at] ^= 1
    damaged = shelf.path.parent / "damaged"
    damaged.write_bytes(data)
    for path, wrong in ((made.path, False), (str(damaged), True)):
        fd = opened(path)
        try:
            if wrong:
                with pytest.raises(DigestMismatchError):
                    check_content(fd, made)
            else:
                check_content(fd, made)
        finally:
            os.close(fd)


async def test_merged_metadata_is_hashed_whole(shelf: Shelf) -> None:
    await put(shelf.store.layers, TAR)
    await put_merged(shelf.store.layers, MANIFEST, [DIFF_ID])
    made = shelf.store.layers.find_merged(MANIFEST)
    assert isinstance(made, MergedInfo)
    fd = opened(made.path)
    try:
        check_content(fd, made)
    finally:
        os.close(fd)
    (shelf.path.parent / "other").write_bytes(b"x" * made.size)
    fd = opened(str(shelf.path.parent / "other"))
    try:
        with pytest.raises(DigestMismatchError):
            check_content(fd, made)
    finally:
        os.close(fd)


async def test_the_kernel_holds_what_is_recorded(open_shelf: Callable[[Path], Shelf], tmp_path: Path) -> None:
    if not HAS_VERITY:
        pytest.skip("this kernel has no fs-verity")
    with disk(tmp_path, "ext4", 64 << 20, "-O", "verity") as mounted:
        shelf = open_shelf(mounted / "store")
        layers = shelf.store.layers
        other = tar_of(1)
        ingest = await layers.begin(Digest.of(other))
        assert ingest is not None
        write(ingest, other)
        digest = FsVerity().finish(ingest.fd, "layer")
        await ingest.commit(facts_of(other), proof_of(other), fs_verity=digest)
        await put(layers, TAR)
        await put_merged(layers, MANIFEST, [DIFF_ID])
        for diff_id in (DIFF_ID, Digest.of(other)):
            assert await layers.enforce(diff_id)
            assert await layers.enforce(diff_id), "again"
            info = layers.find(diff_id)
            assert info is not None
            fd = opened(info.path)
            try:
                assert info.fs_verity == measure_verity(fd) == FsVerity().finish(fd, "layer")
                demand(fd, info)
            finally:
                os.close(fd)
        assert await layers.enforce_merged(MANIFEST)
        merged = layers.find_merged(MANIFEST)
        assert merged is not None
        record = Path(merged.path).with_suffix(".json")
        assert json.loads(record.read_bytes())["fs_verity"] == merged.fs_verity
        record.write_text(json.dumps(json.loads(record.read_bytes()) | {"fs_verity": "sha256:00"}))
        with pytest.raises(DigestMismatchError):
            await layers.enforce_merged(MANIFEST)
        shelf.store.close()
