"""Processes killed at each of their system calls on the store and the tree, and at random instants.

``make kills`` takes all points and 500 instants; ``make test`` some, by a seed that is printed. ``FASTOCI_SEED``
repeats one.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from support import strace_log, syscall_injection
from support.crash_harness import LAYERS, CrashHarness, image, stored_images
from support.syscall_injection import Point

POINTS = int(os.environ.get("FASTOCI_KILL_POINTS", "4"))  # 0: all
ENOUGH = 0.5 if POINTS else 0.9  # of the points; another order of threads may leave some out, of few many
INSTANTS = int(os.environ.get("FASTOCI_KILL_INSTANTS", "8"))
ROOTFS_INSTANTS = int(os.environ.get("FASTOCI_ROOTFS_KILLS", "3"))  # for each way of making a tree
TRIES = 3  # threads share the work out in another way each time
SEED = int(os.environ.get("FASTOCI_SEED", "0")) or random.randrange(1, 1 << 32)


def _points(harness: CrashHarness, log: Path, before: Path | None = None) -> list[Point]:
    harness.clear(before)
    done = strace_log.trace(harness.start(harness.command(), waits=True), ["-y"], log, calls=strace_log.CHANGING)
    assert done.returncode == 0, done.stderr
    assert harness.incomplete() == []
    return syscall_injection.points(log, harness.root, strace_log.CHANGING)


def _sample(points: list[Point], count: int) -> list[Point]:
    return random.Random(SEED).sample(points, min(count or len(points), len(points)))


def _kill_at(harness: CrashHarness, points: list[Point], log: Path, before: Path | None = None) -> int:
    """Kill a run at each point; how many were hit."""
    hits: Counter[str] = Counter()
    wrong = []
    for point in points:
        for _ in range(TRIES):
            harness.clear(before)
            struck = syscall_injection.strike(
                point, "signal=SIGKILL", harness.start(harness.command(), waits=True), log
            )
            assert struck.code == (-signal.SIGKILL if struck.hit else 0), struck
            if struck.hit:
                break
        hits[point.call] += struck.hit
        if before is not None and not list(harness.store.glob("refs/*/*")):
            wrong.append((point, "the old reference is gone"))
        wrong += [(point, line) for line in harness.wrongs() + harness.finish()]
    print(f"seed {SEED}: {hits.total()} of {len(points)} points hit: {dict(hits.most_common())}")
    assert wrong == []
    return hits.total()


@pytest.mark.timeout(7200)
def test_a_kill_at_any_system_call_of_a_first_pull_leaves_nothing_wrong(harness: CrashHarness, tmp_path: Path) -> None:
    points = _points(harness, tmp_path / "log")
    kinds = Counter(point.call for point in points)
    assert {"renameat", "fsync", "fdatasync", "pwrite64", "mkdirat", "unlinkat", "renameat2", "fcntl"} <= kinds.keys()
    assert kinds.total() > 200
    chosen = _sample(points, POINTS)
    hits = _kill_at(harness, chosen, tmp_path / "log")
    assert hits >= ENOUGH * len(chosen)


@pytest.mark.timeout(7200)
def test_a_kill_at_any_system_call_of_a_reference_update_leaves_the_old_or_the_new(
    harness: CrashHarness, older: Path, tmp_path: Path
) -> None:
    points = _points(harness, tmp_path / "log", older)
    views = [point for point in points if "/refs" in point.file or "index.json" in point.file]
    assert len(views) > 15
    chosen = _sample(views, POINTS // 2)
    assert _kill_at(harness, chosen, tmp_path / "log", older) >= ENOUGH * len(chosen)


@pytest.mark.timeout(7200)
def test_a_kill_at_any_system_call_of_a_collection_takes_nothing_that_is_needed(
    harness: CrashHarness, older: Path, tmp_path: Path
) -> None:
    before, log = tmp_path / "before", tmp_path / "log"
    needed = harness.collectable(older, before)
    done = strace_log.trace(harness.start(harness.gc_command(), waits=True), ["-y"], log, calls=strace_log.CHANGING)
    assert done.returncode == 0, done.stderr
    points = syscall_injection.points(log, harness.root, strace_log.CHANGING)
    assert sum(point.call == "unlinkat" for point in points) >= 2
    hits = 0
    for point in (chosen := _sample(points, POINTS // 2)):
        for _ in range(TRIES):
            harness.clear(before)
            if syscall_injection.strike(
                point, "signal=SIGKILL", harness.start(harness.gc_command(), waits=True), log
            ).hit:
                hits += 1
                break
        assert harness.wrongs() == [], point
        again = harness.gc()
        assert again.returncode == 0, (point, again.stderr)
        left = {path.name for path in harness.store.glob("blobs/*/*")}
        assert needed <= left, point
        assert len(left) == len(needed) + 1, point  # the layer that both images have
        assert list(harness.store.glob("leases/[!.]*")) == []
        assert harness.finish() == [], point
    print(f"seed {SEED}: {hits} of {len(chosen)} points of gc hit")
    assert hits >= ENOUGH * len(chosen)


def _layer_files(store: Path) -> dict[str, str]:
    """Layer files and merged metadata by name, hashed."""
    found = [*store.glob("layers/*/*/*.erofs"), *store.glob("layers/merge/*.erofs"), *store.glob("images/*.erofs")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.mark.timeout(7200)
def test_a_kill_at_any_system_call_of_a_pull_that_keeps_layers_leaves_only_whole_ones(
    harness: CrashHarness, tmp_path: Path
) -> None:
    command, log = [*harness.command(rootfs=False), "--layers", "erofs"], tmp_path / "log"
    harness.clear()
    done = strace_log.trace(harness.start(command, waits=True), ["-y"], log, calls=strace_log.CHANGING)
    assert done.returncode == 0, done.stderr
    whole = _layer_files(harness.store)
    assert len(whole) == len(LAYERS) + 1
    places = ("/layers", "/images", "/ingest/layer-", "/ingest/image-")
    points = [
        point
        for point in syscall_injection.points(log, harness.root, strace_log.CHANGING)
        if any(place in point.file for place in places)
    ]
    assert {"renameat", "fsync", "pwrite64", "fchmod"} <= {point.call for point in points}
    hits = 0
    for point in (chosen := _sample(points, POINTS // 2)):
        for _ in range(TRIES):
            harness.clear()
            struck = syscall_injection.strike(point, "signal=SIGKILL", harness.start(command, waits=True), log)
            hits += struck.hit
            if struck.hit:
                break
        assert _layer_files(harness.store).items() <= whole.items(), point
        again = harness.run(command)
        assert again.returncode == 0, (point, again.stderr)
        assert _layer_files(harness.store) == whole, point
    print(f"seed {SEED}: {hits} of {len(chosen)} points hit")
    assert hits >= ENOUGH * len(chosen)


PROD = ("--list-name", "prod", "--prune", "--pin")


def _list_store(harness: CrashHarness, to: Path) -> None:
    """Put a store in ``to`` that has ``user:1``, which somebody pulled, and ``old:1``, which a list brought."""
    for name, layers in (("user", LAYERS[:1]), ("old", LAYERS[2:])):
        harness.registry.add_image(name, "1", image(layers))
    harness.clear()
    for command in (
        harness.prefetch_command("user:1"),
        harness.prefetch_command("old:1", options=PROD),
    ):
        done = harness.run(command)
        assert done.returncode == 0, done.stderr
    shutil.copytree(harness.store, to)


def _list_of(harness: CrashHarness) -> dict[str, tuple[bool, bool, bool]]:
    """The images, each with whether the list wants it, whether only lists brought it, and whether it is pinned."""
    return {
        name.rpartition("/")[2]: ("prod" in each.lists, each.is_brought, each.pinned)
        for name, each in stored_images(harness.store).items()
    }


@pytest.mark.timeout(7200)
def test_a_kill_at_any_system_call_of_a_prune_loses_nothing_of_the_list_and_takes_nothing_else(
    harness: CrashHarness, tmp_path: Path
) -> None:
    before, log = tmp_path / "before", tmp_path / "log"
    _list_store(harness, before)
    command = harness.prefetch_command("app:1", "user:1", options=PROD)
    harness.clear(before)
    done = strace_log.trace(harness.start(command, waits=True), ["-y"], log, calls=strace_log.CHANGING)
    assert done.returncode == 0, done.stderr
    whole = {"app:1": (True, True, True), "user:1": (True, False, True)}
    assert _list_of(harness) == whole
    points = syscall_injection.points(log, harness.root, strace_log.CHANGING)
    chosen = _sample([point for point in points if "/refs" in point.file or "/lists" in point.file], POINTS // 2)
    hits = 0
    for point in chosen:
        for _ in range(TRIES):
            harness.clear(before)
            if syscall_injection.strike(point, "signal=SIGKILL", harness.start(command, waits=True), log).hit:
                hits += 1
                break
        assert harness.wrongs() == [], point
        left = _list_of(harness)
        assert left.pop("user:1") in ((False, False, False), whole["user:1"]), point
        assert set(left.values()) <= {(True, True, True)}, point  # all of it can still be pruned
        assert left, point
        again = harness.run(command)
        assert again.returncode == 0, (point, again.stderr)
        assert _list_of(harness) == whole, point
    emptied = harness.run(harness.prefetch_command(options=(*PROD[:3], "--allow-empty")))
    assert emptied.returncode == 0, emptied.stderr
    assert _list_of(harness) == {"user:1": (False, False, False)}
    print(f"seed {SEED}: {hits} of {len(chosen)} points of a prune hit")
    assert hits >= ENOUGH * len(chosen)


def _pull_s(harness: CrashHarness) -> float:
    """How long a pull takes that nothing hurts."""
    began = time.monotonic()
    assert harness.pull().returncode == 0
    taken_s = time.monotonic() - began
    assert harness.incomplete() == []
    return taken_s


@pytest.mark.timeout(7200)
def test_kills_at_random_instants_leave_nothing_wrong(harness: CrashHarness) -> None:
    draw = random.Random(SEED)
    killed = finished = 0
    harness.clear()
    for number in range(INSTANTS):
        if not harness.store.exists():
            whole_s = _pull_s(harness)
            harness.clear()
        process = harness.start(harness.command())
        time.sleep(whole_s * draw.uniform(0.05, 0.9))
        process.send_signal(signal.SIGKILL)
        code = process.wait().returncode
        killed += code == -signal.SIGKILL
        wrong = harness.wrongs()
        if code == 0 or draw.random() < 0.25:
            wrong += harness.finish()
            finished += 1
            harness.clear()
        assert wrong == [], f"seed {SEED}, kill {number}"
    print(f"seed {SEED}: {killed} of {INSTANTS} killed in time, {finished} runs to the end")
    assert killed > INSTANTS / 2


def has_names(tree: Path) -> bool:
    """Whether any of the tree's own names is there."""
    return tree.exists() and any(name != "lost+found" and not name.startswith(".") for name in os.listdir(tree))


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("is_inside", [False, True], ids=["beside", "inside"])
def test_the_same_command_after_a_kill_at_any_instant_ends_well_with_the_right_tree(
    harness: CrashHarness, is_inside: bool
) -> None:
    draw = random.Random(SEED)
    harness.is_inside = is_inside
    harness.clear()
    whole_s = _pull_s(harness)
    killed = there = 0
    for number in range(4 * ROOTFS_INSTANTS):
        if killed == ROOTFS_INSTANTS:
            break
        harness.clear()
        process = harness.start(harness.command())
        after_s = whole_s * draw.uniform(0.05, 0.9)
        if number % 2:  # from the first name of the tree on: the reference is not recorded yet
            while not (has_names(harness.tree) or process.poll() is not None):
                time.sleep(0.0005)
            after_s = whole_s * draw.uniform(0, 0.05)
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        is_killed = process.wait().returncode == -signal.SIGKILL
        killed += is_killed
        there += is_killed and has_names(harness.tree)
        assert harness.wrongs() + harness.finish() == [], f"seed {SEED}, kill {number}"
    print(f"seed {SEED}: {killed} kills, files of a tree were there after {there}")
    assert killed == ROOTFS_INSTANTS
