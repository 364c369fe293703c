"""Waiting for what other processes hold: one task for all of it, without locks, threads or descriptors.

Now and then it polls some of what is waited for, in order: is it there, is the lock free, how far is the other.
A poll takes nothing, so whoever finds a lock free tries for it like everybody else, and checks again what it guards.
No watch on directories: the death of a holder shows in none, and 3 % of a core pay for 3,000 digests.
Spec: docs/store-format.md 4, "Begin".
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import msgspec

from fastoci import files, locks
from fastoci.aio import wait_to_end
from fastoci.errors import StoreBusyError
from fastoci.store.layout import GATE, StoreLayout
from fastoci.threads import Threads

_SHORTEST_S: Final = 0.005  # a manifest takes another process a few milliseconds
_LONGEST_S: Final = 0.1
_BATCH: Final = 128  # looks at a time, 10 to 20 microseconds each


class Sought(msgspec.Struct, frozen=True):
    """Something that another process makes: a blob, a layer.

    Args:
        name: of its directory in ``ingest``, where its ``lock`` is, and its ``data`` grows.
        what: the other does, for messages: ``fetches DIGEST``.
        is_there: whether it is made.
        size: bytes that it will have, when that is known.
        byte: of the store's gate, which is locked while it is small and comes as a whole.
    """

    name: str
    what: str
    is_there: Callable[[], bool]
    size: int | None = None
    byte: int | None = None


class _Waiter(msgspec.Struct, eq=False):
    sought: Sought
    progressed: Callable[[int], None]
    ended: asyncio.Future[bool]
    since: float  # of the last progress that was seen
    offset: int = -1

    def fail(self, error: BaseException) -> None:
        if self.ended.done():
            return
        if isinstance(error, asyncio.CancelledError):
            self.ended.cancel()
        else:
            self.ended.set_exception(error)


class _Seen(msgspec.Struct, frozen=True):
    there: bool
    held: bool
    offset: int  # bytes that the holder has written; -1 when nobody can tell
    stuck: StoreBusyError | None = None  # when the holder made no progress for too long, but for this


class Waiting:
    """All waits of one store, on one event loop.

    Args:
        holder_s: how long a holder may make no progress; it may be stopped, and then it never lets go.
    """

    def __init__(self, paths: StoreLayout, threads: Threads, *, holder_s: float) -> None:
        self._paths = paths
        self._threads = threads
        self._holder_s = holder_s
        self._line: list[_Waiter] = []
        self._poller: asyncio.Task[None] | None = None
        self._pause_s = _SHORTEST_S

    async def wait(self, sought: Sought, progressed: Callable[[int], None]) -> bool:
        """Return once no other process holds it; whether it is there.

        Args:
            progressed: is called with the number of bytes that the other process has, whenever that is seen to change.
        Raises:
            StoreBusyError: the other process makes no progress.
            StoreError: the disk refused to tell.
        """
        waiter = _Waiter(sought, progressed, asyncio.get_running_loop().create_future(), time.monotonic())
        self._line.append(waiter)
        self._pause_s = _SHORTEST_S
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
            self._poller.add_done_callback(self._poller_ended)
        try:
            return await waiter.ended
        finally:
            with suppress(ValueError):
                self._line.remove(waiter)
            await self._stop_when_idle()

    async def _stop_when_idle(self) -> None:
        poller = self._poller
        if not self._line and poller is not None:
            self._poller = None
            poller.cancel()
            _, cancelled = await wait_to_end(asyncio.wait([poller]))
            if cancelled:
                raise asyncio.CancelledError

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._pause_s * random.uniform(0.5, 1.5))
            self._pause_s = min(self._pause_s * 1.5, _LONGEST_S)
            await self._poll_some()

    def _poller_ended(self, poller: asyncio.Task[None]) -> None:
        """Fail those whom a poller leaves behind, even one that never began; who came later has another."""
        error = asyncio.CancelledError() if poller.cancelled() else poller.exception()
        if poller is self._poller and error is not None:
            for waiter in self._line:
                waiter.fail(error)

    async def _poll_some(self) -> None:
        some = self._line[:_BATCH]
        self._line = self._line[_BATCH:] + some
        try:
            seen = await self._threads.run(partial(self._inspect_all, some))
        except Exception as error:  # an error of each waiter; the next poll is theirs to ask for
            for waiter in some:
                waiter.fail(error)
            return
        for waiter, sight in zip(some, seen, strict=True):
            try:
                self._tell(waiter, sight)
            except Exception as error:  # of its observer
                waiter.fail(error)

    def _tell(self, waiter: _Waiter, sight: _Seen) -> None:
        if waiter.ended.done():
            return
        if sight.there or not sight.held:
            waiter.ended.set_result(sight.there)
        elif sight.offset not in (-1, waiter.offset):
            waiter.offset, waiter.since = sight.offset, time.monotonic()
            waiter.progressed(sight.offset)
        elif sight.stuck is not None:
            waiter.fail(sight.stuck)

    def _inspect_all(self, waiters: Sequence[_Waiter]) -> list[_Seen]:
        late = time.monotonic() - self._holder_s
        return [self._inspect(waiter.sought, late=waiter.since < late) for waiter in waiters]

    def _inspect(self, sought: Sought, *, late: bool) -> _Seen:
        if sought.is_there():
            return _Seen(True, False, sought.size or 0)
        held = False
        stuck = None
        offset = -1  # also of a holder that is giving up, and has deleted the data before its lock
        checking = files.translated("stat", f"{self._paths.root}/ingest/{sought.name}")
        with checking, suppress(FileNotFoundError), self._paths.ingests.enter(sought.name) as directory:
            held = locks.is_held(directory, "lock")
            if held and late:
                stuck = self._stuck(sought, f"ingest/{sought.name}/lock", locks.holders(directory, "lock"))
            offset = files.held_size(directory.stat("data"))
            if sought.size is not None:
                offset = min(offset, sought.size)
        if not held and sought.byte is not None:
            held, stuck = self._inspect_small(sought, sought.byte, late=late)
        return _Seen(not held and sought.is_there(), held, offset, stuck)

    def _inspect_small(self, sought: Sought, byte: int, *, late: bool) -> tuple[bool, StoreBusyError | None]:
        """Whether somebody holds what comes as a whole, and the error when that is too long."""
        with files.translated("lock", f"{self._paths.root}/leases/{GATE}"), suppress(FileNotFoundError):
            held = locks.is_held(self._paths.leases, GATE, byte=byte)
            if held and late:
                return held, self._stuck(sought, f"leases/{GATE}", locks.holders(self._paths.leases, GATE, byte=byte))
            return held, None
        return False, None

    def _stuck(self, sought: Sought, lock: str, pids: tuple[int, ...]) -> StoreBusyError:
        """The error for a holder without progress. Its lock is never taken away: it may go on at any time."""
        path = f"{self._paths.root}/{lock}"
        who = f"process {' and '.join(map(str, pids))}" if pids else "a process that this one may not see"
        text = (
            f"{who} {sought.what}, and made no progress for {self._holder_s:g} s (it holds {path}): "
            "end it, or let it go on if it is stopped"
        )
        return StoreBusyError(text, path=path, pids=pids)
