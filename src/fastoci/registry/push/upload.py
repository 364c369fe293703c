"""One blob's upload: begun or mounted, sent, gone on with after a break, closed, and checked.

Rules:
1. A blob goes in one request, unless the registry announces a least size of chunks, refuses a request as too large, or
   kept nothing of an upload that broke: then it goes in chunks, so that a break costs one of these.
2. After a break the registry is asked how far it came, and gets the rest. So it is by a later process: what it needs
   for that is remembered (``Remembered``). Of a small blob nothing is asked, and a new upload begins.
3. A registry that lost an upload, or will not have its end, is given a new one, a few times.
4. It is held against what it says of the blob afterwards.

Spec: distribution-spec v1.1, "Pushing blobs": "Monolithically", "In chunks", "Mounting a blob".
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Final, Literal
from urllib.parse import quote, urlencode

from yarl import URL

from fastoci.errors import FormatError, NotFoundError, RegistryError, TransportError
from fastoci.image.descriptor import Descriptor
from fastoci.image_interfaces import Way
from fastoci.registry.fetch.failover import Candidate, Failover
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.upload import Upload
from fastoci.registry.http.urls import parse_url
from fastoci.registry.push.body import Body
from fastoci.registry.push.remembered import Remembered
from fastoci.registry.push.session import PushSession, check_digest, location

_WORTH: Final = 1 << 20  # bytes of a blob, for which a broken upload is gone on with
_CHUNK: Final = 32 << 20
_LEAST_CHUNK: Final = 1 << 20
_LARGEST_CHUNK: Final = 1 << 30  # that a registry may demand
_LOST: Final = 3  # uploads that a registry may lose
_HELD_S: Final = (0.0, 0.2, 1.0)  # before it is asked again whether it has what it took
_RANGE: Final = re.compile(r"(?:bytes[ =])?0-([0-9]{1,18})")
_KIND: Final = {"Content-Type": "application/octet-stream"}

_NOTHING: Final = Upload.of(b"")


class BlobUpload:
    """One blob on its way into a repository, over all its tries.

    Args:
        mount_from: the path of another repository of the same registry that may have it.
    """

    def __init__(
        self, session: PushSession, blob: Descriptor, body: Body, remembered: Remembered, *, mount_from: str
    ) -> None:
        self._session = session
        self._blob = blob
        self._body = body
        self._remembered = remembered
        self._mount_from = mount_from
        self._location: URL | None = None
        self._chunk = 0  # bytes; 0: all in one request
        self._lost = 0
        self._best = 0
        self._step: Literal["begin", "part", "close"] = "begin"

    async def attempt(self, candidate: Candidate, failover: Failover) -> Way | None:
        """Bring the blob: how it came; None when its source failed, as ``Body.error`` says.

        Raises:
            RegistryError, TransportError, FormatError, IntegrityError: the registry does not take it now.
        """
        self._step = "begin"
        self._body.on_points = partial(self._remember, candidate)
        try:
            reached = await self._continue(candidate, failover)
            if reached is None and (reached := await self._begin(candidate, failover)) is None:
                return "mounted"
            await self._send(reached, candidate, failover)
        except (RegistryError, TransportError, FormatError) as error:
            if self._body.error is not None:
                return None
            await self._learn(error)
            await self._remember(candidate)
            raise
        finally:
            await self._body.rest()
        self._location = None
        await self._check(candidate, failover)
        return "sent"

    async def restart(self) -> None:
        """Begin a new upload the next time."""
        self._location = None
        await self._remembered.drop()

    async def _continue(self, candidate: Candidate, failover: Failover) -> int | None:
        """How many bytes the registry has of an upload that broke; None when a new one is to begin."""
        broke = self._location is not None
        if not broke:
            found = await self._remembered.take(candidate.server)
            if found is not None:
                self._location, points = found
                self._body.continue_from(points)
        if self._location is None or self._blob.size < _WORTH:
            self._location = None
            return None
        reached = await self._status(self._location, candidate, failover)
        if not 0 < reached <= self._blob.size:
            self._location = None
            self._chunk = self._chunk or (_CHUNK * broke)
            return None
        self._progress(reached, failover)
        return reached

    async def _status(self, place: URL, candidate: Candidate, failover: Failover) -> int:
        """How many bytes the registry has of an upload; 0 where it has none, or does not know it."""
        try:
            reply = await self._ask(candidate, "GET", place, failover)
            await self._session.demand(reply, 200, 202, 204)
        except RegistryError as error:
            if error.retryable:
                raise
            return 0
        self._location = location(reply) if reply.header("Location") else place
        return _reached(reply)

    async def _begin(self, candidate: Candidate, failover: Failover) -> int | None:
        """Begin an upload, of which the registry has nothing; None when it took the blob from another repository."""
        reply = None
        if self._mount_from:
            reply = await mount(self._session, self._blob, self._mount_from, candidate, failover)
            self._mount_from = "" if reply is None else self._mount_from
        if reply is None:
            reply = await self._ask(candidate, "POST", "blobs/uploads/", failover)
            await self._session.demand(reply, 202)
        elif reply.status == 201:
            return None
        self._location = location(reply)
        least = reply.header("OCI-Chunk-Min-Length")
        if least.isascii() and least.isdecimal() and 0 < int(least[:12]) <= _LARGEST_CHUNK:
            self._chunk = max(self._chunk or _CHUNK, int(least))
        await self._remember(candidate)
        return 0

    async def _send(self, reached: int, candidate: Candidate, failover: Failover) -> None:
        """Send all that the registry does not have, and close the upload."""
        size = self._blob.size
        if reached or (self._chunk and size > self._chunk):
            while reached < size:
                reached = await self._send_chunk(reached, min(self._chunk or size, size - reached), candidate, failover)
            body = _NOTHING
        else:
            body = self._body.part(0, size)
        self._step = "close" if body is _NOTHING else "part"
        reply = await self._ask(candidate, "PUT", self._closing(), failover, body)
        await self._session.demand(reply, 201)
        check_digest(reply, self._blob)
        await self._remembered.drop()

    async def _send_chunk(self, start: int, size: int, candidate: Candidate, failover: Failover) -> int:
        """Send one chunk; how far the registry has come."""
        self._step = "part"
        assert self._location is not None
        place = {"Content-Range": f"{start}-{start + size - 1}"}
        reply = await self._ask(candidate, "PATCH", self._location, failover, self._body.part(start, size), place)
        await self._session.demand(reply, 202)
        reached = _reached(reply) if reply.header("Range") else start + size
        if not start < reached <= start + size:
            raise FormatError(f"{reply.url}: the registry has {reached} bytes, after {start} and {size} of an upload")
        self._location = location(reply) if reply.header("Location") else self._location
        self._progress(reached, failover)
        await self._remember(candidate)
        return reached

    def _progress(self, reached: int, failover: Failover) -> None:
        """The registry has so much of the blob: what is new of it renews the tries."""
        failover.progressed(max(0, reached - self._best))
        self._best = max(self._best, reached)

    def _closing(self) -> URL:
        assert self._location is not None
        mark = "&" if self._location.raw_query_string else "?"
        return parse_url(f"{self._location}{mark}digest={quote(str(self._blob.digest), safe='')}")

    async def _check(self, candidate: Candidate, failover: Failover) -> None:
        """Ask whether the registry has what it took.

        Raises:
            IntegrityError: it has something else.
            NotFoundError: it has nothing.
        """
        path = f"blobs/{self._blob.digest}"
        for wait_s in _HELD_S:
            await asyncio.sleep(wait_s)
            held = await self._session.head(candidate, path, failover.patience)
            if held is not None:
                if (error := held.difference(self._blob)) is not None:
                    raise error
                return
        url = f"{candidate.server}/{candidate.endpoint.path}/{path}"
        raise NotFoundError(f"{url}: the registry took the blob, and does not have it", url=url, status=404)

    async def _learn(self, error: RegistryError | TransportError | FormatError) -> None:
        """Decide by an error how the next try begins, and whether there is one."""
        status = error.status if isinstance(error, RegistryError) else 0
        if isinstance(error, TransportError) or self._step == "begin" or (status != 416 and error.retryable):
            return
        if status == 416:  # it has more or less than it said; the next try asks
            error.retryable = True
            return
        await self.restart()
        size = self._chunk or self._blob.size
        if status == 413 and size > _LEAST_CHUNK:
            self._chunk = max(_LEAST_CHUNK, min(_CHUNK, size // 2))
            error.retryable = True
            return
        if status in (405, 501):
            self._chunk = 0
        self._lost += 1
        error.retryable = status in (0, 400, 404, 405, 501) and self._lost < _LOST

    async def _remember(self, candidate: Candidate) -> None:
        if self._location is not None:
            await self._remembered.keep(candidate.server, self._location, self._body.points)

    async def _ask(
        self,
        candidate: Candidate,
        method: str,
        path: str | URL,
        failover: Failover,
        body: Upload | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        fields = {**(_KIND if body is not None else {}), **(headers or {})}
        return await self._session.ask(candidate, path, fields, method=method, patience=failover.patience, body=body)


def _reached(reply: Reply) -> int:
    """How many bytes a registry has of an upload; 0 where it does not say, or says what may be none as well as one."""
    match = _RANGE.fullmatch(reply.header("Range"))
    last = int(match[1]) if match else 0
    return last + 1 if last else 0


async def mount(
    session: PushSession, blob: Descriptor, source: str, candidate: Candidate, failover: Failover
) -> Reply | None:
    """Have a registry take a blob from another of its repositories: 201, or an upload in place of that: 202.

    Returns: its answer; None when it refuses.
    Raises:
        RegistryError, TransportError: it does not say.
    """
    query = urlencode({"mount": str(blob.digest), "from": source})
    try:
        reply = await session.ask(candidate, f"blobs/uploads/?{query}", {}, method="POST", patience=failover.patience)
        await session.demand(reply, 201, 202)
    except RegistryError as error:
        if error.retryable:
            raise
        session.also = ""  # it may be the token for the other repository that is not to be had
        return None
    if reply.status == 201:
        check_digest(reply, blob)
    return reply
