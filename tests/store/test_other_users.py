"""Other users of the machine: they swap what is on the way to a store, hold what they can lock, are in its group.

Covers: directory.py, store/trust.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fastoci import locks
from fastoci.errors import FastociError, StoreError
from fastoci.image.mediatype import OCI_CONFIG, OCI_MANIFEST
from fastoci.image.stored_image import StoredImage
from fastoci.store.gc.retention import Retention
from fastoci.store.opening import open_store
from fastoci.store.verify_cursor import CursorFile
from support.attacker import UID, Attacker, scene
from support.scratch import SOURCE, scratch
from support.store_shelf import Shelf

OpenShelf = Callable[[Path], Shelf]
NAME = "registry.test/app:1"
WHEN = "2023-11-14T22:13:20Z"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and another user")


async def image(shelf: Shelf, name: str = NAME) -> StoredImage:
    """A reference that is recorded, and all that it needs."""
    config, layer = await shelf.put(b"{}", media_type=OCI_CONFIG), await shelf.put(name.encode())
    names = [{"mediaType": each.media_type, "digest": str(each.digest), "size": each.size} for each in (config, layer)]
    raw = json.dumps({"schemaVersion": 2, "config": names[0], "layers": names[1:]}).encode()
    manifest = await shelf.put(raw, media_type=OCI_MANIFEST)
    ref = StoredImage(name, manifest, {"linux/amd64": manifest}, WHEN)
    await shelf.record(ref)
    return ref


async def begin_and_leave(shelf: Shelf) -> None:
    data = shelf.random(100_000)
    ingest = await shelf.store.blobs.begin(shelf.describe(data))
    assert ingest is not None
    verifier = shelf.feed(ingest, data, until=50_000)
    ingest.checkpoint(50_000, verifier.state())
    await ingest.abort()


async def collect(shelf: Shelf) -> None:
    await shelf.store.gc(await shelf.store.plan_gc(Retention(max_count=0)))


async def verify(shelf: Shelf) -> None:
    turn = CursorFile(shelf.store.paths)
    turn.save("sha256:00", [])
    turn.close()


async def mark(shelf: Shelf) -> None:
    shelf.store.blobs.unsynced.mark([shelf.describe(b"marked").digest])


OPERATIONS: dict[str, Callable[[Shelf], Awaitable[object]]] = {
    "a blob": lambda shelf: shelf.put(b"new"),
    "a part of a blob": begin_and_leave,
    "an image": lambda shelf: image(shelf, "registry.test/new:1"),
    "a pin": lambda shelf: shelf.store.pin(NAME, True),
    "a removal": lambda shelf: shelf.store.forget(NAME),
    "index.json": lambda shelf: shelf.store.update_index(),
    "gc": collect,
    "verify": verify,
    "a marker": mark,
    "last use": lambda shelf: asyncio.to_thread(shelf.store.refs.touch, NAME),
}


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """All that is there, and when it was changed."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (root, *sorted(root.rglob("*"))):
        info = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        found[str(path)] = info.st_mode, info.st_ino, info.st_mtime_ns, info.st_ctime_ns, data
    return found


@pytest.mark.attack
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_store_that_was_swapped_for_a_link_is_gone_on_with_where_it_is(
    shelf: Shelf, tmp_path: Path, operation: str
) -> None:
    await image(shelf)
    await shelf.put(b"of no image")
    os.utime(shelf.store.paths.ref_path(NAME), (0, 0))
    canary, moved = tmp_path / "canary", tmp_path / "store.moved"
    shutil.copytree(shelf.path, canary)
    shelf.path.rename(moved)
    shelf.path.symlink_to(canary)
    before, own = tree(canary), tree(moved)
    await OPERATIONS[operation](shelf)
    assert tree(canary) == before
    assert tree(moved) != own


