"""A disk that gets full, of bytes or of inodes, at many levels: what was finished stays, and room lets it go on.

``make kills`` takes 50 levels of each; ``make test`` some, by a seed that is printed. ``FASTOCI_SEED`` repeats one.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fastoci.testing.registry import Registry
from support import disks
from support.crash_harness import CrashHarness
from support.scratch import scratch
from support.warm_program import WarmProgram

LEVELS = int(os.environ.get("FASTOCI_FULL_LEVELS", "5"))
SEED = int(os.environ.get("FASTOCI_SEED", "0")) or random.randrange(1, 1 << 32)
DISK_REFUSED = 8  # docs/exit-codes.md
BYTES = 23 << 20  # free at most: nearly the whole disk, which is enough for what is looked for before a pull
INODES = 48  # the same


@pytest.fixture
def harness(registry: Registry, warm_program: WarmProgram) -> Iterator[CrashHarness]:
    """On an ext4 of 24 MiB and 128 inodes."""
    with scratch("full") as directory, disks.disk(directory, "ext4", 24 << 20, "-F", "-m", "0", "-N", "128") as disk:
        yield CrashHarness(disk, registry, warm_program)


def _leave_bytes(root: Path, free: int) -> None:
    """Fill the disk but for about so many bytes."""
    with (root / "filler").open("wb", buffering=0) as filler:
        room = os.statvfs(root)
        os.posix_fallocate(filler.fileno(), 0, max(1, room.f_bavail * room.f_frsize - free))
        os.fsync(filler.fileno())


def _leave_inodes(root: Path, free: int) -> None:
    fillers = root / "fillers"
    fillers.mkdir()
    with suppress(OSError):
        for number in range(1000):
            (fillers / str(number)).touch()
    for number in range(free):
        (fillers / str(number)).unlink()


def _blobs(harness: CrashHarness) -> set[str]:
    return {path.name for path in harness.store.glob("blobs/*/*")}


def _fetched_whole(registry: Registry) -> set[str]:
    return {record.path.rpartition(":")[2] for record in registry.log if "/blobs/" in record.path and not record.range}


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", ["bytes", "inodes"])
def test_a_pull_onto_a_full_disk_names_the_lack_and_goes_on_when_there_is_room(
    harness: CrashHarness, kind: str
) -> None:
    draw = random.Random(SEED)
    most = BYTES if kind == "bytes" else INODES
    ends: Counter[str] = Counter()
    for number in range(LEVELS):
        free = int((number + draw.random()) * most / LEVELS)
        harness.clear()
        if kind == "bytes":
            _leave_bytes(harness.root, free)
        else:
            _leave_inodes(harness.root, free)
        done = harness.pull()
        context = f"seed {SEED}, {free} {kind} free: {done.returncode} {done.stderr}"
        assert done.returncode in (0, DISK_REFUSED), context
        assert (harness.wrongs() if done.returncode else harness.incomplete()) == [], context
        if done.returncode:
            assert re.search(r"No space left on device|[0-9] inodes|[0-9] [kMG]?B", done.stderr), context
        kept = _blobs(harness)
        ends[f"{done.returncode}, {len(kept)} blobs"] += 1
        _make_room(harness.root)
        harness.registry.log.clear()
        assert harness.finish() == [], context
        assert _blobs(harness) >= kept
        assert not kept & _fetched_whole(harness.registry), context
    print(f"seed {SEED}: {dict(ends)}")
    assert {end[0] for end in ends} == {"0", "8"}


def _make_room(root: Path) -> None:
    (root / "filler").unlink(missing_ok=True)
    for path in (root / "fillers").glob("*"):
        path.unlink()
