"""What a large blob leaves of the page cache and of the disk, on file systems with and without RWF_DONTCACHE."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci import _core
from support import ingest_process, strace_log
from support.store_shelf import Shelf
from support.warm_program import Ended, WarmProgram

SIZE = 40 << 20
OpenShelf = Callable[[Path], Shelf]


def _cached(path: Path) -> float:
    """Which part of a file is in the page cache."""
    count = -(-path.stat().st_size // mmap.PAGESIZE)
    pages = (ctypes.c_ubyte * count)()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as view:
        start = ctypes.c_char.from_buffer(view)
        address, size = ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(view))
        failed = ctypes.CDLL(None, use_errno=True).mincore(address, size, pages)
        del start
    assert not failed
    return sum(page & 1 for page in pages) / count


async def test_a_large_blob_leaves_the_page_cache_alone(real_disk: Path, open_shelf: OpenShelf) -> None:
    shelf = open_shelf(real_disk / "store")
    data = shelf.random(SIZE)
    blob = await shelf.put(data)
    assert _cached(shelf.file(blob)) < 0.1
    assert await shelf.store.read(blob) == data


async def test_a_blob_that_is_read_back_soon_stays_in_the_page_cache(real_disk: Path, open_shelf: OpenShelf) -> None:
    shelf = open_shelf(real_disk / "store")
    large = await shelf.put(shelf.random(SIZE), cached=True)
    document = await shelf.put(shelf.random(8192))
    assert _cached(shelf.file(large)) == _cached(shelf.file(document)) == 1


async def test_a_large_blob_goes_on_from_the_middle_of_a_page(real_disk: Path, open_shelf: OpenShelf) -> None:
    shelf = open_shelf(real_disk / "store")
    data = shelf.random(5_000_000)
    cut = 1_234_567
    blob = shelf.describe(data)
    for end in (cut, 2 * cut, 3 * cut):
        ingest = await shelf.store.blobs.begin(blob)
        assert ingest is not None
        assert ingest.offset == end - cut
        verifier = shelf.feed(ingest, data, until=end)
        ingest.checkpoint(end, verifier.state())
        await ingest.abort()
    assert await shelf.put(data) == blob
    assert await shelf.store.read(blob) == data


async def test_a_large_blob_has_its_blocks_at_once_and_keeps_those_it_fills(
    real_disk: Path, open_shelf: OpenShelf
) -> None:
    shelf = open_shelf(real_disk / "store")
    data = shelf.random(SIZE)
    blob = shelf.describe(data)
    ingest = await shelf.store.blobs.begin(blob)
    assert ingest is not None
    file = shelf.ingest(blob) / "data"
    assert file.stat().st_size == 0
    assert file.stat().st_blocks * 512 >= SIZE
    verifier = shelf.feed(ingest, data, until=3 << 20)
    ingest.checkpoint(3 << 20, verifier.state())
    await ingest.abort()
    assert file.stat().st_size == 3 << 20
    assert file.stat().st_blocks * 512 < 4 << 20
    await shelf.put(data)
    assert SIZE <= shelf.file(blob).stat().st_blocks * 512 < SIZE + (1 << 20)


async def test_blobs_written_at_the_same_time_do_not_interleave_on_the_disk(
    real_disk: Path, open_shelf: OpenShelf, peer: Callable[[str], str]
) -> None:
    filefrag = peer("filefrag")
    shelf = open_shelf(real_disk / "store")
    blobs = [shelf.describe(number.to_bytes(32 << 20)) for number in range(4)]
    ingests = [ingest for blob in blobs if (ingest := await shelf.store.blobs.begin(blob)) is not None]
    buffer = _core.Pool(1 << 20).take()
    assert buffer is not None
    buffer.append(bytes(1 << 20))
    for _ in range(32):
        for ingest in ingests:
            ingest.sink.feed(buffer)
    for ingest in ingests:
        file = shelf.ingest(ingest.blob) / "data"
        assert _extents(filefrag, file) <= 8
        await ingest.abort()


def _extents(filefrag: str, file: Path) -> int:
    printed = subprocess.run([filefrag, file], check=True, capture_output=True, text=True).stdout
    found = re.search(r"(\d+) extents? found", printed)
    assert found is not None, printed
    return int(found[1])


async def test_a_blob_that_would_fill_the_disk_takes_no_block_beforehand(
    small_disk: Path, open_shelf: OpenShelf
) -> None:
    shelf = open_shelf(small_disk / "store")
    free = os.statvfs(small_disk).f_bavail
    ingest = await shelf.store.blobs.begin(shelf.describe(shelf.random(9 << 20)))
    assert ingest is not None
    assert os.statvfs(small_disk).f_bavail > free - 100
    await ingest.abort()


@pytest.fixture
def strace(warm_program: WarmProgram) -> Callable[..., Ended]:
    """Runs ``ingest_process`` with failing system calls; its log is beside the store."""

    def run(store: Path, size: int, inject: str) -> Ended:
        words = map(str, (store, size, 0, 0))
        process = warm_program.start(*words, program=ingest_process.__name__, waits=True)
        options = ["-e", f"inject={inject}"]
        return strace_log.trace(process, options, Path(f"{store}.log"), calls=("pwritev2", "fadvise64"))

    return run


@pytest.mark.parametrize("error", ["EOPNOTSUPP", "EINVAL", "ENOSYS"])
async def test_without_dontcache_a_large_blob_is_advised_away_and_the_kernel_is_asked_once(
    real_disk: Path,
    open_shelf: OpenShelf,
    strace: Callable[..., Ended],
    error: str,
) -> None:
    store = real_disk / "store"
    done = strace(store, SIZE, f"pwritev2:error={error}")
    assert done.stdout.strip() == "0", done.stderr
    log = Path(f"{store}.log").read_text()
    assert log.count("pwritev2(") == 1
    assert log.count("POSIX_FADV_DONTNEED") >= SIZE >> 23
    shelf = open_shelf(store)
    blob = shelf.describe(ingest_process.content(SIZE))
    assert _cached(shelf.file(blob)) < 0.25
    assert await shelf.store.read(blob) == ingest_process.content(SIZE)


@pytest.mark.parametrize(("error", "kind"), [("EIO", "StoreError"), ("ENOSPC", "StoreFullError")])
async def test_a_failing_first_write_is_an_error_and_not_tried_another_way(
    tmp_path: Path, strace: Callable[..., Ended], error: str, kind: str
) -> None:
    done = strace(tmp_path / "store", 3 << 20, f"pwritev2:error={error}:when=1")
    assert done.stdout.split()[:2] == ["0", kind]
    assert Path(f"{tmp_path}/store.log").read_text().count("pwritev2(") == 1


async def test_a_killed_process_loses_only_what_its_checkpoint_does_not_cover_of_a_large_blob(
    real_disk: Path, open_shelf: OpenShelf, strace: Callable[..., Ended]
) -> None:
    store = real_disk / "store"
    size = 3_000_000
    # the first half takes two writes
    assert strace(store, size, "pwritev2:signal=SIGKILL:when=3").returncode == -signal.SIGKILL
    shelf = open_shelf(store)
    data = ingest_process.content(size)
    ingest = await shelf.store.blobs.begin(shelf.describe(data))
    if ingest is None or ingest.offset == 0:
        pytest.skip("this kernel or file system has no RWF_DONTCACHE")
    assert ingest.offset == size // 2
    await ingest.commit(shelf.feed(ingest, data).proof())
    assert await shelf.store.read(ingest.blob) == data
