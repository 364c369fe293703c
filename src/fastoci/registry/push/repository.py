"""One repository as a destination: blobs out of open files, then the manifests that name them.

A blob is asked for first, then mounted from another repository of the registry where it may be there, then uploaded
whole, in one request. A try that fails begins a new upload; nothing of it is visible before the registry has hashed it.

Rules:
1. Only the registry that the reference names is written to, never a mirror.
2. Where an upload goes is said by the registry, and may be another host: that one gets neither credentials nor headers
   of ours, may be no nearer than a redirect may lead, and is https where the registry is.
3. Bytes are read from the file as the connection takes them: a piece at a time is in memory.

Spec: distribution-spec v1.1, "Pushing blobs" ("Monolithically", "Mounting a blob"), "Pushing manifests".
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import ClassVar, Final, Literal, TypeVar
from urllib.parse import quote, urlencode

from yarl import URL

from fastoci.aio import wait_to_end
from fastoci.errors import FormatError, StoreError, TransportError
from fastoci.files import failure
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.registry.fetch.failover import Candidate
from fastoci.registry.fetch.session import RepositorySession
from fastoci.registry.http.error_response import error_of
from fastoci.registry.http.first_byte import Patience
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.throughput import drips
from fastoci.registry.http.upload import Upload
from fastoci.registry.http.urls import parse_url, quoted

_PIECE: Final = 1 << 20  # bytes
_ACCEPT: Final = ", ".join(mediatype.ACCEPT)
_WORDS: Final = 4096  # bytes of an answer that says yes

T = TypeVar("T")
Way = Literal["there", "mounted", "uploaded"]


class PushSession(RepositorySession):
    """A session that may write."""

    actions: ClassVar[str] = "pull,push"


class PushRepository:
    """One repository of a registry that takes blobs and manifests. The registry holds both against their digests."""

    def __init__(self, session: PushSession) -> None:
        self._session = session

    @property
    def name(self) -> str:
        """``domain/path``."""
        return self._session.reference.name

    async def put_blob(self, blob: Descriptor, fd: int, *, mount_from: str = "") -> Way:
        """Bring a blob into the repository, unless it is there; how it came.

        Args:
            fd: a file with its bytes, which stays open until this returns.
            mount_from: the path of another repository of the same registry that may have it.
        Raises:
            RegistryError, TransportError: the registry does not take it, by any try.
            StoreError: the file cannot be read.
        """
        if await self._any(blob, partial(self._has, f"blobs/{blob.digest}")):
            return "there"
        return await self._any(blob, partial(self._upload, blob, fd, mount_from))

    async def take_blob(self, blob: Descriptor, *, mount_from: str = "") -> Way | None:
        """Have the repository take a blob without its bytes: how it came, or None when these are needed.

        Args:
            mount_from: as of ``put_blob``.
        Raises:
            RegistryError, TransportError: the registry does not say.
        """
        if await self._any(blob, partial(self._has, f"blobs/{blob.digest}")):
            return "there"
        mounted = bool(mount_from) and await self._any(blob, partial(self._mount, blob, mount_from))
        return "mounted" if mounted else None

    async def put_manifest(self, descriptor: Descriptor, data: bytes, target: str = "") -> None:
        """Give a manifest or index to the registry, after all that it names.

        Args:
            target: the tag that names it from then on; without one its digest is all that does.
        Raises:
            RegistryError, TransportError: the registry does not take it.
        """
        await self._any(descriptor, partial(self._put_manifest, descriptor, data, target or str(descriptor.digest)))

    async def has_manifest(self, descriptor: Descriptor) -> bool:
        """Whether the registry has a manifest or index under its digest. Raises: as ``put_manifest``."""
        return await self._any(descriptor, partial(self._has, f"manifests/{descriptor.digest}"))

    async def _any(self, blob: Descriptor, ask: Callable[[Candidate, Patience | None], Awaitable[T]]) -> T:
        failover = self._session.failover(tag=False, manifest=False, blob=str(blob.digest))
        return await failover.run(lambda candidate: ask(candidate, failover.patience))

    async def _has(self, path: str, candidate: Candidate, patience: Patience | None) -> bool:
        reply = await self._session.ask(candidate, path, {"Accept": _ACCEPT}, method="HEAD", patience=patience)
        try:
            if reply.status == 404:
                return False
            if reply.status != 200:
                raise await error_of(reply)
            return True
        finally:
            reply.close()

    async def _upload(
        self, blob: Descriptor, fd: int, mount_from: str, candidate: Candidate, patience: Patience | None
    ) -> Way:
        reply = await self._begin(blob, mount_from, candidate, patience)
        if reply.status == 201:
            return "mounted"
        source, place = _Source(fd, blob), _place(reply, blob)
        kind, body = {"Content-Type": "application/octet-stream"}, Upload(blob.size, source.pieces)
        try:
            reply = await self._session.ask(candidate, place, kind, method="PUT", patience=patience, body=body)
            await _demand(reply, 201)
        except TransportError:
            if source.error is None:
                raise
            raise source.error from None
        finally:
            await source.settle()
        _check(reply, blob)
        return "uploaded"

    async def _mount(self, blob: Descriptor, mount_from: str, candidate: Candidate, patience: Patience | None) -> bool:
        """Whether it was mounted; an upload that the registry began in place of that gets no bytes, and expires."""
        return (await self._begin(blob, mount_from, candidate, patience)).status == 201

    async def _begin(self, blob: Descriptor, mount_from: str, candidate: Candidate, patience: Patience | None) -> Reply:
        """Begin an upload, unless the blob can be mounted: the answer's status is 201 then."""
        query = f"?{urlencode({'mount': str(blob.digest), 'from': mount_from})}" if mount_from else ""
        reply = await self._session.ask(candidate, f"blobs/uploads/{query}", {}, method="POST", patience=patience)
        await _demand(reply, 202, *([201] if query else []))
        if reply.status == 201:
            _check(reply, blob)
        return reply

    async def _put_manifest(
        self, descriptor: Descriptor, data: bytes, target: str, candidate: Candidate, patience: Patience | None
    ) -> None:
        reply = await self._session.ask(
            candidate,
            f"manifests/{target}",
            {"Content-Type": descriptor.media_type},
            method="PUT",
            patience=patience,
            body=Upload.of(data),
        )
        await _demand(reply, 201)
        _check(reply, descriptor)


