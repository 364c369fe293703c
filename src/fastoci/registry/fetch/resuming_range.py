"""A range of one blob, from any of the candidates that have it: after a cut it goes on where it was.

It asks for closed parts, and for the next one shortly before the last one ends, where a connection is free: so nobody
has to cut an answer, and nothing arrives for nothing. Bytes come on one connection at a time. Signed addresses that a
registry redirects to are asked for anew each time. Nothing is verified here.

Spec: distribution-spec v1.1, pulling blobs; RFC 9110 section 14 (ranges).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from fastoci._core import BUFFER_SIZE, Buffer
from fastoci.errors import ConnectError, FastociError, RegistryError, TimedOutError, TransportError
from fastoci.events import FetchDuplicated, FetchResumed
from fastoci.image.descriptor import Descriptor
from fastoci.registry.fetch.body import Body, wrong_length
from fastoci.registry.fetch.failover import Candidate, Failover
from fastoci.registry.fetch.session import RepositorySession
from fastoci.registry.http import content_range
from fastoci.registry.http.content_encoding import codings, label_of
from fastoci.registry.http.error_response import error_of
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.servers import Server
from fastoci.registry.http.throughput import RENEWALS, StallPolicy
from fastoci.registry.http.untrusted import parsed
from fastoci.registry.http.urls import Origin

_LOG: Final = logging.getLogger(__name__)
_AHEAD: Final = 1.5  # times as long as an answer took to begin, before a part ends, the next one is asked for
_AHEAD_S: Final = (0.01, 0.25)  # at least and at most: what comes on two connections at once tells nothing of one
_STEP: Final = 64 << 10  # bytes between two looks
_REFUSALS: Final = frozenset({400, 403, 405, 406, 412, 416, 417, 501})  # which may be about the range alone


class _Early(Struct, frozen=True):
    """The part that begins at ``first``, asked for before it is wanted."""

    candidate: Candidate
    first: int
    server: Server
    task: asyncio.Task[Body]


class ResumingRange:
    """Bytes ``position`` to ``end`` of a blob, on one connection after the other. Belongs to one task; ``close`` it.

    Args:
        failover: the blob's way over the candidates.
        position: where it begins; it goes to the end of the blob, or to what ``move`` says.
        sent: called with each candidate that sent bytes.
    """

    def __init__(
        self,
        session: RepositorySession,
        blob: Descriptor,
        failover: Failover,
        position: int,
        *,
        sent: Callable[[Candidate], object],
    ) -> None:
        self.position = position
        self.end = blob.size
        self.body: Body | None = None
        self.bodies: Callable[[], int] = lambda: 1  # by which the blob comes now
        self.part: Callable[[float], int] = lambda rate: blob.size  # to ask for at once, by what comes a second
        self.requested_end: int | None = None  # of what is open or asked for
        self.tasks: set[asyncio.Task[Body]] = set()  # to be waited for after ``close``
        self._early: _Early | None = None
        self._cut = False  # the last body, before its end
        self._before: Body | None = None  # which ended where the next one begins
        self._rate = 0.0
        self._latency_s = 0.0  # until the last answer began
        self._whole: Candidate | None = None  # who failed when asked for a part
        self._renewed = 0
        self._sender = failover.candidate  # whose body it is
        self._since = 0.0
        self._session = session
        self._blob = blob
        self._failover = failover
        self.sent = sent

    async def fill(self, buffer: Buffer) -> None:
        """Receive until the buffer is full or the range ends; what came before an error stays in the buffer.

        Raises:
            RegistryError, TransportError: the rest cannot be had from anybody.
            SizeMismatchError: nobody has a blob of this size.
        """
        while buffer.room and self.position < self.end:
            body = await self.ready()
            held = len(buffer)
            try:
                await body.fill(buffer, min(self.end - self.position, self._at_once(body)))
            except Exception as error:
                self.close()
                self._cut = True
                self._note(len(buffer) - held)
                if body.starved:
                    self._renewed += 1  # on another connection
                else:
                    await self._failed(error)
                self.resumed(self._sender, self.position, error)
            except BaseException:
                self._note(len(buffer) - held)
                raise
            else:
                self._note(len(buffer) - held)
                self._ask_early(body)

    async def ready(self) -> Body:
        """Wait until somebody answers, so that a buffer is needed.

        Raises: as ``fill``.
        """
        if self.body is not None and not self.body.left:
            self._before, self._cut = self.body, False
            self._end_body()  # it has no more: what is still wanted is a request of its own
        while self.body is None:
            candidate = self._sender = self.candidate
            try:
                self.body = await self._next(candidate)
            except Exception as error:
                self.close()
                if _is_about_parts(error) and not self._server(candidate).honoured:
                    self._whole = candidate
                await self._failed(error)
            else:
                self._begin(candidate, self.body)
        return self.body

    async def _next(self, candidate: Candidate) -> Body:
        """The answer that goes on at ``position``; what was asked for early and failed is asked for in its turn."""
        early = self._early
        if early is not None and (early.candidate, early.first) == (candidate, self.position):
            try:
                body = await early.task
            except FastociError as error:
                self._note_refusal(error)
            else:
                early.server.early -= 1
                self._early = None
                return body
        self._drop_early()
        end = self.requested_end = self._part_end(self.position)
        return await self._ask(candidate, self.position, end)

    async def _ask(self, candidate: Candidate, first: int, end: int) -> Body:
        begun = time.monotonic()
        body = await open_body(self._session, candidate, self._blob, first, end, stall=self._stall(candidate))
        self._latency_s = time.monotonic() - begun
        return body

    def _begin(self, candidate: Candidate, body: Body) -> None:
        self._since = time.monotonic()
        self.requested_end = self.position + body.left
        if body.skipped:
            self.duplicated(candidate, 0, body.skipped, "the server does not honour ranges")
        if self._before is not None and self._before.server is body.server:
            body.follow(self._before)
        self._before = None

    def _part_end(self, first: int) -> int:
        """Where the part that begins at ``first`` ends: with what is wanted, when that is little more."""
        size = self.part(self._rate)
        is_all = self._whole is self.candidate or self.end - first <= size + size // 2
        return self.end if is_all else first + size

    def _late(self, body: Body) -> int:
        """How many of a part's last bytes are left when the next one is asked for; 0 when nobody is to ask.

        They are at most half of it, and none after a cut until a part comes whole: a part that is cut takes with it
        what was asked for early.
        """
        received = body.received()
        self._rate = received / max(time.monotonic() - self._since, 0.001)
        if self._cut or self._early is not None or self.requested_end is None or self.requested_end >= self.end:
            return 0
        least, most = _AHEAD_S
        return min(int(self._rate * min(max(_AHEAD * self._latency_s, least), most)), (received + body.left) // 2)

    def _at_once(self, body: Body) -> int:
        """Bytes to receive before the next part may have to be asked for."""
        early = body.left - self._late(body)
        return body.left if early <= 0 else max(early, _STEP)

    def _ask_early(self, body: Body) -> None:
        """Ask for the next part when this one ends soon, on a connection that nobody uses."""
        candidate, first = self._sender, self.requested_end
        if first is None or candidate is not self.candidate or not 0 < body.left <= self._late(body):
            return
        if self._early is not None or first >= self.end or not (body.server.idle and self._server(candidate).idle):
            return
        end = self.requested_end = self._part_end(first)
        task = asyncio.get_running_loop().create_task(self._ask(candidate, first, end))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        self._early = _Early(candidate, first, body.server, task)
        body.server.early += 1

    def _drop_early(self) -> None:
        early, self._early = self._early, None
        if early is not None:
            early.server.early -= 1
            early.task.cancel()
            early.task.add_done_callback(_close)

    def _server(self, candidate: Candidate) -> Server:
        return self._session.server(candidate.origin)

    def _stall(self, candidate: Candidate) -> StallPolicy:
        renew = self._renewed < RENEWALS and self._server(candidate).ranges
        return StallPolicy(renew, self.lag(candidate), self._failover.patience)

    @property
    def sender(self) -> Candidate:
        """Who was asked for the body."""
        return self._sender

    @property
    def candidate(self) -> Candidate:
        """Who is asked for what is wanted next."""
        return self._failover.candidate

    @property
    def in_flight(self) -> int:
        """Bytes that come on its connection in the time that an answer takes to begin."""
        return int(self._rate * self._latency_s)

    def lag(self, candidate: Candidate) -> Callable[[float], str]:
        """What a body of ``candidate`` asks about its rate: why another is asked for the rest, if one is."""
        return lambda rate: self._failover.slow(candidate, rate * self.bodies(), self._blob.size - self.position)

    def resumed(self, candidate: Candidate, offset: int, error: Exception) -> None:
        """Tell that a body of ``candidate`` was cut, and that a new request goes on at ``offset``."""
        session, digest = self._session, str(self._blob.digest)
        cause = error.cause if isinstance(error, FastociError) else type(error).__name__
        _LOG.debug("%s %s: goes on at %d after %s: %s", session.image, digest, offset, candidate.server, cause)
        session.observer(FetchResumed(session.image, digest, candidate.server, offset, cause))

    def duplicated(self, candidate: Candidate, offset: int, size: int, reason: str) -> None:
        """Tell that bytes that ``candidate`` sent are asked for again."""
        session, digest = self._session, str(self._blob.digest)
        session.observer(FetchDuplicated(session.image, digest, candidate.server, offset, size, reason))

    def move(self, position: int, end: int) -> None:
        """Go on with other bytes."""
        self.close()
        self.position = position
        self.end = end

    def _note_refusal(self, error: Exception) -> None:
        if isinstance(error, RegistryError) and error.status in (429, 503) and (at := Origin.named(error.url)):
            self._session.server(at).refused(error.status)

    async def _failed(self, error: Exception) -> None:
        self._note_refusal(error)
        await self._failover.failed(error, self._sender)

    def _note(self, size: int) -> None:
        if size:
            self.position += size
            self._whole = None
            self._renewed = 0 if size == BUFFER_SIZE else self._renewed
            self._failover.progressed(size)
            self.sent(self._sender)

    def _end_body(self) -> None:
        if self.body is not None:
            self.body.close()
            self._server(self._sender).measured(self.body.received(), time.monotonic() - self._since)
            self.body = None

    def close(self) -> None:
        """End the transfer. Idempotent."""
        self.requested_end = self._before = None
        self._drop_early()
        self._end_body()


def _close(task: asyncio.Task[Body]) -> None:
    """Nobody wants what was asked for."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _is_about_parts(error: Exception) -> bool:
    """Whether the same server may answer when everything is asked for."""
    if isinstance(error, RegistryError):
        return error.status not in (429, 503)
    return isinstance(error, TransportError) and not isinstance(error, (ConnectError, TimedOutError))


