"""Worker processes that fetch the blobs of one job into its store. They plan nothing, and hold no lease.

Numbered rules:
1. A process is started when there is work and all others have some; there are at most as many as ``Limits.divided``
   gives limits.
2. A blob goes to the process that has the fewest bytes under way, among those that have a free connection.
3. What a process had when it died goes to others, each blob alone, so that one that kills takes no other with it. A few
   times a new process takes the place of a dead one. A blob under which several died is given up.
4. A process ends when the job says so, or when its socket says that the job is gone. None is left behind.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import signal
import socket
import subprocess
import sys
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

import msgspec

from fastoci.aio import wait_to_end
from fastoci.errors import FastociError
from fastoci.events import BlobFailed, Observer, Warned
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import StoreWriter
from fastoci.jobs.fetch_messages import Channel, Happened, Logged, Order, encode, reports
from fastoci.jobs.pull import Repository
from fastoci.limits import Limits

if TYPE_CHECKING:
    from fastoci.registry.options import RegistryOptions

_LOG: Final = logging.getLogger(__name__)
_MODULE: Final = "fastoci.fetch_process"
_TRIES: Final = 3  # processes that may die under one blob
_REPLACEMENTS: Final = 3  # processes of one job that may die and be replaced
_END_S: Final = 30.0  # for resume points on a slow disk; then a process is killed
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FLAGS: Final = {"isolated": "-I", "ignore_environment": "-E", "no_user_site": "-s", "no_site": "-S"}


class Setup(msgspec.Struct, frozen=True):
    """What a worker process works with. ``log_level`` is that of the job's process."""

    store: Path
    additional: tuple[Path, ...]
    limits: Limits
    registry: RegistryOptions | None
    log_level: int


class _DiedError(Exception):
    """A process ended that was at work on a blob."""


class FetchProcesses:
    """``Fetcher`` over processes, an async context manager: they start when there is work, and end with it.

    Args:
        setup: of each process, but for its limits, which are shares of these.
        processes: how many there are at most.
    """

    def __init__(self, setup: Setup, processes: int, observer: Observer) -> None:
        limits = setup.limits.divided(processes)
        self._setups = [msgspec.structs.replace(setup, limits=each) for each in limits]
        self._observe = observer
        self._processes: list[_Process] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._replacements = _REPLACEMENTS
        self._is_ending = False
        self._error = FastociError("no worker process runs")
        self._changed = asyncio.Event()
        if len(limits) < processes:
            text = "each needs a connection, and its part of the limits"
            observer(
                Warned("", f"{processes} worker processes are too many, {len(limits)} at most are started: {text}")
            )

    async def __aenter__(self) -> FetchProcesses:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_ending = True
        for process in self._processes:
            process.end()
        if self._tasks and (await wait_to_end(asyncio.wait(self._tasks)))[1]:
            raise asyncio.CancelledError

    async def fetch(
        self, writer: StoreWriter, blob: Descriptor, source: Repository, *, image: str = "", cached: bool = False
    ) -> bytes:
        """Have a process bring the blob: ``Fetcher.fetch``. The name of the image leads it to the source."""
        deaths = 0
        while deaths < _TRIES:
            process = await self._choose(alone=deaths > 0)
            if process is None:
                break
            try:
                await process.fetch(blob, image, cached)
            except _DiedError:
                _LOG.debug("%s: worker process %d ended under it", blob.digest, process.pid)
                deaths += process.has_begun
                continue
            finally:
                process.is_reserved = False
                self._changed.set()
            await writer.adopt(blob)
            return b""
        error = copy.copy(self._error)
        error.blob = str(blob.digest)
        self._observe(BlobFailed(str(blob.digest), str(error), type(error).__name__, error.exit_code))
        raise error

    async def _choose(self, *, alone: bool) -> _Process | None:
        """The process that gets the next blob, ``alone`` with nothing else; None when there is none any more."""
        while True:
            free = [process for process in self._processes if process.is_usable and not process.is_reserved]
            if self._setups and all(process.orders for process in free):
                free.append(self._start(self._setups.pop(0)))
            if free:
                process = min(free, key=lambda process: (process.is_full, process.size, len(process.orders)))
                process.is_reserved = alone
                while alone and process.orders and process.is_usable:
                    await self._change()
                if process.is_usable:
                    return process
            elif not self._tasks:
                return None
            else:
                await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _start(self, setup: Setup) -> _Process:
        process = _Process(setup, self._observe)
        self._processes.append(process)
        task = asyncio.create_task(self._run(process))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return process

    async def _run(self, process: _Process) -> None:
        """A process from its start to its end; its limits then go to the one that takes its place."""
        try:
            await process.run()
            if self._is_ending:
                return
            self._error = process.error
            self._observe(Warned("", f"{process.error}: others get what it had"))
            if process.is_replaceable and self._replacements:
                self._replacements -= 1
                self._setups.append(process.setup)
        finally:
            self._processes.remove(process)
            process.let_go()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()


