"""A blob's way in: resume, locks, proofs, and letting go.

Covers: store/ingest/checkpoint.py, store/ingest/corrupt_sources.py.
"""

import asyncio
import errno
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci._core import Sha256
from fastoci.errors import DigestMismatchError, StoreError
from fastoci.image.digest import Digest
from fastoci.interfaces import Ingest
from fastoci.store.ingest.checkpoint import State
from fastoci.store.ingest.ingest import StoreIngest
from fastoci.stream.verify import Verified, Verifier
from support.store_shelf import Shelf

DATA = random.Random(1).randbytes(3_000_000)
CUT = 1_234_567
OTHER_BOOT = "11111111-2222-4333-8444-555555555555"


async def _begin(shelf: Shelf, data: bytes = DATA, algorithm: str = "sha256") -> StoreIngest:
    ingest = await shelf.begin(shelf.describe(data, algorithm))
    assert ingest is not None
    return ingest


async def _interrupt(shelf: Shelf) -> StoreIngest:
    """Leave an ingest that is checkpointed at ``CUT``."""
    ingest = await _begin(shelf)
    verifier = shelf.feed(ingest, DATA, until=CUT)
    ingest.checkpoint(CUT, verifier.state())
    await ingest.abort()
    return ingest


async def _kill(shelf: Shelf, *, checkpoint: int, written: int) -> Path:
    """Leave what a process leaves that was killed: its data as far as it was written, and its last record."""
    ingest = await _begin(shelf)
    verifier = shelf.feed(ingest, DATA, until=checkpoint)
    if checkpoint:
        ingest.checkpoint(checkpoint, verifier.state())
    shelf.feed(ingest, DATA, until=written, verifier=verifier)
    directory = shelf.ingest(ingest.blob)
    left = {name: (directory / name).read_bytes() for name in ("data", "state")}
    await ingest.abort(discard=True)
    directory.mkdir(0o700)
    for name, data in left.items():
        (directory / name).write_bytes(data)
    return directory


async def _finish(shelf: Shelf, ingest: Ingest) -> None:
    verifier = shelf.feed(ingest, DATA)
    await ingest.commit(verifier.proof())
    assert await shelf.store.read(ingest.blob) == DATA
    assert os.listdir(shelf.path / "ingest") == []


async def test_an_aborted_ingest_goes_on_where_its_checkpoint_is(shelf: Shelf) -> None:
    await _interrupt(shelf)
    ingest = await _begin(shelf)
    assert ingest.offset == CUT
    assert (shelf.ingest(ingest.blob) / "data").stat().st_size == CUT
    await _finish(shelf, ingest)


@pytest.mark.parametrize(
    ("checkpoint", "written"), [(0, 1), (0, CUT), (CUT, CUT + 4096), (CUT, len(DATA)), (0, len(DATA))]
)
async def test_what_a_killed_process_wrote_behind_its_checkpoint_is_hashed_again(
    shelf: Shelf, checkpoint: int, written: int
) -> None:
    await _kill(shelf, checkpoint=checkpoint, written=written)
    ingest = await _begin(shelf)
    assert (ingest.offset, ingest.hash_state) == (written, Sha256(DATA[:written]).state())
    await _finish(shelf, ingest)


async def test_processes_that_are_killed_one_after_the_other_lose_nothing_that_they_wrote(shelf: Shelf) -> None:
    for kill in range(1, 9):
        await _kill(shelf, checkpoint=0, written=kill * 300_000)
        ingest = await _begin(shelf)
        assert ingest.offset == kill * 300_000
        await ingest.abort()
    await _finish(shelf, await _begin(shelf))


