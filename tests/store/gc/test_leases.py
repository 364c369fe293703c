"""Leases: what a job needs stays, from before the look at what is there until its references are recorded."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci.errors import StoreBusyError, StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.store.gc.leases import Collecting, collecting
from fastoci.store.gc.retention import Retention
from support.store_shelf import Shelf

OpenShelf = Callable[[Path], Shelf]

HOLDER = """
import asyncio, pathlib, sys
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.store.store import Store

async def main():
    store = Store.at(pathlib.Path(sys.argv[1]))
    async with store.lease([Descriptor("x/y", Digest.parse(sys.argv[2]), 1)]):
        print("leased", flush=True)
        sys.stdin.readline()
    store.close()

asyncio.run(main())
"""


def leases(shelf: Shelf) -> list[Path]:
    return [path for path in (shelf.path / "leases").iterdir() if not path.name.startswith(".")]


def hold(shelf: Shelf, blob: Descriptor) -> "subprocess.Popen[str]":
    """A process that leases a blob until it reads a line."""
    command = [sys.executable, "-c", HOLDER, str(shelf.path), str(blob.digest)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "leased\n"
    return holder


async def until(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0.001)


async def collect(shelf: Shelf) -> set[str]:
    return {item.name for item in await shelf.store.gc(await shelf.store.plan_gc(Retention()))}


async def test_a_leased_blob_stays_and_goes_when_the_lease_has_ended(shelf: Shelf) -> None:
    blob, other = await shelf.put(b"leased"), await shelf.put(b"other")
    async with shelf.store.lease([blob]):
        assert await collect(shelf) == {str(other.digest)}
        assert shelf.store.holds(blob)
    assert leases(shelf) == []
    assert await collect(shelf) == {str(blob.digest)}


async def test_a_blob_that_comes_under_a_lease_stays_though_the_plan_is_older(shelf: Shelf) -> None:
    blob = await shelf.put(b"content")
    plan = await shelf.store.plan_gc(Retention())
    assert [item.name for item in plan.items] == [str(blob.digest)]
    async with shelf.store.lease([blob]):
        assert await shelf.store.gc(plan) == ()
        assert shelf.store.holds(blob)


async def test_a_lease_is_on_the_disk_before_the_job_goes_on(shelf: Shelf) -> None:
    blob = shelf.describe(b"content")
    async with shelf.store.lease([blob]):
        (path,) = leases(shelf)
        assert f"{blob.digest}\n" in path.read_text()
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


async def test_jobs_that_overlap_share_a_file_and_need_one_descriptor(shelf: Shelf) -> None:
    before = len(os.listdir("/proc/self/fd"))
    blobs = [await shelf.put(bytes([number])) for number in range(200)]
    begun = asyncio.Semaphore(0)
    end = asyncio.Event()

    async def job(number: int) -> None:
        async with shelf.store.lease(blobs[number : number + 1]):
            begun.release()
            await end.wait()

    jobs = [asyncio.create_task(job(number)) for number in range(200)]
    for _ in jobs:
        await begun.acquire()
    assert len(leases(shelf)) == 1
    assert len(os.listdir("/proc/self/fd")) == before + 1
    assert await collect(shelf) == set()
    end.set()
    await asyncio.gather(*jobs)
    assert leases(shelf) == []
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(await collect(shelf)) == 200


async def test_jobs_that_follow_each_other_without_a_gap_do_not_grow_one_file_for_ever(shelf: Shelf) -> None:
    blob = shelf.describe(b"content")
    async with shelf.store.lease([blob]):
        for _ in range(300):
            async with shelf.store.lease([blob]):
                pass
        async with shelf.store.lease([blob]):
            assert {len(path.read_text().splitlines()) for path in leases(shelf)} == {257, 2}
    assert leases(shelf) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGCONT])
async def test_a_lease_lives_as_long_as_its_process_whatever_its_file_says_of_time(shelf: Shelf, number: int) -> None:
    """Its times are set far into the past: no clock has a say."""
    blob = await shelf.put(b"content")
    with hold(shelf, blob) as holder:
        (path,) = leases(shelf)
        os.utime(path, (0, 0))
        assert await collect(shelf) == set()
        holder.send_signal(number)
        if number == signal.SIGKILL:
            holder.wait()
            # it may have died after it recorded a reference: its lease counts for a gc that had begun before
            assert path.exists()
            assert await collect(shelf) == {str(blob.digest)}
            assert leases(shelf) == []
        else:
            assert await collect(shelf) == set()


async def test_a_lease_that_ends_beside_a_collector_is_left_to_it(shelf: Shelf) -> None:
    """Its references may be newer than those that the collector has read."""
    blob = shelf.describe(b"content")
    with collecting(shelf.store._paths) as gate:
        async with shelf.store.lease([blob]):
            pass
        assert len(leases(shelf)) == 1
        with gate.sweeping():
            assert gate.leased == {bytes.fromhex(blob.digest.hex)}
        gate.drop_dead_leases()
    assert leases(shelf) == []


async def test_a_job_waits_between_its_lease_and_its_look_while_blobs_are_deleted(shelf: Shelf) -> None:
    blob = await shelf.put(b"content")
    entered = asyncio.Event()

    async def job() -> None:
        async with shelf.store.lease([blob]):
            entered.set()

    with collecting(shelf.store._paths) as gate:
        with gate.sweeping():
            task = asyncio.create_task(job())
            await until(lambda: bool(leases(shelf)))
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert not entered.is_set()
        await task


async def test_a_job_cancelled_while_it_waits_for_a_sweep_leaves_no_lease(shelf: Shelf) -> None:
    with collecting(shelf.store._paths) as gate:
        with gate.sweeping():
            task = asyncio.create_task(shelf.store.lease([shelf.describe(b"content")]).__aenter__())
            await until(lambda: bool(leases(shelf)))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        gate.drop_dead_leases()
        assert leases(shelf) == []


async def test_a_second_collector_is_told_that_one_is_at_work(shelf: Shelf) -> None:
    plan = await shelf.store.plan_gc(Retention())
    with collecting(shelf.store._paths), pytest.raises(StoreBusyError, match="another gc"):
        await shelf.store.gc(plan)


async def test_a_torn_line_does_not_count_and_what_follows_it_is_another_file(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (shelf.describe(bytes([number])) for number in range(3))
    async with shelf.store.lease([first]):

        def torn(fd: int, data: bytes) -> None:
            os.write(fd, data[:20])
            raise OSError(28, "injected")

        monkeypatch.setattr("fastoci.files.write_all", torn)
        with pytest.raises(StoreError):
            async with shelf.store.lease([second]):
                pass
        monkeypatch.undo()
        async with shelf.store.lease([third]):
            gate = Collecting(shelf.store._paths)
            gate.read()
            assert gate.leased == {bytes.fromhex(blob.digest.hex) for blob in (first, third)}
    assert leases(shelf) == []


async def test_foreign_files_among_leases_are_read_as_leases_and_do_no_harm(shelf: Shelf) -> None:
    blob = await shelf.put(b"content")
    (shelf.path / "leases" / ("a" * 32)).write_bytes(b"\xff\x00:\n:::\nsha256:xyz\n" + b"sha256:" + b"0" * 64 + b"\n")
    assert await collect(shelf) == {str(blob.digest)}


async def test_who_may_not_write_reads_without_a_lease(
    shelf: Shelf, read_only: Callable[[Path], Path], open_shelf: OpenShelf
) -> None:
    blob = await shelf.put(b"content")
    sealed = open_shelf(read_only(shelf.path))
    async with sealed.store.keep([blob]):
        assert await sealed.store.read(blob) == b"content"
    with pytest.raises(StoreError):
        async with sealed.store.lease([blob]):
            pass
