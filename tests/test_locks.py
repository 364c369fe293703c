"""Locks between processes: held until they are closed or their holder dies, and never on a file that is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from fastoci import locks
from fastoci.directory import Directory
from fastoci.errors import StoreBusyError, StoreError
from support.scratch import SOURCE

HOLD = """
import os, sys
from fastoci import locks
from fastoci.directory import Directory
directory = Directory(os.open(sys.argv[1], os.O_PATH), sys.argv[1])
assert locks.acquire(directory, "lock", wait=False, byte=eval(sys.argv[2])) is not None
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    with Directory(os.open(tmp_path, os.O_PATH | os.O_CLOEXEC), str(tmp_path)) as opened:
        yield opened


@contextmanager
def holder(directory: Directory, byte: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock ``lock``, or one byte of it, until it ends."""
    command = [sys.executable, "-c", HOLD, directory.path, repr(byte)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_lock_is_held_until_its_holder_dies(directory: Directory) -> None:
    with holder(directory) as process:
        assert locks.acquire(directory, "lock", wait=False) is None
        assert locks.is_held(directory, "lock")
        process.kill()
        process.wait()
        assert not locks.is_held(directory, "lock")
        fd = locks.acquire(directory, "lock", wait=False)
        assert fd is not None
        os.close(fd)


def test_a_lock_of_one_byte_leaves_the_others_free(directory: Directory) -> None:
    with holder(directory, byte=7):
        assert locks.is_held(directory, "lock", byte=7)
        assert locks.is_held(directory, "lock")
        assert not locks.is_held(directory, "lock", byte=8)
        assert locks.acquire(directory, "lock", wait=False, byte=7) is None
        fd = locks.acquire(directory, "lock", wait=False, byte=8)
        assert fd is not None
        os.close(fd)


def test_a_file_that_is_not_there_is_not_held_and_not_made(directory: Directory) -> None:
    assert not locks.is_held(directory, "lock")
    assert not directory.has("lock")


def test_a_lock_on_a_file_that_was_unlinked_meanwhile_does_not_count(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = locks.try_lock
    gone: list[int] = []

    def unlinked(fd: int, *, byte: int | None = None) -> bool:
        if not gone:
            gone.append(os.fstat(fd).st_ino)
            os.unlink(directory.at("lock"))
        return real(fd, byte=byte)

    monkeypatch.setattr(locks, "try_lock", unlinked)
    takes = (partial(locks.acquire, directory, "lock", wait=False), partial(locks.lock_at, directory.fd, "lock"))
    for take in takes:
        gone.clear()
        fd = take()
        assert fd is not None
        assert gone
        assert os.fstat(fd).st_ino == directory.stat("lock").st_ino
        os.close(fd)


def test_a_lock_lets_nobody_else_open_its_file(directory: Directory) -> None:
    path = Path(directory.at("lock"))
    path.touch()
    path.chmod(0o644)
    fd = locks.acquire(directory, "lock", wait=False)
    assert fd is not None
    assert path.stat().st_mode & 0o777 == 0o600
    os.close(fd)


def test_what_is_no_regular_file_is_no_lock(directory: Directory) -> None:
    os.mkfifo(directory.at("lock"))
    with pytest.raises(StoreError, match="not a regular file"):
        locks.acquire(directory, "lock", wait=False)
    with pytest.raises(OSError, match="not a regular file"):
        locks.lock_at(directory.fd, "lock")


def test_a_lock_that_is_there_only_while_it_is_held_says_who_is_in_the_way(directory: Directory) -> None:
    path = directory.at("lock")
    with locks.locked_at(directory.fd, "lock", path):
        again = locks.locked_at(directory.fd, "lock", path)
        with pytest.raises(StoreBusyError, match="locked by another process") as caught, again:
            pytest.fail("two have it")
        assert caught.value.path == path
        assert directory.has("lock")
    assert not directory.has("lock")
