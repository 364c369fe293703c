"""``python -m fastoci.fetch_process``: a worker process of a job, which fetches blobs into the job's store.

Started by ``jobs.fetch_processes`` alone, with a socket as its stdin. What it is to do and everything that it needs for
that, secrets too, comes from there. It plans nothing, and holds no lease: the job does. It ends when the socket does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import uvloop

from fastoci import whole_process
from fastoci.aio import wait_to_end
from fastoci.engine_parts import EngineParts
from fastoci.errors import FastociError
from fastoci.events import Event
from fastoci.image.reference import Reference
from fastoci.jobs.fetch_messages import Channel, Happened, Logged, Order, Outcome, Report, encode, orders, pickled
from fastoci.jobs.fetch_processes import Setup
from fastoci.jobs.pull import Repository

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # they come to the job, too, which tells the end

_BATCH_S: Final = 0.05  # a redraw of the display is rarer


class _Worker:
    """Does the orders of one job."""

    def __init__(self) -> None:
        self.channel = Channel(self._receive, self._end)
        self._setup: asyncio.Future[Setup] = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()
        self._sources: dict[str, Repository] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._parts: EngineParts | None = None
        self._early: list[Order] = []  # that came before the store was open
        self._said: list[bytes] = []  # and not sent yet
        self._flushing: asyncio.TimerHandle | None = None
        self._has_begun = False

    async def run(self) -> None:
        """Work until the job is over or gone; what is under way then is kept for a later job."""
        setup = await self._setup
        _forward_log(setup.log_level, self._report)
        try:
            parts = await EngineParts.open(
                setup.store, setup.additional, limits=setup.limits, observer=self._observe, options=setup.registry
            )
        except FastociError as error:
            self._report(Outcome(0, pickled(error)))
            return
        self._parts = parts
        for order in self._early:
            self._begin(order)
        await self._over.wait()
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            await wait_to_end(asyncio.wait(self._tasks))
        await parts.close()
        self._flush()

    def _receive(self, message: bytes) -> None:
        if not self._setup.done():
            self._setup.set_result(pickle.loads(message))  # from who started this process, and nobody else
        elif self._parts is None:
            self._early.append(orders.decode(message))
        else:
            self._begin(orders.decode(message))

    def _end(self) -> None:
        self._over.set()
        self._setup.cancel()

    def _begin(self, order: Order) -> None:
        task = asyncio.create_task(self._do(order))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, order: Order) -> None:
        """Bring one blob, and say how that ended."""
        try:
            await self._bring(order)
        except FastociError as error:
            self._report(Outcome(order.number, pickled(error)))
        except Exception:
            self._report(Outcome(order.number, fault=traceback.format_exc()))
        else:
            self._report(Outcome(order.number))

    async def _bring(self, order: Order) -> None:
        assert self._parts is not None
        source = self._sources.get(order.image)
        if source is None:
            registry = await self._parts.registry()
            source = self._sources[order.image] = registry.repository(Reference.parse(order.image), image=order.image)
        blob = order.blob
        writer = self._parts.store.lent_writer(blob)
        await self._parts.context.scheduler.fetch(writer, blob, source, image=order.image, cached=order.cached)

    def _observe(self, event: Event) -> None:
        if self._parts is not None:  # what is told of the store when it is opened, the job has told
            self._report(Happened.of(event))

    def _report(self, report: Report) -> None:
        """Say it, with what was said before; an event alone, but for the first, may wait a little for what follows."""
        self._said.append(encode(report))
        if isinstance(report, Outcome) or not self._has_begun:
            self._has_begun = True
            self._flush()
        elif self._flushing is None:
            self._flushing = asyncio.get_running_loop().call_later(_BATCH_S, self._flush)

    def _flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        said, self._said = self._said, []
        self.channel.send(*said)


class _LogHandler(logging.Handler):
    """Hands records on to the job, from any thread."""

    def __init__(self, report: Callable[[Report], None]) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on one record, with the text of its exception."""
        line = Logged(record.name, record.levelno, f"worker process {os.getpid()}: {self.format(record)}")
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._report, line)


def _forward_log(level: int, report: Callable[[Report], None]) -> None:
    logger = logging.getLogger("fastoci")
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(_LogHandler(report))


async def _serve(job: socket.socket) -> None:
    worker = _Worker()
    await asyncio.get_running_loop().create_unix_connection(lambda: worker.channel, sock=job)
    try:
        await worker.run()
    finally:
        await worker.channel.aclose()


def main() -> None:
    """Work for the job at the other end of stdin."""
    whole_process.OURS = True
    for number in _SIGNALS:
        signal.signal(number, lambda number, frame: None)  # and not SIG_IGN, which programs for credentials would have
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    job = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    job.setblocking(False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, suppress(asyncio.CancelledError):
        runner.run(_serve(job))


if __name__ == "__main__":
    main()