async def open_body(
    session: RepositorySession,
    candidate: Candidate,
    blob: Descriptor,
    first: int,
    end: int,
    *,
    stall: StallPolicy,
    only_range: bool = False,
) -> Body:
    """The bytes ``first`` to ``end`` of a blob from one candidate, or those and the rest of the blob.

    Args:
        stall: when the body is too slow.
        only_range: an answer that is not this range is an error.
    Raises:
        RegistryError, TransportError, SizeMismatchError: the candidate does not have them.
    """
    path = f"blobs/{blob.digest}"
    server = session.server(candidate.origin)
    if (first or end < blob.size) and (server.ranges or only_range):
        wanted = {"Range": f"bytes={first}-{end - 1}"}
        try:
            reply = await session.ask(candidate, path, wanted, patience=stall.patience)
        except RegistryError as error:
            if first or error.status not in _REFUSALS:
                raise
            reply = await session.ask(candidate, path, {}, patience=stall.patience)
        sender = session.server(reply.origin)
        if reply.status == 206 and _is_asked(reply, blob, first, end):
            server.honoured = True
            return await _checked(session, reply, blob, 206, skip=0, left=end - first, stall=stall)
        if reply.status in (206, 416) or (reply.status == 200 and (first or only_range)):
            # A range that was not asked for, or none: the whole body tells what the registry has. A cache that answers
            # with it from its beginning, while it fills, may honour ranges afterwards.
            server.ranges = sender.ranges = False
            if only_range:
                reply.close()
                raise TransportError(f"{reply.url}: no such range", url=reply.url, retryable=False)
        if reply.status not in (206, 416) and (first or reply.status not in _REFUSALS):
            return await _checked(session, reply, blob, 200, skip=first, left=blob.size - first, stall=stall)
        reply.close()
    reply = await session.ask(candidate, path, {}, patience=stall.patience)
    return await _checked(session, reply, blob, 200, skip=first, left=blob.size - first, stall=stall)


async def _checked(
    session: RepositorySession,
    reply: Reply,
    blob: Descriptor,
    status: int,
    *,
    skip: int,
    left: int,
    stall: StallPolicy,
) -> Body:
    """The body, if the reply's status and headers promise ``left`` bytes after ``skip``; else it is closed."""
    try:
        if reply.status != status:
            raise await error_of(reply)
        label = label_of(reply, blob.media_type, skip + left)
        if (label is None or not label.gzip) and reply.length not in (None, skip + left):
            raise wrong_length(blob, blob.size - skip - left + (reply.length or 0))
    except BaseException:
        reply.close()
        raise
    return Body(reply, blob, session.server(reply.origin), skip=skip, left=left, stall=stall, label=label)


def _is_asked(reply: Reply, blob: Descriptor, first: int, end: int) -> bool:
    found = parsed(content_range.parse, reply.header("Content-Range"))
    if found is None or (found.first, found.last) != (first, end - 1):
        return False
    if codings(reply):  # a part of what is encoded is no part of the blob
        return found.total == blob.size and reply.length == end - first
    return found.total in (None, blob.size)
