"""A blob over several connections, in order: closed ranges ahead of their turn, beside a stream that always goes on.

It begins with a stream of closed parts, one after the other. When more connections to the server would bring more
(``ConnectionLimit``), ranges are fetched beside it that begin where the part under way ends; the stream ends there, and
buffers are given out range after range. So no answer is cut for another one's sake.

Invariant: nothing here waits for memory or for a reader while it holds a connection that others may need. A range
begins only with all the buffers it will fill, within what may be held ahead of its turn over all blobs, so it ends by
itself; when less may be held, those farthest ahead are given up. The stream alone takes buffers as they come. A range
that fails leaves its rest to the stream, which has the retries, the mirrors and the errors.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Final

from fastoci._core import BUFFER_SIZE, Buffer
from fastoci.aio import wait_to_end
from fastoci.errors import FastociError, RegistryError, TimedOutError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.interfaces import BufferSource
from fastoci.registry.fetch.body import Body
from fastoci.registry.fetch.failover import Candidate
from fastoci.registry.fetch.resuming_range import ResumingRange, open_body
from fastoci.registry.fetch.session import RepositorySession
from fastoci.registry.http.servers import Server
from fastoci.registry.http.throughput import RENEWALS, StallPolicy
from fastoci.registry.http.untrusted import typed

RANGE_SIZE: Final = 4 << 20  # bytes; also of the first part of a stream
_LONGEST: Final = 64 << 20  # bytes of a part
_LONG: Final = 16 << 20  # bytes of a part, at least, when no connection is free to ask for the next one on
_PART_S: Final = 0.5  # for which a part comes: ranges beside it are held until it ends
_FAILURES: Final = 3  # ranges in a row, after which a blob stays with its stream


class ReadAheadBudget:
    """Bytes that the blobs of one client hold ahead of their turn, and which blobs these are."""

    def __init__(self) -> None:
        self.held = 0
        self.blobs = 0  # under way
        self._large = 0  # of these, those that are more than a range
        self._waiting: set[Digest] = set()
        self._expected: dict[Digest, int] = {}  # those that wait, or are under way since: their sizes
        self._expected_large = 0
        self._expected_size = 0

    @contextmanager
    def expecting(self, blob: Descriptor) -> Iterator[None]:
        """A blob is about to be fetched, until it was: whoever begins earlier knows of it."""
        if blob.digest not in self._expected:
            self._waiting.add(blob.digest)
            self._expected[blob.digest] = blob.size
            self._expected_large += blob.size > RANGE_SIZE
            self._expected_size += blob.size
        try:
            yield
        finally:
            self._forget(blob)

    @property
    def waiting(self) -> int:
        """Blobs that are about to be fetched: each needs a connection."""
        return len(self._waiting)

    @property
    def large(self) -> int:
        """Blobs of more than a range, under way or about to be."""
        return max(self._large, self._expected_large)

    def share(self, connections: int) -> int:
        """Bytes for each of so many connections, when all are to end at once; 0 when nobody knows."""
        return self._expected_size // connections

    def begin(self, blob: Descriptor, offset: int) -> None:
        """The fetch of a blob begins; then ``end``."""
        self._waiting.discard(blob.digest)
        self.blobs += 1
        self._large += blob.size - offset > RANGE_SIZE

    def end(self, blob: Descriptor, offset: int) -> None:
        """That fetch is over."""
        self._forget(blob)
        self.blobs -= 1
        self._large -= blob.size - offset > RANGE_SIZE

    def _forget(self, blob: Descriptor) -> None:
        self._waiting.discard(blob.digest)
        size = self._expected.pop(blob.digest, 0)
        self._expected_large -= size > RANGE_SIZE
        self._expected_size -= size


class _Range:
    """Bytes ``first`` to ``end``, arriving; ``buffers`` get full one after the other."""

    def __init__(self, first: int, end: int, buffers: list[Buffer], candidate: Candidate, server: Server) -> None:
        self.candidate = candidate
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

    def held(self) -> tuple[int, int]:
        """What has come and was not given out yet: its offset and size."""
        buffers = [*self.full, *self.buffers]
        given_out = -(-(self.end - self.first) // BUFFER_SIZE) - len(buffers)
        return self.first + given_out * BUFFER_SIZE, sum(map(len, buffers))


class ParallelRanges:
    """One fetch of one blob. Belongs to one task; ``close`` it."""

    def __init__(
        self,
        session: RepositorySession,
        blob: Descriptor,
        stream: ResumingRange,
        buffers: BufferSource,
        budget: ReadAheadBudget,
    ) -> None:
        self._session = session
        self._blob = blob
        self._stream = stream
        self._buffers = buffers
        self._budget = budget
        self._ranges: deque[_Range] = deque()  # in order, without gaps
        self._candidate: Candidate | None = None
        self._server: Server | None = None  # which sends the bytes
        self._streaming = False  # the stream counts as one of the server's busy connections
        self._failures = 0
        self._closed = False
        self._began_at = stream.position
        self._given = stream.position  # the end of what was given out
        self._filling: Buffer | None = None  # by the stream
        self._tasks: set[asyncio.Task[None]] = set()
        buffers.pressed.add(self._shed)
        budget.begin(blob, self._began_at)
        stream.bodies = self._bodies
        stream.part = self._part

    async def bytes(self) -> AsyncGenerator[Buffer, None]:
        """Yield the buffers in order; what came before an error comes first."""
        position = self._stream.position
        while position < self._blob.size:
            if self._ranges and self._ranges[0].first == position:
                range_ = self._ranges[0]
                while (buffer := await self._next(range_)) is not None:
                    position = self._given = position + len(buffer)
                    yield buffer
                if self._ranges and self._ranges[0] is range_:  # else it was given up
                    self._ranges.popleft()
                self._resume(position)
                continue
            if self._stream.position >= self._stream.end:  # what came next was given up
                self._resume(position)
                continue
            buffer, error = await self._from_stream()
            if len(buffer):
                position = self._given = position + len(buffer)
                yield buffer
            else:
                buffer.release()
            if error is not None:
                raise error
            self._tend()

    def received(self) -> int:
        """Where the blob would end if all that is here were in order."""
        filling = 0 if self._filling is None else len(self._filling)
        return self._given + filling + sum(range_.held()[1] for range_ in self._ranges)

    async def _from_stream(self) -> tuple[Buffer, FastociError | None]:
        """One buffer from the stream, and the error that ended it."""
        stream = self._stream
        self._count_stream(await stream.ready())
        buffer = self._filling = await self._buffers.take()
        waiting = self._wait_begins()
        try:
            await stream.fill(buffer)
        except FastociError as error:
            return buffer, error
        except BaseException:
            buffer.release()
            raise
        finally:
            self._filling = None
        self._wait_ends(waiting)
        if stream.position == stream.end:
            self._end_stream()
        return buffer, None

    async def _next(self, range_: _Range) -> Buffer | None:
        """The next buffer of a range, None when no more come."""
        waiting = self._wait_begins()
        while not range_.full and not range_.over and range_.wanted:
            range_.changed.clear()
            await range_.changed.wait()
        self._wait_ends(waiting)
        self._tend()
        if not range_.full:
            return None
        buffer = range_.full.popleft()
        self._budget.held -= BUFFER_SIZE
        return buffer

    def _resume(self, position: int) -> None:
        """The stream goes on at ``position``, up to the next range: a whole range of its own when there is none."""
        self._stream.move(position, self._ranges[0].first if self._ranges else self._blob.size)
        self._tend()
        if not self._ranges and self._server is not None and self._is_worth(self._server):
            self._stream.end = min(position + RANGE_SIZE, self._blob.size)

    def _count_stream(self, body: Body) -> None:
        """Count the stream as one of the connections of the server that sends it."""
        if self._server is not body.server:
            self._end_stream_count()
        self._candidate, self._server = self._stream.sender, body.server
        if not self._streaming:
            self._streaming = True
            self._server.busy += 1
            self._tend()  # before the stream asks for more than the ranges leave it

    def _end_stream(self) -> None:
        self._stream.close()
        self._end_stream_count()

    def _end_stream_count(self) -> None:
        if self._streaming and self._server is not None:
            self._streaming = False
            self._server.busy -= 1

    def _bodies(self) -> int:
        """The connections by which the blob comes."""
        return max(1, self._streaming + sum(not range_.over for range_ in self._ranges))

    def _part(self, rate: float) -> int:
        """Bytes that the stream asks for at once.

        It is everything when no range can begin beside it, and much when each connection is another large blob's: none
        is free to ask for the next part on. But it is no more than a connection's share, when that is known: what goes
        beyond is left for those that are free sooner. No part is larger than what has come: servers may be fast for the
        first second of a request only.
        """
        maximum = self._session.server(self._stream.candidate.origin).limit.maximum
        if maximum == 1 or self._buffers.ahead < RANGE_SIZE:
            return self._blob.size
        if maximum < 2 * self._budget.large:
            share = self._budget.share(maximum) or _LONGEST
            return min(max(_LONG, -(-share // BUFFER_SIZE) * BUFFER_SIZE), _LONGEST)
        size = min(int(rate * _PART_S), self._stream.position - self._began_at, _LONGEST)
        return max(RANGE_SIZE, size // BUFFER_SIZE * BUFFER_SIZE)

    def _tend(self) -> None:
        """Begin the ranges that the server's connection limit and the memory allow."""
        server = self._server
        if server is None or self._closed:
            return
        while self._begin(server):
            pass
        server.adjust_limit()

    def _begin(self, server: Server) -> bool:
        candidate = self._candidate
        share = max(1, server.limit.connections // max(1, self._budget.blobs))
        busy = sum(not range_.over for range_ in self._ranges)
        if candidate is None or not self._is_worth(server) or busy >= share:
            return False
        if server.busy + self._budget.waiting >= server.limit.connections:
            return False
        if self._budget.blobs > 1 and self._stream.in_flight > RANGE_SIZE:
            return False  # it would wait more than receive: the next part of the stream is sooner here
        first = self._ranges[-1].end if self._ranges else self._first()
        end = min(first + RANGE_SIZE, self._blob.size)
        buffers = self._reserve(end - first) if end > first else None
        if buffers is None:
            return False
        range_ = _Range(first, end, buffers, candidate, server)
        if not self._ranges:
            self._stream.end = first
        self._ranges.append(range_)
        server.busy += 1
        range_.task = asyncio.get_running_loop().create_task(self._run(range_))
        self._tasks.add(range_.task)
        range_.task.add_done_callback(self._tasks.discard)
        range_.task.add_done_callback(lambda _: self._finish(range_))  # also of one that is cancelled at its start
        return True

    def _first(self) -> int:
        """Where the first range begins: at the end of what the stream has asked for."""
        asked = self._stream.requested_end
        return self._stream.position + RANGE_SIZE if asked is None else asked

    def _shed(self) -> None:
        """Less may be held: give up what is farthest ahead."""
        while self._ranges and self._budget.held > self._buffers.ahead:
            range_ = self._ranges.pop()
            offset, size = range_.held()
            if size:
                self._stream.duplicated(range_.candidate, offset, size, "the memory was needed")
            self._give_up(range_)

    def _give_up(self, range_: _Range) -> None:
        range_.wanted = False
        if range_.task is not None:
            range_.task.cancel()
        self._empty(range_)
        range_.changed.set()

    def _empty(self, range_: _Range) -> None:
        while range_.full:
            range_.full.popleft().release()
            self._budget.held -= BUFFER_SIZE

    def _is_worth(self, server: Server) -> bool:
        """Whether ranges work here, and more than one connection brings more."""
        asked = None if self._candidate is None else self._session.server(self._candidate.origin)
        ranges = server.ranges and asked is not None and asked.ranges
        stays = self._candidate is self._stream.candidate
        return stays and ranges and self._failures < _FAILURES and server.limit.connections > 1

    def _reserve(self, size: int) -> list[Buffer] | None:
        """The buffers for so many bytes, all or none."""
        count = -(-size // BUFFER_SIZE)
        if self._budget.held + count * BUFFER_SIZE > self._buffers.ahead:
            return None
        buffers: list[Buffer] = []
        for _ in range(count):
            buffer = self._buffers.spare()
            if buffer is None:
                for taken in buffers:
                    taken.release()
                return None
            buffers.append(buffer)
        self._budget.held += count * BUFFER_SIZE
        return buffers

    async def _run(self, range_: _Range) -> None:
        """Fetch one range, on a new connection when it is too slow; on any other failure, keep what came."""
        candidate = range_.candidate
        try:
            for renewal in range(RENEWALS + 1):
                try:
                    with typed(candidate.server):
                        await self._attempt(range_, StallPolicy(renewal < RENEWALS, self._stream.lag(candidate)))
                except TimedOutError as error:
                    if self._session.server(candidate.origin).connect_failed or candidate is not self._stream.candidate:
                        raise
                    self._stream.resumed(candidate, range_.first + range_.received, error)
                    continue
                self._failures = 0
                return
            self._failures += 1
        except FastociError as error:
            if isinstance(error, RegistryError) and error.status in (429, 503):
                range_.server.refused(error.status)  # which is about their number, not about ranges
                return
            self._failures += 1
            if range_.received:
                self._stream.resumed(candidate, range_.first + range_.received, error)

    async def _attempt(self, range_: _Range, stall: StallPolicy) -> None:
        candidate = range_.candidate
        held, started = range_.received, time.monotonic()
        first = range_.first + range_.received
        body = await open_body(self._session, candidate, self._blob, first, range_.end, stall=stall, only_range=True)
        try:
            await range_.fill(body)
        finally:
            body.close()
            if range_.received > held:
                self._stream.sent(candidate)
            self._session.server(candidate.origin).measured(range_.received - held, time.monotonic() - started)
        range_.server.peers.add(range_.received - held, time.monotonic() - started)

    def _finish(self, range_: _Range) -> None:
        """Give back what was not filled, and let others begin. Idempotent."""
        if range_.over:
            return
        range_.over = True
        range_.server.busy -= 1
        while range_.buffers:
            buffer = range_.buffers.popleft()
            if len(buffer):
                range_.full.append(buffer)
            else:
                self._budget.held -= BUFFER_SIZE
                buffer.release()
        if not range_.wanted:
            self._empty(range_)
        range_.changed.set()
        self._tend()

    def _wait_begins(self) -> tuple[float, float, float]:
        held_back_s = 0.0 if self._server is None else self._server.held_back_s()
        return time.monotonic(), time.thread_time(), held_back_s

    def _wait_ends(self, begun: tuple[float, float, float]) -> None:
        """Count the wait, without the time in which this thread was busy receiving, or a limit of ours held back."""
        if self._server is not None:
            busy = time.thread_time() - begun[1] + self._server.held_back_s() - begun[2]
            self._server.limit.waited(max(0.0, time.monotonic() - begun[0] - busy))

    async def close(self) -> None:
        """End all transfers and give all buffers back."""
        self._closed = True
        self._buffers.pressed.discard(self._shed)
        self._end_stream()
        ranges = list(self._ranges)
        self._ranges.clear()
        for range_ in ranges:
            self._give_up(range_)
        tasks = [*self._tasks, *self._stream.tasks]
        if tasks:
            await wait_to_end(asyncio.wait(tasks))
        for range_ in ranges:
            self._finish(range_)
        self._budget.end(self._blob, self._began_at)