async def _demand(reply: Reply, *statuses: int) -> None:
    """Read an answer that has one of these statuses to its end.

    Raises:
        RegistryError: it has another.
    """
    if reply.status not in statuses:
        raise await error_of(reply)
    try:
        await reply.read(_WORDS, drips)
    finally:
        reply.close()


def _check(reply: Reply, blob: Descriptor) -> None:
    """Refuse an answer that is about something else."""
    said = reply.header("Docker-Content-Digest")
    if said and said != str(blob.digest):
        raise FormatError(f"{reply.url}: the registry says that it took {said[:200]!r} in place of {blob.digest}")


def _place(reply: Reply, blob: Descriptor) -> URL:
    """Where the bytes go: what the registry answers, byte for byte, and the digest behind it."""
    location = reply.header("Location")
    try:
        if not location:
            raise ValueError("no address")
        place = parse_url(quoted(location), base=parse_url(reply.url))
        mark = "&" if place.raw_query_string else "?"
        return parse_url(f"{place}{mark}digest={quote(str(blob.digest), safe='')}")
    except ValueError as error:
        raise FormatError(f"{reply.url}: the registry does not say where to upload to: {error}") from error


class _Source:
    """The bytes of one blob out of an open file; ``error`` says why they ended, when the file is to blame."""

    def __init__(self, fd: int, blob: Descriptor) -> None:
        self.error: StoreError | None = None
        self._fd = fd
        self._blob = blob
        self._reads: set[asyncio.Task[bytes]] = set()  # on threads

    async def settle(self) -> None:
        """Wait for the reads that are under way, of a body that was given up: nothing is closed under a thread."""
        if self._reads:
            _, cancelled = await wait_to_end(asyncio.wait(self._reads))
            if cancelled:
                raise asyncio.CancelledError

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of them, from the first on."""
        name, size, offset = str(self._blob.digest), self._blob.size, 0
        while offset < size:
            read = asyncio.create_task(asyncio.to_thread(os.pread, self._fd, min(_PIECE, size - offset), offset))
            self._reads.add(read)
            read.add_done_callback(self._reads.discard)
            try:
                piece, cancelled = await wait_to_end(read)
            except OSError as error:
                self.error = failure(error, "read", name)
                raise
            if cancelled:
                raise asyncio.CancelledError
            if not piece:
                self.error = StoreError(f"{name}: the file ends after {offset} of {size} bytes", path=name)
                raise EOFError
            offset += len(piece)
            yield piece