@pytest.mark.attack
async def test_what_is_read_is_of_the_store_that_was_opened(shelf: Shelf, tmp_path: Path) -> None:
    blob = await shelf.put(b"right")
    ref = await image(shelf)
    shelf.path.rename(tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", shelf.path)
    shelf.file(blob).chmod(0o644)
    shelf.file(blob).write_bytes(b"wrong")
    shutil.rmtree(shelf.path / "refs")
    assert await shelf.store.read(blob) == b"right"
    assert await shelf.store.image(NAME) == ref
    assert await shelf.store.missing([blob]) == []


@pytest.mark.attack
@pytest.mark.parametrize("kind", ["sticky", "theirs"])
def test_no_act_between_two_calls_leads_a_store_elsewhere(kind: str) -> None:
    done = 0

    async def use(target: Path) -> None:
        nonlocal done
        shelf = Shelf(target)
        try:
            await shelf.put(b"of no image")
            await collect(shelf)
            done += 1
        finally:
            shelf.store.close()

    def operation(target: Path) -> None:
        with suppress(FastociError):
            asyncio.run(use(target))

    with scene(kind) as at:
        assert Attacker(at).between(operation) > 200
    assert done


IMPORTS = "import fcntl, os, pathlib, struct, sys; from fastoci.store.store import Store\n"


@contextmanager
def another_user(program: str, *arguments: str) -> Iterator[None]:
    """A process of another user, which prints a line when it is ready. Imports come before it is that user."""
    become = f"os.setgroups([]); os.setresgid(*[{UID}] * 3); os.setresuid(*[{UID}] * 3)\n"
    command = [sys.executable, "-c", IMPORTS + become + program, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


HOLD_ALL = """
held = 0
for directory, _, names in os.walk(sys.argv[1]):
    for path in (directory, *(os.path.join(directory, name) for name in names)):
        try:
            fd = os.open(path, os.O_RDONLY)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path != directory:
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))
            held += 1
        except OSError:
            pass
print("ready" if held > int(sys.argv[2]) else held, flush=True)
sys.stdin.read()
"""


@needs_root
@pytest.mark.attack
async def test_who_locks_all_that_others_may_read_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "WAIT_S", 0.5)
    with scratch("locks") as place:
        place.chmod(0o755)
        shelf = Shelf(place / "store")
        try:
            await image(shelf)
            await verify(shelf)
            with another_user(HOLD_ALL, str(shelf.path), "8"):
                await image(shelf, "registry.test/new:1")
                await begin_and_leave(shelf)
                await shelf.store.update_index()
                await verify(shelf)
                await collect(shelf)
        finally:
            shelf.store.close()
        found = {path for path in shelf.path.rglob("*") if path.name in (".lock", "lock", ".gate")}
        assert len(found) > 4
        assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}


HOLD = """
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))
print("ready", flush=True)
sys.stdin.read()
"""


@needs_root
@pytest.mark.attack
@pytest.mark.parametrize("name", [".lock", "leases/.gate"])
async def test_a_lock_that_was_readable_holds_nobody_for_ever_and_is_readable_no_more(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "WAIT_S", 0.5)
    with scratch("locks") as place:
        place.chmod(0o755)
        shelf = Shelf(place / "store")
        try:
            await image(shelf)
            await collect(shelf)
            path = shelf.path / name
            path.parent.chmod(0o755)
            path.chmod(0o644)
            with another_user(HOLD, str(path)):
                with pytest.raises(StoreError):
                    async with shelf.store.lease([]):
                        await shelf.store.update_index()
                        await image(shelf, "registry.test/new:1")
                        await shelf.store.update_index()
                if name == ".lock":
                    assert stat.S_IMODE(path.stat().st_mode) == 0o600
            await shelf.store.update_index()
            await collect(shelf)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        finally:
            shelf.store.close()


def test_a_wait_for_a_lock_ends_with_it_or_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = open_store(tmp_path)
    held = locks.acquire(paths.top, "mine", wait=True)
    assert held is not None
    threading.Timer(0.3, os.close, [held]).start()
    again = locks.acquire(paths.top, "mine", wait=True)
    assert again is not None
    monkeypatch.setattr(locks, "WAIT_S", 0.1)
    with pytest.raises(StoreError, match="locked by somebody else") as caught:
        locks.acquire(paths.top, "mine", wait=True)
    assert caught.value.path == str(tmp_path / "mine")
    os.close(again)
    paths.close()


