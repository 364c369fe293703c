"""Leases: what running jobs need, before any reference says so; what gc spares beside the references.

How a job and a collector cannot miss each other, without a lock held by either for long:

1. A job writes its digests into its lease, **then** waits until no sweep is under way, then checks which blobs are
   there. A sweep that began before the write is over by the check; one that begins after it reads the lease first.
2. A job records its references, **then** asks whether a collector is at work, and deletes its lease only if none is.
   A collector that comes later finds the references; one that is at work finds the lease, also of a job that ended.
3. A lease is alive while its file is locked. Only a collector that is alone, and before it reads the references, takes
   a lease that is not locked for dead.

Knows neither blobs nor references. Spec: docs/store-format.md 8.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from typing import Final

import msgspec

from fastoci import files, locks
from fastoci.errors import StoreBusyError, StoreError
from fastoci.image.digest import Digest
from fastoci.store.layout import GATE, StoreLayout
from fastoci.threads import Threads

_COLLECTING, _SWEEPING = 0, 1  # bytes of the gate that a collector locks
_USES: Final = 256  # jobs in one file; then a new one is begun, so that a busy program's does not grow for ever
_PAUSE_S: Final = (0.001, 0.005)  # between looks at a sweep, which takes some milliseconds
_SIZE: Final = 64 << 20  # bytes of a lease that are read at once
_NAME: Final = re.compile(r"[0-9a-f]{32}")


class _File(msgspec.Struct):
    """A lease that is locked by this process."""

    name: str
    fd: int
    users: int = 0
    uses: int = 0


class Leases:
    """The leases of one process on a store. Jobs that overlap share a file, so that a thousand need one descriptor."""

    def __init__(self, paths: StoreLayout, boot_id: str, threads: Threads) -> None:
        self._paths = paths
        self._boot_id = boot_id
        self._threads = threads
        self._guard = threading.Lock()
        self._current: _File | None = None

    @asynccontextmanager
    async def protect(self, digests: Iterable[Digest]) -> AsyncIterator[None]:
        """Keep blobs from gc, those that are there and those to come, until the references to them are recorded.

        Raises:
            StoreError: the disk refused.
        """
        lines = b"".join(b"%s\n" % str(digest).encode() for digest in digests)
        file, cancelled = await self._threads.run_to_end(lambda: self._enter(lines))
        try:
            if cancelled:
                raise asyncio.CancelledError
            await self._pass()
            yield
        finally:
            await self._threads.run(lambda: self._leave(file))

    async def _pass(self) -> None:
        """Return when a moment was seen in which nothing is swept.

        Raises:
            StoreError: there was none for longer than any sweep takes.
        """
        until = time.monotonic() + locks.WAIT_S
        while await self._threads.run(self._is_swept):
            if time.monotonic() > until:
                path = self._paths.leases.at(GATE)
                raise StoreError(f"{path} was locked by somebody else for {locks.WAIT_S:.0f} s", path=path)
            await asyncio.sleep(random.uniform(*_PAUSE_S))

    def _enter(self, lines: bytes) -> _File:
        with self._guard, files.translated("write a lease below", f"{self._paths.root}/leases", wanted=len(lines)):
            file = self._current
            if file is None or file.uses >= _USES:
                file = self._current = self._create()
            file.users += 1
            file.uses += 1
            try:
                files.write_all(file.fd, lines)
            except BaseException:
                self._drop(file)  # what follows a torn line would not count
                raise
            return file

    def _create(self) -> _File:
        name = uuid.uuid4().hex
        fd = locks.acquire(self._paths.make("leases", 0o700), name, wait=True)
        assert fd is not None
        about = {"boot_id": self._boot_id, "pid": os.getpid(), "started_at": datetime.now(UTC).isoformat()}
        file = _File(name, fd)
        try:
            files.write_all(fd, json.dumps(about).encode() + b"\n")
        except BaseException:
            self._end(file)
            raise
        return file

    def _leave(self, file: _File) -> None:
        with self._guard, files.translated("delete", self._paths.leases.at(file.name)):
            self._drop(file, begun=True)

    def _drop(self, file: _File, *, begun: bool = False) -> None:
        """One user fewer. A file that could not be written gets no more of them."""
        file.users -= 1
        if self._current is file and (not begun or not file.users):
            self._current = None
        if not file.users:
            self._end(file)

    def _end(self, file: _File) -> None:
        try:
            if not locks.is_held(self._paths.leases, GATE, byte=_COLLECTING):
                self._paths.leases.unlink(file.name)
        finally:
            files.close(file.fd)

    def _is_swept(self) -> bool:
        leases = self._paths.leases
        with files.translated("stat", leases.at(GATE)):
            return locks.is_held(leases, GATE, byte=_SWEEPING)


class Collecting:
    """The collector's side: at most one at a time holds the store's gate. Made by ``collecting``.

    ``leased`` are the digests that leases name, as raw bytes, as of the last ``sweeping`` or ``read``.
    """

    def __init__(self, paths: StoreLayout) -> None:
        self.leased: set[bytes] = set()
        self._paths = paths
        self._read: dict[str, int] = {}  # bytes of each lease that are known

    def drop_dead_leases(self) -> int:
        """Delete the leases of jobs that are over, and count them; before the references are read."""
        count = 0
        with files.translated("list", f"{self._paths.root}/leases"):
            for name in _names(self._paths):
                with suppress(FileNotFoundError):
                    held = locks.acquire(self._paths.leases, name, wait=False)
                    if held is not None:
                        self._paths.leases.unlink(name)
                        files.close(held)
                        count += 1
        return count

    def read(self, *, living: bool = False) -> None:
        """Read what leases have come to say since the last time; of ``living`` jobs alone, or of all."""
        with files.translated("read", f"{self._paths.root}/leases"):
            for name in _names(self._paths):
                if not living or locks.is_held(self._paths.leases, name):
                    self._read_one(name)

    def _read_one(self, name: str) -> None:
        known = self._read.get(name, 0)
        try:
            if self._paths.leases.stat(name).st_size <= known:
                return
            fd = self._paths.leases.open(name, files.READ)
        except FileNotFoundError:  # its job is over: its references are there
            return
        try:
            while lines := os.pread(fd, _SIZE, known).rpartition(b"\n")[0]:
                known += len(lines) + 1
                for line in lines.split(b"\n"):
                    with suppress(ValueError):
                        self.leased.add(bytes.fromhex(line.partition(b":")[2].decode()))
        finally:
            files.close(fd)
        self._read[name] = known

    @contextmanager
    def sweeping(self) -> Iterator[None]:
        """Keep jobs between the writing of their lease and their check of the blobs; ``leased`` is up to date."""
        leases = self._paths.leases
        with files.translated("lock", leases.at(GATE)):
            held = locks.acquire(leases, GATE, wait=True, byte=_SWEEPING)
        assert held is not None
        began = time.monotonic()
        try:
            self.read()
            yield
        finally:
            files.close(held)
        # Jobs check now and then whether the gate is open: half of the time it is.
        time.sleep(time.monotonic() - began)


@contextmanager
def collecting(paths: StoreLayout) -> Iterator[Collecting]:
    """Be the only collector of a store.

    Raises:
        StoreBusyError: another one is at work.
        StoreError: the disk refused.
    """
    with files.translated("lock", f"{paths.root}/leases"):
        leases = paths.make("leases", 0o700)
        held = locks.acquire(leases, GATE, wait=False, byte=_COLLECTING)
    if held is None:
        raise StoreBusyError(f"another gc of {paths.root} is at work", path=leases.at(GATE))
    try:
        yield Collecting(paths)
    finally:
        files.close(held)


def _names(paths: StoreLayout) -> list[str]:
    with suppress(FileNotFoundError):
        return list(filter(_NAME.fullmatch, paths.leases.names()))
    return []