@pytest.mark.parametrize("checkpoint", [0, CUT])
async def test_of_another_boot_what_was_not_synced_is_not_hashed_again(shelf: Shelf, checkpoint: int) -> None:
    directory = await _kill(shelf, checkpoint=checkpoint, written=CUT + 5000)
    state = directory / "state"
    state.write_bytes(_another_boot(state.read_bytes()))
    ingest = await _begin(shelf)
    assert (ingest.offset, (directory / "data").stat().st_size) == (0, 0)
    await _finish(shelf, ingest)


async def test_data_longer_than_the_blob_is_believed_up_to_its_checkpoint_only(shelf: Shelf) -> None:
    directory = await _kill(shelf, checkpoint=CUT, written=len(DATA))
    with (directory / "data").open("ab") as file:
        file.write(b"x")
    ingest = await _begin(shelf)
    assert ingest.offset == CUT
    await _finish(shelf, ingest)


async def test_a_record_of_data_that_is_gone_is_not_believed_of_other_data(shelf: Shelf) -> None:
    """A hash of bytes that are not in the file any more would prove whatever is written there next."""
    directory = await _kill(shelf, checkpoint=CUT, written=CUT)
    os.truncate(directory / "data", CUT - 1)
    ingest = await _begin(shelf)
    assert ingest.offset == 0
    wrong = bytes(CUT)
    shelf.feed(ingest, wrong)
    left = (directory / "data").read_bytes(), (directory / "state").read_bytes()
    await ingest.abort(discard=True)
    directory.mkdir(0o700)
    (directory / "data").write_bytes(left[0])
    (directory / "state").write_bytes(left[1])
    ingest = await _begin(shelf)
    assert (ingest.offset, ingest.hash_state) == (CUT, Sha256(wrong).state())
    with pytest.raises(DigestMismatchError):
        shelf.feed(ingest, DATA).proof()
    await ingest.abort(discard=True)


async def test_a_whole_blob_that_was_not_committed_needs_no_byte_more(shelf: Shelf) -> None:
    ingest = await _begin(shelf)
    verifier = shelf.feed(ingest, DATA)
    ingest.checkpoint(len(DATA), verifier.state())
    await ingest.abort()
    ingest = await _begin(shelf)
    assert ingest.offset == len(DATA)
    await _finish(shelf, ingest)


def _another_boot(state: bytes, *, synced: int = 0) -> bytes:
    old = State.decode(state)
    assert old is not None
    return State(OTHER_BOOT, synced, old.offset, old.hash_state).encode()


def _changed(state: bytes, *, offset: int | None = None, hash_state: bytes | None = None) -> bytes:
    old = State.decode(state)
    assert old is not None
    return State(
        old.boot_id,
        old.synced,
        old.offset if offset is None else offset,
        old.hash_state if hash_state is None else hash_state,
    ).encode()


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "absent": lambda state: b"",
    "torn": lambda state: state[:100] + bytes(412),
    "zeros": lambda state: bytes(512),
    "cut": lambda state: state[:-1],
    "longer": lambda state: state * 2,
    "of another boot": _another_boot,
    "beyond the data": lambda state: _changed(state, offset=CUT + 1),
    "beyond the blob": lambda state: _changed(state, offset=len(DATA) + 1),
    "without a hash": lambda state: _changed(state, hash_state=b""),
    "of no hash": lambda state: _changed(state, hash_state=b"\xff" * 104),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_a_state_that_cannot_be_trusted_starts_at_0(shelf: Shelf, broken: Callable[[bytes], bytes]) -> None:
    directory = shelf.ingest((await _interrupt(shelf)).blob)
    state = directory / "state"
    state.write_bytes(broken(state.read_bytes()))
    ingest = await _begin(shelf)
    assert (ingest.offset, ingest.hash_state) == (0, b"")
    assert (directory / "data").stat().st_size == 0
    await _finish(shelf, ingest)


