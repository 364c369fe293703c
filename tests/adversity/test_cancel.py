"""Pulls cancelled at random instants, under a pool that poisons freed buffers.

``make cancel`` runs 10,000; the short form is part of ``make test``. The seed is printed on failure; set
``FASTOCI_SEED`` to repeat one.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fastoci.errors import FastociError
from fastoci.events import BlobStarted
from fastoci.testing.registry import Registry, serve
from support.engine_parts import NAMES, EngineParts, add_images, open_parts, shared_images

PULLS = int(os.environ.get("FASTOCI_CANCELS", "150"))
SEED = int(os.environ.get("FASTOCI_SEED", "0")) or random.randrange(1, 1 << 32)


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with serve(add_images(Registry(), shared_images())) as registry:
        yield registry


@pytest.mark.timeout(3000)
async def test_pulls_cancelled_at_random_leave_nothing_wrong_and_what_they_left_is_used(
    registry: Registry, tmp_path: Path
) -> None:
    print(f"seed {SEED}, {PULLS} pulls")
    draw = random.Random(SEED)
    store = tmp_path / "store"
    pulls = cancelled = resumed = 0
    async with open_parts(store) as parts:
        began = time.perf_counter()
        await parts.pull(registry.address, "one", tmp_path / "first")
        whole_s = time.perf_counter() - began
        files, _ = descriptors()
        while pulls < PULLS:
            forget(store, draw)
            before = left(store)
            parts.events.clear()
            ends = await storm(parts, registry, tmp_path, draw, whole_s)
            pulls += len(ends)
            cancelled += sum(isinstance(end, asyncio.CancelledError) for end in ends)
            resumed += check_resumes(parts, before)
            check(parts, store, files)
        for name in NAMES:
            await parts.pull(registry.address, name)
        check(parts, store, files)
    assert left(store) == {}, "a partial ingest that no pull used"
    assert not list(tmp_path.glob(".*")), "the private name of a rootfs is left"
    assert cancelled > PULLS / 4
    assert resumed > 0
    print(f"{pulls} pulls, {cancelled} cancelled in time, {resumed} blobs resumed")


async def storm(
    parts: EngineParts, registry: Registry, directory: Path, draw: random.Random, whole_s: float
) -> list[BaseException | None]:
    """A few pulls at once, each cancelled within the time that a whole one takes; how each ended."""
    pulls = []
    for _ in range(draw.choice((1, 1, 2, 4))):
        rootfs = directory / f"tree{draw.getrandbits(64):x}" if draw.random() < 0.3 else None
        pulls.append(asyncio.create_task(parts.pull(registry.address, draw.choice(NAMES), rootfs)))
    in_time = []
    for pull in pulls:
        await asyncio.sleep(draw.random() * whole_s / len(pulls))
        in_time.append(pull.cancel())
    ends = await asyncio.gather(*pulls, return_exceptions=True)
    assert in_time == [isinstance(end, asyncio.CancelledError) for end in ends], "a cancellation was lost"
    assert not [end for end in ends if isinstance(end, FastociError)]
    return ends


def forget(store: Path, draw: random.Random) -> None:
    """Delete some blobs, so that the next round has work."""
    for blob in (store / "blobs" / "sha256").iterdir():
        if draw.random() < 0.7:
            blob.unlink()


def left(store: Path) -> dict[str, int]:
    """The bytes that earlier pulls left of each blob, by hex digest."""
    return {entry.name: (entry / "data").stat().st_size for entry in (store / "ingest").iterdir()}


def descriptors() -> tuple[list[str], int]:
    """The files that are open, and how many sockets."""
    sockets, files = 0, []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("socket:"):
                sockets += 1
            else:
                files.append(target)
    return sorted(files), sockets


def check(parts: EngineParts, store: Path, files: list[str]) -> None:
    """Nothing is left running, open or wrong."""
    assert parts.pool.in_use == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    files_now, sockets = descriptors()
    assert files_now == files
    assert sockets < 64  # idle connections of both sides come and go
    for blob in (store / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def check_resumes(parts: EngineParts, before: dict[str, int]) -> int:
    """The first flight of each blob went on from what had been left; how many did not begin at 0."""
    first: dict[str, int] = {}
    for event in parts.events:
        if isinstance(event, BlobStarted):
            first.setdefault(event.blob.partition(":")[2], event.offset)
    for blob, offset in first.items():
        assert offset == before.get(blob, 0), f"{blob}: {before.get(blob, 0)} bytes were left, {offset} were used"
    return sum(offset > 0 for offset in first.values())
