"""A stretch of one blob, from any of the places that have it: after a cut it goes on where it was.

One connection at a time. Signed addresses that a registry redirects to are asked for anew each time. Nothing is
verified here.

Spec: distribution-spec v1.1, pulling blobs; RFC 9110 section 14 (ranges).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from fastoci._core import BUFFER_SIZE, Buffer
from fastoci.errors import RegistryError, TransportError
from fastoci.image.descriptor import Descriptor
from fastoci.registry.fetch.body import Body, wrong_length
from fastoci.registry.fetch.failover import Candidate, Failover
from fastoci.registry.fetch.session import RepositorySession
from fastoci.registry.http import content_range
from fastoci.registry.http.content_encoding import check_identity, is_gzip, is_page, is_plain
from fastoci.registry.http.error_response import error_of
from fastoci.registry.http.throughput import RENEWALS
from fastoci.registry.http.transport import Reply
from fastoci.registry.http.untrusted import parsed
from fastoci.registry.http.urls import Origin


class ResumingRange:
    """Bytes ``position`` to ``end`` of a blob, on one connection after the other. Belongs to one task; ``close`` it.

    Args:
        route: the blob's way over its places.
        sent: is told each place that sent bytes.
    """

    def __init__(
        self,
        access: RepositorySession,
        blob: Descriptor,
        route: Failover,
        position: int,
        end: int,
        sent: Callable[[Candidate], object],
    ) -> None:
        self.position = position
        self.end = end
        self.body: Body | None = None
        self.bodies: Callable[[], int] = lambda: 1  # by which the blob comes now
        self.asked: int | None = None  # the end of what is open or asked for; ``end`` may be before it, never beyond
        self._renewed = 0
        self._place = route.place  # whose body it is
        self._since = 0.0
        self._access = access
        self._blob = blob
        self._route = route
        self.sent = sent

    async def fill(self, buffer: Buffer) -> None:
        """Receive until the buffer is full or the stretch ends; what came before an error stays in the buffer.

        Raises:
            RegistryError, TransportError: the rest cannot be had from anybody.
            SizeMismatchError: nobody has a blob of this size.
        """
        while buffer.room and self.position < self.end:
            body = await self.ready()
            held = len(buffer)
            try:
                await body.fill(buffer, self.end - self.position)
            except Exception as error:
                self.close()
                self._note(len(buffer) - held)
                if body.starved:
                    self._renewed += 1  # on another connection
                else:
                    await self._failed(error)
            except BaseException:
                self._note(len(buffer) - held)
                raise
            else:
                self._note(len(buffer) - held)

    async def ready(self) -> Body:
        """Wait until somebody answers, so that a buffer is needed.

        Raises: as ``fill``.
        """
        if self.body is not None and not self.body.left:
            self.close()  # it has no more: what is still wanted is a request of its own
        while self.body is None:
            self.asked = self.end
            try:
                place = self._place = self.candidate
                self.body = await open_body(
                    self._access,
                    place,
                    self._blob,
                    self.position,
                    self.end,
                    peers=self._renewed < RENEWALS,
                    lag=self.lag(place),
                )
                self._since = time.monotonic()
            except Exception as error:
                self.asked = None
                await self._failed(error)
            else:
                self.asked = self.position + self.body.left
        return self.body

    @property
    def place(self) -> Candidate:
        """Who was asked for the body."""
        return self._place

    @property
    def candidate(self) -> Candidate:
        """Who is asked for what is wanted next."""
        return self._route.place

    def lag(self, place: Candidate) -> Callable[[float], str]:
        """What a body of ``place`` asks about its rate: why another place is asked for the rest, if one is."""
        return lambda rate: self._route.slow(place, rate * self.bodies(), self._blob.size - self.position)

    def move(self, position: int, end: int) -> None:
        """Go on with other bytes."""
        self.close()
        self.position = position
        self.end = end

    async def _failed(self, error: Exception) -> None:
        if isinstance(error, RegistryError) and error.status in (429, 503) and (at := Origin.named(error.url)):
            self._access.server(at).refused()
        await self._route.failed(error, self._place)

    def _note(self, size: int) -> None:
        if size:
            self.position += size
            self._renewed = 0 if size == BUFFER_SIZE else self._renewed
            self._route.progressed(size)
            self.sent(self.place)

    def close(self) -> None:
        """End the transfer. Idempotent."""
        self.asked = None
        if self.body is not None:
            self.body.close()
            self._access.server(self._place.origin).measured(self.body.received(), time.monotonic() - self._since)
            self.body = None


async def open_body(
    access: RepositorySession,
    place: Candidate,
    blob: Descriptor,
    first: int,
    end: int,
    *,
    only_range: bool = False,
    peers: bool = True,
    lag: Callable[[float], str] | None = None,
) -> Body:
    """The bytes ``first`` to ``end`` of a blob from one place, or those and the rest of the blob.

    Args:
        only_range: an answer that is not this range is an error.
        peers: whether the body may be too slow beside others of its server.
        lag: as ``Body`` has it.
    Raises:
        RegistryError, TransportError, SizeMismatchError: the place does not have them.
    """
    path = f"blobs/{blob.digest}"
    server = access.server(place.origin)
    if (first or end < blob.size) and (server.ranges or only_range):
        reply = await access.ask(place, path, {"Range": f"bytes={first}-{end - 1}"})
        sender = access.server(reply.origin)
        if reply.status == 206 and _is_asked(reply, blob, first, end) and is_plain(reply):
            return await _checked(access, reply, blob, 206, skip=0, left=end - first, peers=peers, lag=lag)
        if reply.status in (200, 206, 416):
            # A range that was not asked for, or none: the whole body tells what the registry has.
            server.ranges = sender.ranges = False
            if only_range:
                reply.close()
                raise TransportError(f"{reply.url}: no such range", url=reply.url, final=True)
        if reply.status not in (206, 416):
            return await _checked(access, reply, blob, 200, skip=first, left=blob.size - first, peers=peers, lag=lag)
        reply.close()
    reply = await access.ask(place, path, {})
    return await _checked(access, reply, blob, 200, skip=first, left=blob.size - first, peers=peers, lag=lag)


async def _checked(
    access: RepositorySession,
    reply: Reply,
    blob: Descriptor,
    status: int,
    *,
    skip: int,
    left: int,
    peers: bool,
    lag: Callable[[float], str] | None,
) -> Body:
    """The body, if the reply's status and headers promise ``left`` bytes after ``skip``; else it is closed."""
    try:
        if reply.status != status:
            raise await error_of(reply)
        gzip = is_gzip(reply)
        if not gzip:
            check_identity(reply)
        if not gzip and reply.length not in (None, skip + left):
            raise wrong_length(blob, blob.size - skip - left + (reply.length or 0))
        if is_page(reply) and (gzip or reply.length is None):
            # Some servers guess the type by the content, so a blob may come as HTML, but not without its length.
            raise TransportError(f"{reply.url}: a page (text/html) in the place of a blob", url=reply.url, final=True)
    except BaseException:
        reply.close()
        raise
    return Body(reply, blob, access.server(reply.origin), skip=skip, left=left, peers=peers, lag=lag, gzip=gzip)


def _is_asked(reply: Reply, blob: Descriptor, first: int, end: int) -> bool:
    found = parsed(content_range.parse, reply.header("Content-Range"))
    return found is not None and (found.first, found.last) == (first, end - 1) and found.total in (None, blob.size)
