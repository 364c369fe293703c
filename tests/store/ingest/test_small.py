"""Blobs that come as a whole: named when they are right, held by a byte of the gate, and nothing left of them."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci import locks
from fastoci._core import Pool
from fastoci.boot import boot_id
from fastoci.errors import DigestMismatchError, SizeMismatchError, StoreBusyError, StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.limits import Level
from fastoci.store.ingest.small import SmallIngest, byte_of
from fastoci.stream.verify import Verifier
from support.store_shelf import Shelf

LEVELS: tuple[Level, ...] = ("commit", "blobs", "batch", "none")
HOLDER = """
import sys
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.store.store import Store
from pathlib import Path
store = Store.at(Path(sys.argv[1]))
store.blobs.probe()
print(store.blobs.begin_small(Descriptor("a/b", Digest.parse(sys.argv[2]), int(sys.argv[3]))), flush=True)
sys.stdin.read()
"""


def begin(shelf: Shelf, blob: Descriptor) -> SmallIngest:
    shelf.store.blobs.probe()
    ingest = shelf.store.blobs.begin_small(blob)
    assert ingest is not None
    return ingest


async def bring(ingest: SmallIngest, data: bytes) -> None:
    """Let the store have these bytes, whose buffer it gives back."""
    pool = Pool(1 << 20, poison=True)
    buffer = pool.take()
    assert buffer is not None
    buffer.append(data)
    try:
        await ingest.commit(buffer, Verifier(ingest.blob.digest, ingest.blob.size))
    finally:
        assert pool.in_use == 0


def holder(shelf: Shelf, blob: Descriptor) -> subprocess.Popen[bytes]:
    """A process that takes hold of a small blob, says so, and goes on until its input ends."""
    words = (sys.executable, "-c", HOLDER, str(shelf.path), str(blob.digest), str(blob.size))
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_small_blob_is_named_when_it_is_right_and_leaves_nothing(
    tmp_path: Path, level: Level, algorithm: str
) -> None:
    shelf = Shelf(tmp_path / "store", level)
    shelf.store.paths.make(f"blobs/{algorithm}", 0o755)
    blob = shelf.describe(b"all of it", algorithm)
    await bring(begin(shelf, blob), b"all of it")
    assert await shelf.store.read(blob) == b"all of it"
    assert shelf.file(blob).stat().st_mode & 0o777 == 0o444
    assert os.listdir(shelf.path / "ingest") == []
    assert not locks.is_held(shelf.store.paths.leases, ".gate", byte=byte_of(blob.digest))
    assert shelf.store.blobs.begin_small(blob) is None, "what is there is begun again"
    shelf.store.close()


@pytest.mark.parametrize(("data", "error"), [(b"all of If", DigestMismatchError), (b"all", SizeMismatchError)])
async def test_wrong_bytes_never_get_the_name_and_their_server_is_remembered(
    shelf: Shelf, data: bytes, error: type[Exception]
) -> None:
    blob = shelf.describe(b"all of it")
    ingest = begin(shelf, blob)
    with pytest.raises(error):
        await bring(ingest, data)
    assert not shelf.file(blob).exists()
    await ingest.abort(corrupt=["registry.test"])
    assert shelf.store.blobs.begin_small(blob) is None, "what is remembered is not read this way"
    other = await shelf.begin(blob)
    assert other is not None and other.corrupt_servers == ("registry.test",)
    await other.abort(discard=True)


async def test_bytes_beyond_the_promised_ones_are_wrong(shelf: Shelf) -> None:
    blob = shelf.describe(b"all of it")
    with pytest.raises(SizeMismatchError):
        await bring(begin(shelf, blob), b"all of it, and more")
    assert not shelf.file(blob).exists()


async def test_of_many_blobs_at_once_the_wrong_one_alone_fails(shelf: Shelf) -> None:
    datas = [f"blob {number}".encode() for number in range(150)]
    blobs = [shelf.describe(data) for data in datas]
    sent = [b"blob XX" if number == 77 else data for number, data in enumerate(datas)]
    coming = [bring(begin(shelf, blob), data) for blob, data in zip(blobs, sent, strict=True)]
    outcomes = await asyncio.gather(*coming, return_exceptions=True)
    assert isinstance(outcomes[77], DigestMismatchError)
    assert [number for number, outcome in enumerate(outcomes) if outcome is not None] == [77]
    assert await shelf.store.missing(blobs) == [blobs[77]]


async def test_at_level_batch_small_blobs_are_marked_until_the_job_ends(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "store", "batch")
    blobs = [shelf.describe(data) for data in (b"one", b"two")]
    await asyncio.gather(*(bring(begin(shelf, blob), data) for blob, data in zip(blobs, (b"one", b"two"), strict=True)))
    marked = shelf.path / "unsynced" / boot_id()
    assert set(os.listdir(marked)) == {f"sha256-{blob.digest.hex}" for blob in blobs}
    shelf.store.blobs.flush()
    assert os.listdir(marked) == []
    shelf.store.close()


async def test_a_name_that_is_taken_meanwhile_by_other_bytes_is_replaced(shelf: Shelf) -> None:
    blob = shelf.describe(b"all of it")
    ingest = begin(shelf, blob)
    shelf.file(blob).write_bytes(b"another")
    await bring(ingest, b"all of it")
    assert await shelf.store.read(blob) == b"all of it"
    assert os.listdir(shelf.path / "ingest") == []


async def test_what_is_large_or_left_half_way_or_has_a_file_of_its_name_goes_the_other_way(shelf: Shelf) -> None:
    shelf.store.blobs.probe()
    left, taken = shelf.describe(b"left"), shelf.describe(b"taken")
    (shelf.path / "ingest" / left.digest.hex).mkdir()
    shelf.file(taken).write_bytes(b"another size")
    for blob in (left, taken, shelf.describe(b""), shelf.describe(bytes(100_000))):
        assert shelf.store.blobs.begin_small(blob) is None


async def test_who_finds_a_small_blob_held_waits_until_it_is_there(
    open_shelf: Callable[[Path], Shelf], tmp_path: Path
) -> None:
    one, two = open_shelf(tmp_path / "store"), open_shelf(tmp_path / "store")
    blob = one.describe(b"all of it")
    ingest = begin(one, blob)
    for shelf in (one, two):
        with pytest.raises(StoreBusyError):
            begin(shelf, blob)
    waiting = [asyncio.create_task(shelf.store.blobs.wait(blob, lambda offset: None)) for shelf in (one, two)]
    await bring(ingest, b"all of it")
    assert await asyncio.gather(*waiting) == [True, True]


async def test_who_is_killed_with_a_small_blob_in_hand_holds_it_no_more(shelf: Shelf) -> None:
    blob = shelf.describe(b"all of it")
    shelf.store.blobs.probe()
    with holder(shelf, blob) as other:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(StoreBusyError):
            shelf.store.blobs.begin_small(blob)
        byte = byte_of(blob.digest)
        assert locks.holders(shelf.store.paths.leases, ".gate", byte=byte) == (other.pid,)
        assert locks.holders(shelf.store.paths.leases, ".gate", byte=byte + 1) == ()
        other.send_signal(signal.SIGKILL)
    assert await shelf.store.blobs.wait(blob, lambda offset: None) is False
    assert os.listdir(shelf.path / "ingest") == []
    await bring(begin(shelf, blob), b"all of it")


async def test_a_blob_that_is_given_up_can_be_begun_again(shelf: Shelf) -> None:
    blob = shelf.describe(b"all of it")
    await begin(shelf, blob).abort()
    await bring(begin(shelf, blob), b"all of it")


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a file system")
async def test_a_full_disk_is_said_in_full_and_names_nothing(
    open_shelf: Callable[[Path], Shelf], small_disk: Path
) -> None:
    shelf = open_shelf(small_disk / "store")
    blob = shelf.describe(b"all of it")
    ingest = begin(shelf, blob)
    full = 0
    while True:  # until there are no more inodes
        try:
            (small_disk / str(full)).touch()
        except OSError:
            break
        full += 1
    with pytest.raises(StoreError) as caught:
        await bring(ingest, b"all of it")
    assert "inodes free" in str(caught.value)
    assert not shelf.file(blob).exists()