@pytest.mark.parametrize("synced", [CUT, CUT - 100_000, 1])
async def test_what_another_boot_synced_is_hashed_again_and_the_rest_is_cut_off(shelf: Shelf, synced: int) -> None:
    directory = shelf.ingest((await _interrupt(shelf)).blob)
    state = directory / "state"
    state.write_bytes(_another_boot(state.read_bytes(), synced=synced))
    ingest = await _begin(shelf)
    assert ingest.offset == (directory / "data").stat().st_size == synced
    assert ingest.hash_state == Sha256(DATA[:synced]).state()
    await _finish(shelf, ingest)


async def test_a_large_ingest_is_synced_on_its_way_so_that_the_next_boot_goes_on(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastoci.store.ingest.checkpoint._STEP", 200_000)
    ingest = await _begin(shelf)
    verifier = shelf.feed(ingest, DATA, until=CUT)
    ingest.checkpoint(CUT, verifier.state())
    await ingest.abort()
    state = State.decode((shelf.ingest(ingest.blob) / "state").read_bytes())
    assert state is not None
    assert state.synced == state.offset == CUT
    await _finish(shelf, await _begin(shelf))


async def test_a_disk_that_loses_data_on_the_way_loses_the_ingest(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastoci.store.ingest.checkpoint._STEP", 200_000)

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "injected")

    ingest = await _begin(shelf)
    verifier = shelf.feed(ingest, DATA, until=CUT)
    monkeypatch.setattr(os, "fdatasync", fail)
    ingest.checkpoint(CUT, verifier.state())
    with pytest.raises(StoreError, match="lost"):
        await ingest.commit(shelf.feed(ingest, DATA, verifier=verifier).proof())
    monkeypatch.undo()
    assert os.listdir(shelf.path / "ingest") == []
    await _finish(shelf, await _begin(shelf))


async def test_a_sha512_blob_starts_at_0_again(shelf: Shelf) -> None:
    ingest = await _begin(shelf, DATA, "sha512")
    verifier = shelf.feed(ingest, DATA, until=CUT)
    ingest.checkpoint(CUT, verifier.state())
    await ingest.abort()
    assert os.listdir(shelf.path / "ingest") == []
    assert (await shelf.put(DATA, "sha512")).digest.algorithm == "sha512"


async def test_an_abort_without_a_checkpoint_leaves_nothing(shelf: Shelf) -> None:
    ingest = await _begin(shelf)
    shelf.feed(ingest, DATA, until=CUT)
    await ingest.abort()
    await ingest.abort()
    assert os.listdir(shelf.path / "ingest") == []


async def test_a_discarded_ingest_leaves_nothing(shelf: Shelf) -> None:
    await _interrupt(shelf)
    ingest = await _begin(shelf)
    await ingest.abort(discard=True)
    assert os.listdir(shelf.path / "ingest") == []
    assert (await shelf.store.missing([ingest.blob])) == [ingest.blob]


async def test_who_sent_wrong_bytes_is_remembered_until_the_blob_is_there(shelf: Shelf) -> None:
    ingest = await _begin(shelf)
    assert ingest.corrupt_servers == ()
    verifier = shelf.feed(ingest, DATA, until=CUT)
    ingest.checkpoint(CUT, verifier.state())
    await ingest.abort(discard=True, corrupt=["https://one.test/v2"])
    ingest = await _begin(shelf)
    assert (ingest.offset, ingest.corrupt_servers) == (0, ("https://one.test/v2",))
    await ingest.abort(discard=True, corrupt=["https://two.test/v2", "https://one.test/v2", "a\nb"])
    ingest = await _begin(shelf)
    assert ingest.corrupt_servers == ("https://one.test/v2", "https://two.test/v2")
    await ingest.abort()
    assert sorted(os.listdir(shelf.ingest(ingest.blob))) == ["corrupt", "lock"]
    await _finish(shelf, await _begin(shelf))


@pytest.mark.parametrize("data", [b"\xff\n", b"\n\n", b"\0" * 100, b"x" * (1 << 17)])
async def test_a_list_of_servers_that_is_none_does_no_harm(shelf: Shelf, data: bytes) -> None:
    directory = shelf.ingest(shelf.describe(DATA))
    directory.mkdir(0o700)
    (directory / "corrupt").write_bytes(data)
    await _finish(shelf, await _begin(shelf))


async def test_a_proof_of_another_blob_is_refused_and_the_ingest_is_let_go(shelf: Shelf) -> None:
    other = Verifier(Digest.of(b""), 0).proof()
    ingest = await _begin(shelf)
    with pytest.raises(ValueError, match="proof"):
        await ingest.commit(other)
    assert await shelf.store.missing([ingest.blob]) == [ingest.blob]
    await (await _begin(shelf)).abort()


async def test_nothing_but_a_verifier_makes_a_proof(shelf: Shelf) -> None:
    ingest = await _begin(shelf)
    with pytest.raises(TypeError):
        Verified(ingest.blob.digest, ingest.blob.size, object())

    class Forged:
        digest, size = ingest.blob.digest, ingest.blob.size

    with pytest.raises(ValueError, match="proof"):
        await ingest.commit(Forged())  # type: ignore[arg-type]


async def test_a_commit_without_all_data_loses_the_ingest(shelf: Shelf) -> None:
    ingest = await _begin(shelf)
    verifier = shelf.feed(ingest, DATA)
    os.truncate(shelf.ingest(ingest.blob) / "data", CUT)
    with pytest.raises(StoreError, match=f"has {CUT} bytes, not {len(DATA)}"):
        await ingest.commit(verifier.proof())
    assert os.listdir(shelf.path / "ingest") == []
    assert await shelf.store.missing([ingest.blob]) == [ingest.blob]


async def test_a_commit_after_the_sink_was_aborted_is_refused(shelf: Shelf) -> None:
    ingest = await _begin(shelf)
    verifier = shelf.feed(ingest, DATA)
    ingest.sink.abort()
    with pytest.raises(ValueError, match="commit after abort"):
        await ingest.commit(verifier.proof())
    await (await _begin(shelf)).abort()


async def test_a_checkpoint_of_what_is_not_written_is_refused(shelf: Shelf) -> None:
    ingest = await _begin(shelf)
    verifier = shelf.feed(ingest, DATA, until=CUT)
    with pytest.raises(ValueError, match="no checkpoint"):
        ingest.checkpoint(CUT + 1, verifier.state())
    await ingest.abort()


async def test_a_second_task_waits_and_finds_the_blob(shelf: Shelf) -> None:
    ingest = await _begin(shelf)
    second = asyncio.create_task(shelf.begin(ingest.blob))
    await _finish(shelf, ingest)
    assert await second is None
    assert os.listdir(shelf.path / "ingest") == []


async def test_a_second_task_goes_on_where_the_first_gave_up(shelf: Shelf) -> None:
    ingest = await _begin(shelf)
    second = asyncio.create_task(shelf.begin(ingest.blob))
    verifier = shelf.feed(ingest, DATA, until=CUT)
    ingest.checkpoint(CUT, verifier.state())
    await ingest.abort()
    resumed = await second
    assert resumed is not None
    assert resumed.offset == CUT
    await _finish(shelf, resumed)


async def test_waiting_holds_no_descriptor(shelf: Shelf) -> None:
    ingests = [await _begin(shelf, bytes([number])) for number in range(20)]
    before = len(os.listdir("/proc/self/fd"))
    waiters = [asyncio.create_task(shelf.begin(ingest.blob)) for ingest in ingests for _ in range(5)]
    most = 0
    for _ in range(50):
        await asyncio.sleep(0.005)
        most = max(most, len(os.listdir("/proc/self/fd")) - before)
    assert most <= 8  # those that are looking just now, in the store's threads
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    for ingest in ingests:
        await ingest.abort()


HOLDER = """
import asyncio, pathlib, sys
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.store.store import Store

async def main():
    store = Store.at(pathlib.Path(sys.argv[1]))
    ingest = await store.blobs.begin(Descriptor("x/y", Digest.parse(sys.argv[2]), int(sys.argv[3])))
    print("held", ingest.offset, flush=True)
    sys.stdin.readline()
    await ingest.abort()
    store.close()

asyncio.run(main())
"""


def _hold(shelf: Shelf, blob_digest: str, size: int) -> "subprocess.Popen[str]":
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, shelf.path, blob_digest, str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline().startswith("held")
    return holder


@pytest.mark.parametrize("killed", [False, True])
async def test_a_digest_that_another_process_holds_is_waited_for_until_it_lets_go_or_dies(
    shelf: Shelf, killed: bool
) -> None:
    blob = (await _interrupt(shelf)).blob
    with _hold(shelf, str(blob.digest), blob.size) as holder:
        waiter = asyncio.create_task(shelf.begin(blob))
        done, _ = await asyncio.wait([waiter], timeout=0.3)
        assert not done
        if killed:
            holder.kill()
        else:
            assert holder.stdin is not None
            holder.stdin.write("\n")
            holder.stdin.flush()
        ingest = await waiter
    assert ingest is not None
    assert ingest.offset == CUT
    await _finish(shelf, ingest)


async def test_begin_cancelled_at_any_instant_leaks_nothing(shelf: Shelf) -> None:
    rng = random.Random(7)
    blob = shelf.describe(DATA)
    before = sorted(os.listdir("/proc/self/fd"))
    for number in range(200):
        other = await shelf.begin(blob) if number % 2 else None
        task = asyncio.create_task(shelf.begin(blob))
        for _ in range(rng.randrange(8)):
            await asyncio.sleep(0)
        if rng.random() < 0.5:
            await asyncio.sleep(rng.random() * 0.001)
        if other is not None and rng.random() < 0.5:
            await other.abort()
        task.cancel()
        try:
            ingest = await task
            assert ingest is not None
            await ingest.abort()
        except asyncio.CancelledError:
            pass
        if other is not None:
            await other.abort()
        assert sorted(os.listdir("/proc/self/fd")) == before
    assert os.listdir(shelf.path / "ingest") == []
    await _finish(shelf, await _begin(shelf))


async def test_a_cancelled_commit_is_a_commit(shelf: Shelf) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for number in range(20):
        data = shelf.random(10_000, number)
        ingest = await _begin(shelf, data)
        task = asyncio.create_task(ingest.commit(shelf.feed(ingest, data).proof()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await shelf.store.read(ingest.blob) == data
        assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["data", "state", "lock"])
async def test_a_planted_link_in_an_ingest_is_not_followed(shelf: Shelf, tmp_path: Path, name: str) -> None:
    (tmp_path / "victim").write_text("precious")
    directory = shelf.ingest(shelf.describe(DATA))
    directory.mkdir()
    (directory / name).symlink_to(tmp_path / "victim")
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(StoreError) as caught:
        await _begin(shelf)
    assert caught.value.path == str(directory / name)
    assert (tmp_path / "victim").read_text() == "precious"
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("target", ["/nonexistent", "."])
async def test_an_ingest_that_is_a_link_is_refused(shelf: Shelf, target: str) -> None:
    shelf.ingest(shelf.describe(DATA)).symlink_to(target)
    with pytest.raises(StoreError, match="not a directory"):
        await _begin(shelf)


async def test_a_foreign_file_in_an_ingest_does_not_stop_the_blob(shelf: Shelf) -> None:
    ingest = await _begin(shelf)
    (shelf.ingest(ingest.blob) / "notes.txt").write_text("x")
    await ingest.commit(shelf.feed(ingest, DATA).proof())
    assert await shelf.store.read(ingest.blob) == DATA
    assert os.listdir(shelf.ingest(ingest.blob)) == ["notes.txt"]