class _Process:
    """One worker process, and what it has under way."""

    def __init__(self, setup: Setup, observer: Observer) -> None:
        self.setup = setup
        self.pid = 0
        self.size = 0  # bytes under way
        self.orders: dict[int, asyncio.Future[None]] = {}
        self.error = FastociError("a worker process ended")
        self.is_reserved = False  # for one blob
        self.has_begun = False  # to fetch: what it had may be why it died
        self.is_replaceable = True  # it did not say itself that it can do no work
        self._observe = observer
        self._numbers = count(1)
        self._over = asyncio.Event()
        self._channel = Channel(self._receive, self._over.set)
        self._channel.send(pickle.dumps(setup))
        self._program: subprocess.Popen[bytes] | None = None
        self._killing: asyncio.TimerHandle | None = None

    @property
    def is_usable(self) -> bool:
        """Whether it takes orders: also before it runs, and not any more when its end is seen."""
        return not self._over.is_set()

    @property
    def is_full(self) -> bool:
        """Whether each of its connections to one host has a blob."""
        return len(self.orders) >= self.setup.limits.connections

    async def fetch(self, blob: Descriptor, image: str, cached: bool) -> None:
        """Have it bring a blob.

        Raises:
            FastociError: what its scheduler says.
            _DiedError: it ended before it said anything.
        """
        number = next(self._numbers)
        future = self.orders[number] = asyncio.get_running_loop().create_future()
        self.size += blob.size
        self._channel.send(encode(Order(number, blob.media_type, str(blob.digest), blob.size, image, cached)))
        try:
            await future
        finally:
            del self.orders[number]
            self.size -= blob.size

    async def run(self) -> None:
        """Start the program, and wait for its end; ``error`` says why that came."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                program, _ = await wait_to_end(asyncio.to_thread(_spawn, theirs))
        except OSError as error:
            ours.close()
            self._over.set()
            self.error = FastociError(f"a worker process cannot be started: {error.strerror}")
            return
        self._program, self.pid = program, program.pid
        await wait_to_end(self._live(ours, program))

    async def _live(self, ours: socket.socket, program: subprocess.Popen[bytes]) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: self._channel, sock=ours)
        await self._over.wait()
        self._kill_later()
        await self._channel.aclose()
        status = await asyncio.to_thread(program.wait)
        if self._killing is not None:
            self._killing.cancel()
        if self.is_replaceable:
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            self.error = FastociError(f"worker process {self.pid} {how}")

    def end(self) -> None:
        """Have the program end: what it has under way is kept for a later job."""
        self._channel.say_no_more()
        self._kill_later()

    def _kill_later(self) -> None:
        if self._killing is None:
            self._killing = asyncio.get_running_loop().call_later(_END_S, self._kill)

    def _kill(self) -> None:
        if self._program is not None:
            self._program.kill()

    def let_go(self) -> None:
        """Give back what it had under way, for others to do."""
        self._over.set()
        for future in self.orders.values():
            if not future.done():
                future.set_exception(_DiedError())

    def _receive(self, message: bytes) -> None:
        report, self.has_begun = reports.decode(message), True
        if isinstance(report, Happened):
            self._observe(report.event)
        elif isinstance(report, Logged):
            logging.getLogger(report.logger).log(report.level, "%s", report.text)
        elif (future := self.orders.get(report.number)) is not None and not future.done():
            if (exception := report.exception) is None:
                future.set_result(None)
            else:
                future.set_exception(exception)
        elif report.number == 0 and isinstance(error := report.exception, FastociError):
            self.is_replaceable, self.error = False, error


def _spawn(theirs: socket.socket) -> subprocess.Popen[bytes]:
    """Start the program with the socket as its stdin; on a thread of its own signals.

    Signals of the group are the job's: the program has them blocked until it leaves them alone.

    Raises:
        OSError: it cannot be started.
    """
    flags = [flag for name, flag in _FLAGS.items() if getattr(sys.flags, name)]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        command = [sys.executable, "-P", *flags, "-m", _MODULE]
        return subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
