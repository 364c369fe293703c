"""A blob over several connections, in order: closed parts ahead of their turn, beside a stream that always goes on.

It begins with one request for everything. When more connections to the server would bring more (``pace``), parts that
begin some way ahead are fetched beside it, the stream ends where the first of them begins, and buffers are given out
part after part.

Invariant: nothing here waits for memory or for a reader while it holds a connection that others may need. A part
begins only with all the buffers it will fill, within what may be held ahead of its turn over all blobs, so it ends by
itself; when less may be held, those farthest ahead are given up. The stream alone takes buffers as they come. A part
that fails leaves its rest to the stream, which has the patience, the mirrors and the errors.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator
from typing import Final

from fastoci._core import BUFFER_SIZE, Buffer
from fastoci.aio import wait_to_end
from fastoci.errors import FastociError, RegistryError, TimedOutError
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import BufferSource
from fastoci.registry.fetch.body import Body
from fastoci.registry.fetch.failover import Candidate
from fastoci.registry.fetch.resuming_range import ResumingRange, open_body
from fastoci.registry.fetch.session import RepositorySession
from fastoci.registry.http.servers import Server
from fastoci.registry.http.throughput import RENEWALS
from fastoci.registry.http.untrusted import typed

PART: Final = 4 << 20  # bytes
_FAILURES: Final = 3  # parts in a row, after which a blob stays with its stream


class ReadAheadBudget:
    """Bytes that the blobs of one client hold ahead of their turn."""

    def __init__(self) -> None:
        self.held = 0
        self.blobs = 0  # under way


class _Part:
    """Bytes ``first`` to ``end``, arriving; ``buffers`` get full one after the other."""

    def __init__(self, first: int, end: int, buffers: list[Buffer], server: Server) -> None:
        self.server = server
        self.first = first
        self.end = end
        self.buffers = deque(buffers)
        self.full: deque[Buffer] = deque()
        self.received = 0
        self.over = False
        self.wanted = True
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def fill(self, body: Body) -> None:
        """Receive from a body until it ends."""
        while self.received < self.end - self.first:
            buffer = self.buffers[0]
            held = len(buffer)
            try:
                await body.fill(buffer, self.end - self.first - self.received)
            finally:
                self.received += len(buffer) - held
            if not buffer.room:
                self.full.append(self.buffers.popleft())
                self.changed.set()


class ParallelRanges:
    """One fetch of one blob. Belongs to one task; ``close`` it."""

    def __init__(
        self,
        access: RepositorySession,
        blob: Descriptor,
        stretch: ResumingRange,
        buffers: BufferSource,
        ahead: ReadAheadBudget,
    ) -> None:
        self._access = access
        self._blob = blob
        self._stretch = stretch
        self._buffers = buffers
        self._ahead = ahead
        self._parts: deque[_Part] = deque()  # in order, without gaps
        self._place: Candidate | None = None
        self._server: Server | None = None  # which sends the bytes
        self._streaming = False  # the stream counts as one of the server's busy connections
        self._failures = 0
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        buffers.pressed.add(self._shed)
        ahead.blobs += 1
        stretch.bodies = self._bodies

    async def bytes(self) -> AsyncGenerator[Buffer, None]:
        """Yield the buffers in order; what came before an error comes first."""
        position = self._stretch.position
        while position < self._blob.size:
            if self._parts and self._parts[0].first == position:
                part = self._parts[0]
                while (buffer := await self._next(part)) is not None:
                    position += len(buffer)
                    yield buffer
                if self._parts and self._parts[0] is part:  # else it was given up
                    self._parts.popleft()
                self._resume(position)
                continue
            if self._stretch.position >= self._stretch.end:  # what came next was given up
                self._resume(position)
                continue
            buffer, error = await self._stream()
            if len(buffer):
                position += len(buffer)
                yield buffer
            else:
                buffer.release()
            if error is not None:
                raise error
            self._tend()

    async def _stream(self) -> tuple[Buffer, FastociError | None]:
        """One buffer from the stream, and the error that ended it."""
        stretch = self._stretch
        self._look_at(await stretch.ready())
        buffer = await self._buffers.take()
        waiting = self._wait_begins()
        try:
            await stretch.fill(buffer)
        except FastociError as error:
            return buffer, error
        except BaseException:
            buffer.release()
            raise
        self._wait_ends(waiting)
        if stretch.position == stretch.end:
            self._end_stream()
        return buffer, None

    async def _next(self, part: _Part) -> Buffer | None:
        """The next buffer of a part, None when no more come."""
        waiting = self._wait_begins()
        while not part.full and not part.over and part.wanted:
            part.changed.clear()
            await part.changed.wait()
        self._wait_ends(waiting)
        self._tend()
        if not part.full:
            return None
        buffer = part.full.popleft()
        self._ahead.held -= BUFFER_SIZE
        return buffer

    def _resume(self, position: int) -> None:
        """The stream goes on at ``position``, up to the next part: a whole part of its own when there is none."""
        self._stretch.move(position, self._parts[0].first if self._parts else self._blob.size)
        self._tend()
        if not self._parts and self._server is not None and self._is_worth(self._server):
            self._stretch.end = min(position + PART, self._blob.size)

    def _look_at(self, body: Body) -> None:
        """Count the stream as one of the connections of the server that sends it."""
        if self._server is not body.server:
            self._end_stream_count()
        self._place, self._server = self._stretch.place, body.server
        if not self._streaming:
            self._streaming = True
            self._server.busy += 1

    def _end_stream(self) -> None:
        self._stretch.close()
        self._end_stream_count()

    def _end_stream_count(self) -> None:
        if self._streaming and self._server is not None:
            self._streaming = False
            self._server.busy -= 1

    def _bodies(self) -> int:
        """The connections by which the blob comes."""
        return max(1, self._streaming + sum(not part.over for part in self._parts))

    def _tend(self) -> None:
        """Begin the parts that the server's pace and the memory allow."""
        server = self._server
        if server is None or self._closed:
            return
        while self._begin(server):
            pass
        server.look()

    def _begin(self, server: Server) -> bool:
        place = self._place
        share = max(1, server.pace.target // max(1, self._ahead.blobs))
        busy = sum(not part.over for part in self._parts)
        if place is None or not self._is_worth(server) or server.busy >= server.pace.target or busy >= share:
            return False
        first = self._parts[-1].end if self._parts else self._first()
        end = min(first + PART, self._blob.size)
        buffers = self._reserve(end - first) if end > first else None
        if buffers is None:
            return False
        part = _Part(first, end, buffers, server)
        if not self._parts:
            self._stretch.end = first
        self._parts.append(part)
        server.busy += 1
        part.task = asyncio.get_running_loop().create_task(self._run(part, place, server))
        self._tasks.add(part.task)
        part.task.add_done_callback(self._tasks.discard)
        part.task.add_done_callback(lambda _: self._finish(part))  # also of one that is cancelled at its start
        return True

    def _first(self) -> int:
        """Where the first part begins: some way ahead of the stream, which must have all before it."""
        first = self._stretch.position + PART
        return first if self._stretch.asked is None else min(first, self._stretch.asked)

    def _shed(self) -> None:
        """Less may be held: give up what is farthest ahead."""
        while self._parts and self._ahead.held > self._buffers.ahead:
            self._give_up(self._parts.pop())

    def _give_up(self, part: _Part) -> None:
        part.wanted = False
        if part.task is not None:
            part.task.cancel()
        self._empty(part)
        part.changed.set()

    def _empty(self, part: _Part) -> None:
        while part.full:
            part.full.popleft().release()
            self._ahead.held -= BUFFER_SIZE

    def _is_worth(self, server: Server) -> bool:
        """Whether parts work here, and more than one connection brings more."""
        asked = None if self._place is None else self._access.server(self._place.origin)
        ranges = server.ranges and asked is not None and asked.ranges
        stays = self._place is self._stretch.candidate
        return stays and ranges and self._failures < _FAILURES and server.pace.target > 1

    def _reserve(self, size: int) -> list[Buffer] | None:
        """The buffers for so many bytes, all or none."""
        count = -(-size // BUFFER_SIZE)
        if self._ahead.held + count * BUFFER_SIZE > self._buffers.ahead:
            return None
        buffers: list[Buffer] = []
        for _ in range(count):
            buffer = self._buffers.spare()
            if buffer is None:
                for taken in buffers:
                    taken.release()
                return None
            buffers.append(buffer)
        self._ahead.held += count * BUFFER_SIZE
        return buffers

    async def _run(self, part: _Part, place: Candidate, server: Server) -> None:
        """Fetch one part, on a new connection when it is too slow; on any other failure, keep what came."""
        try:
            for renewal in range(RENEWALS + 1):
                try:
                    with typed(place.server):
                        await self._attempt(part, place, server, peers=renewal < RENEWALS)
                except TimedOutError:
                    if self._access.server(place.origin).unreachable or place is not self._stretch.candidate:
                        raise
                    continue
                self._failures = 0
                return
            self._failures += 1
        except FastociError as error:
            if isinstance(error, RegistryError) and error.status in (429, 503):
                server.refused()  # which is about their number, not about parts
            else:
                self._failures += 1

    async def _attempt(self, part: _Part, place: Candidate, server: Server, *, peers: bool) -> None:
        held, started = part.received, time.monotonic()
        first = part.first + part.received
        lag = self._stretch.lag(place)
        body = await open_body(self._access, place, self._blob, first, part.end, only_range=True, peers=peers, lag=lag)
        try:
            await part.fill(body)
        finally:
            body.close()
            if part.received > held:
                self._stretch.sent(place)
            self._access.server(place.origin).measured(part.received - held, time.monotonic() - started)
        server.peers.add(part.received - held, time.monotonic() - started)

    def _finish(self, part: _Part) -> None:
        """Give back what was not filled, and let others begin. Idempotent."""
        if part.over:
            return
        part.over = True
        part.server.busy -= 1
        while part.buffers:
            buffer = part.buffers.popleft()
            if len(buffer):
                part.full.append(buffer)
            else:
                self._ahead.held -= BUFFER_SIZE
                buffer.release()
        if not part.wanted:
            self._empty(part)
        part.changed.set()
        self._tend()

    def _wait_begins(self) -> tuple[float, float]:
        return time.monotonic(), time.thread_time()

    def _wait_ends(self, begun: tuple[float, float]) -> None:
        """Time in which this thread was busy receiving was no waiting."""
        if self._server is not None:
            idle = time.monotonic() - begun[0] - (time.thread_time() - begun[1])
            self._server.pace.waited(max(0.0, idle))

    async def close(self) -> None:
        """End all transfers and give all buffers back."""
        self._closed = True
        self._buffers.pressed.discard(self._shed)
        self._end_stream()
        parts = list(self._parts)
        self._parts.clear()
        for part in parts:
            self._give_up(part)
        tasks = list(self._tasks)
        if tasks:
            await wait_to_end(asyncio.wait(tasks))
        for part in parts:
            self._finish(part)
        self._ahead.blobs -= 1
