"""Errors of the disk at each system call of a pull on the store and the tree, and of a gc.

``make kills`` takes all points; ``make test`` some, by a seed that is printed. ``FASTOCI_SEED`` repeats one.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from support import strace_log, syscall_injection
from support.crash_harness import CrashHarness
from support.syscall_injection import Point

POINTS = int(os.environ.get("FASTOCI_ERROR_POINTS", "4"))  # 0: all
SEED = int(os.environ.get("FASTOCI_SEED", "0")) or random.randrange(1, 1 << 32)
DISK_REFUSED = 8  # docs/exit-codes.md

ALWAYS = (("openat", "/unsynced"), ("mkdirat", "/rootfs"), ("pread64", "/blobs/sha256/"))  # in the sample, too

_WRITES = {"write", "pwrite64", "pwritev2", "fdatasync", "fsync", "renameat", "renameat2", "symlinkat", "linkat"}
_NEEDS_ROOM = _WRITES | {"mkdirat", "openat", "ftruncate", "fallocate", "fsetxattr", "utimensat"}


def _errors(point: Point) -> list[str]:
    """What the kernel may say there."""
    errors = ["EIO"]
    if point.call in _NEEDS_ROOM:
        errors.append("ENOSPC")
    if point.call == "openat":
        errors.append("EMFILE")
    return errors


@pytest.mark.timeout(7200)
def test_an_error_at_any_system_call_is_typed_or_harmless_and_the_next_run_completes(
    harness: CrashHarness, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    kinds = strace_log.CHANGING | strace_log.LOOKING
    done = strace_log.trace(harness.start(harness.command(), waits=True), ["-y"], log, calls=kinds)
    assert done.returncode == 0, done.stderr
    cases = [(point, error) for point in syscall_injection.points(log, harness.root, kinds) for error in _errors(point)]
    assert len(cases) > 400
    chosen = random.Random(SEED).sample(cases, min(POINTS or len(cases), len(cases)))
    for call, end in ALWAYS:
        chosen.append(next(case for case in cases if case[0].call == call and end in case[0].file))
    ends: Counter[str] = Counter()
    wrong: list[tuple[Point, str, str]] = []
    for point, error in chosen:
        harness.clear()
        struck = syscall_injection.strike(point, f"error={error}", harness.start(harness.command(), waits=True), log)
        ends[f"{error} {struck.code}" if struck.hit else "not hit"] += 1
        found = harness.wrongs() if struck.code else harness.incomplete()
        if struck.code not in (0, DISK_REFUSED):
            found.append(f"exit code {struck.code}: {struck.output}")
        wrong += [(point, error, line) for line in found + harness.finish()]
    print(f"seed {SEED}: {dict(ends)}")
    for case in wrong:
        print(*case)
    assert wrong == []
    assert ends["not hit"] <= 0.2 * len(chosen) + 2


@pytest.mark.timeout(7200)
def test_an_error_at_any_system_call_of_a_collection_takes_nothing_that_is_needed(
    harness: CrashHarness, older: Path, tmp_path: Path
) -> None:
    before, log = tmp_path / "before", tmp_path / "log"
    needed = harness.collectable(older, before)
    kinds = strace_log.CHANGING | strace_log.LOOKING
    done = strace_log.trace(harness.start(harness.gc_command(), waits=True), ["-y"], log, calls=kinds)
    assert done.returncode == 0, done.stderr
    cases = [(point, error) for point in syscall_injection.points(log, harness.root, kinds) for error in _errors(point)]
    assert {"unlinkat", "getdents64", "fcntl"} <= {point.call for point, _ in cases}
    chosen = random.Random(SEED).sample(cases, min(POINTS // 2 or len(cases), len(cases)))
    ends: Counter[str] = Counter()
    untyped: list[str] = []
    for point, error in chosen:
        harness.clear(before)
        struck = syscall_injection.strike(point, f"error={error}", harness.start(harness.gc_command(), waits=True), log)
        ends[f"{error} {struck.code}" if struck.hit else "not hit"] += 1
        context = f"seed {SEED}, {point}, {error}: {struck.code} {struck.output}"
        if struck.code not in (0, DISK_REFUSED):
            untyped.append(context)
        assert harness.wrongs() == [], context
        again = harness.gc()
        assert again.returncode == 0, f"{context}; then {again.stderr}"
        left = {path.name for path in harness.store.glob("blobs/*/*")}
        assert needed <= left, context
        assert len(left) == len(needed) + 1, context  # the layer that both images have
        assert harness.finish() == [], context
    print(f"seed {SEED}: {dict(ends)}")
    assert untyped == []
    assert ends["not hit"] <= 0.2 * len(chosen) + 2