@pytest.mark.attack
async def test_a_wait_for_a_lock_ends_with_the_task(shelf: Shelf) -> None:
    """Or a process that was stopped with a lock would keep all others from their end."""
    paths = open_store(shelf.path)
    held = locks.acquire(paths.top, ".lock", wait=True)
    assert held is not None
    task = asyncio.create_task(shelf.store.update_index())
    await asyncio.sleep(0.1)
    assert not task.done()
    task.cancel()
    async with asyncio.timeout(locks.WAIT_S / 6):
        await asyncio.wait([task])
    assert task.cancelled()
    os.close(held)
    paths.close()


@needs_root
@pytest.mark.attack
def test_a_lock_of_another_user_is_none(tmp_path: Path) -> None:
    paths = open_store(tmp_path)
    (tmp_path / "theirs").touch()
    os.chown(tmp_path / "theirs", UID, UID)
    with pytest.raises(StoreError, match=f"belongs to user {UID}"):
        locks.acquire(paths.top, "theirs", wait=False)
    paths.close()


@needs_root
@pytest.mark.attack
@pytest.mark.parametrize("name", [".", "blobs", "blobs/sha256", "ingest", "refs", "leases"])
def test_a_directory_that_a_shared_group_may_write_is_refused(tmp_path: Path, name: str) -> None:
    store = tmp_path / "store"
    open_store(store).close()
    (store / name).chmod(0o775)
    open_store(store).close()  # root's own group has no other members
    os.chown(store / name, 0, 100)
    with pytest.raises(StoreError, match="written by group 100") as caught:
        open_store(store)
    assert caught.value.path == str(store / name).removesuffix("/.")


@needs_root
@pytest.mark.attack
def test_an_access_list_that_lets_others_write_is_seen(tmp_path: Path) -> None:
    open_store(tmp_path / "store").close()
    entries = [(1, 7, -1), (2, 7, UID), (4, 5, -1), (16, 7, -1), (32, 5, -1)]  # owner, a user, group, mask, others
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr(tmp_path / "store" / "blobs", "system.posix_acl_access", acl)
    with pytest.raises(StoreError, match="written by group"):
        open_store(tmp_path / "store")


@needs_root
@pytest.mark.attack
def test_a_store_of_ones_own_below_directories_that_may_not_be_listed() -> None:
    program = """
Store.at(pathlib.Path(sys.argv[1])).close()
print("ready", flush=True)
"""
    with scratch("unlisted") as place:
        place.chmod(0o711)
        (place / "store").mkdir()
        os.chown(place / "store", UID, UID)
        with another_user(program, str(place / "store")):
            assert (place / "store" / "fastoci.json").is_file()


async def test_a_closed_store_has_no_descriptors_and_does_nothing_more(tmp_path: Path, open_shelf: OpenShelf) -> None:
    before = set(os.listdir("/proc/self/fd"))
    shelf = open_shelf(tmp_path / "store")
    ref = await image(shelf)
    held = {int(name) for name in set(os.listdir("/proc/self/fd")) - before if os.path.exists(f"/proc/self/fd/{name}")}
    directories = [fd for fd in held if stat.S_ISDIR(os.fstat(fd).st_mode)]
    assert 0 < len(directories) < 10
    assert not any(map(os.get_inheritable, directories))
    shelf.store.close()
    left = {os.readlink(f"/proc/self/fd/{fd}") for fd in held if os.path.exists(f"/proc/self/fd/{fd}")}
    assert not [path for path in left if path.startswith(str(tmp_path))]
    with pytest.raises(StoreError, match="Bad file descriptor"):
        shelf.store.open(ref.descriptor)
    with pytest.raises(StoreError, match="Bad file descriptor"):
        shelf.store.refs.remove(NAME)


@pytest.mark.attack
def test_a_directory_that_took_a_new_ones_place_keeps_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns the directory above may move what root has there, and need not be able to read it."""
    private, store = tmp_path / "private", tmp_path / "store"
    private.mkdir(0o700)
    (private / "file").touch()
    make = os.mkdir

    def make_and_swap(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        make(path, mode, dir_fd=dir_fd)
        store.rename(tmp_path / "away")
        private.rename(store)

    monkeypatch.setattr(os, "mkdir", make_and_swap)
    with pytest.raises(StoreError, match="is not a store"):
        open_store(store)
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
