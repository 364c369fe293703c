"""One repository as a source of images and blobs: manifests by name or digest, blobs as buffers in order.

It knows the paths of the distribution API and what an answer must look like; it knows nothing of logins and
connections. Blobs are not verified here; manifests are, because they come whole.

Spec: distribution-spec v1.1, pulling manifests and blobs.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import AbstractContextManager, aclosing
from functools import partial
from typing import Final, TypeVar

from fastoci._core import Buffer
from fastoci.errors import (
    ConnectError,
    DigestMismatchError,
    FastociError,
    FormatError,
    NotFoundError,
    RateLimitedError,
    RegistryError,
    TransportError,
    UnsupportedError,
)
from fastoci.image import index, manifest, mediatype
from fastoci.image.attachments import parse_referrers, referrers_tag
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.image.stored_image import origin
from fastoci.interfaces import BufferSource
from fastoci.registry.fetch.arrival import Arrival
from fastoci.registry.fetch.body import wrong_length
from fastoci.registry.fetch.failover import Candidate
from fastoci.registry.fetch.lists import Lists
from fastoci.registry.fetch.parallel_ranges import ParallelRanges, ReadAheadBudget
from fastoci.registry.fetch.resuming_range import ResumingRange
from fastoci.registry.fetch.session import RepositorySession
from fastoci.registry.http.content_encoding import SLACK, codings, content_type, document
from fastoci.registry.http.error_response import error_of
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.throughput import StallPolicy
from fastoci.registry.http.untrusted import parsed

_LOG: Final = logging.getLogger(__name__)
_ACCEPT: Final = ", ".join(mediatype.ACCEPT)

T = TypeVar("T")


class Repository:
    """One repository of a registry and its mirrors: an ``ImageSource`` and a ``BlobSource``.

    Args:
        read_ahead: what all fetches of the client hold ahead of their turn.
        manifest_size: bytes of one manifest or index, at most.
        foreign: a blob that is not there may be had at the addresses that its descriptor names.
    """

    def __init__(
        self, session: RepositorySession, read_ahead: ReadAheadBudget, *, manifest_size: int, foreign: bool = False
    ) -> None:
        self._session = session
        self._read_ahead = read_ahead
        self._manifest_size = manifest_size
        self._foreign = foreign
        self._senders: dict[Digest, dict[str, None]] = {}  # of the bytes of a blob, in their order
        self._corrupt: dict[Digest, set[str]] = {}

    @property
    def name(self) -> str:
        """``domain/path``."""
        return self._session.reference.name

    async def resolve(
        self, reference: Reference, held: tuple[Descriptor, bytes] | None = None
    ) -> tuple[Descriptor, bytes]:
        """The manifest or index that the reference's digest, else its tag, names, as served; one of Docker's schema 1
        without its signatures, which no digest covers.

        Args:
            held: what the reference named before; when it still does, a HEAD or nothing is all that is asked.
        Raises:
            DigestMismatchError: the bytes are not those of the reference's digest.
            FormatError: the answer is not a manifest, or is too large.
            UnsupportedError: it has a digest of an algorithm that cannot be verified.
            NotFoundError, RegistryError, TransportError: it cannot be had.
        """
        if held is not None:
            wanted = reference.digest or await self._from_any(
                reference, lambda candidate, _: self._head(candidate, reference), head=True
            )
            if wanted == origin(held[0]):
                return held
        return await self._from_any(reference, lambda candidate, stall: self._resolve(candidate, reference, stall))

    async def _head(self, candidate: Candidate, reference: Reference) -> Digest | None:
        """The digest that a tag names, as the registry claims; None when it does not say.

        Whatever refuses a HEAD may answer a GET: old registries know none, and an address may be signed for GET alone.

        Raises:
            ConnectError, RateLimitedError: what a GET would meet as well, and had better wait for.
            CredentialError: as ``RepositorySession.ask``.
        """
        path = f"manifests/{reference.target}"
        try:
            reply = await self._session.ask(candidate, path, {"Accept": _ACCEPT}, method="HEAD")
        except (ConnectError, RateLimitedError):
            raise
        except (RegistryError, TransportError) as error:
            _LOG.debug("%s: no HEAD, a GET instead: %s", candidate.server, error.cause)
            return None
        try:
            if reply.status == 429:
                raise await error_of(reply)
            return _claimed(reply) if reply.status == 200 else None
        finally:
            reply.close()

    async def _resolve(
        self, candidate: Candidate, reference: Reference, stall: StallPolicy
    ) -> tuple[Descriptor, bytes]:
        limit = self._manifest_size
        reply, data = await self._manifest(candidate, reference.target, limit, stall)
        if len(data) > limit:
            raise FormatError(f"{reply.url}: the manifest is larger than {limit} bytes")
        media_type = _media_type(reply, data)
        if media_type in mediatype.SCHEMA1:
            media_type, data = mediatype.DOCKER_SCHEMA1, _unsigned(data, reply.url)
        digest = reference.digest or Digest.of(data)
        _check(reference.digest or _claimed(reply) or digest, data, reply.url)
        media_type = _read_as(media_type, data, reply.url, is_proven=reference.digest is not None)
        return Descriptor(media_type=media_type, digest=digest, size=len(data)), data

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index, verified against its descriptor.

        Raises:
            SizeMismatchError, DigestMismatchError: other bytes.
            FormatError: the descriptor promises more than is read of a manifest.
            NotFoundError, RegistryError, TransportError: it cannot be had.
        """
        limit = self._manifest_size
        if descriptor.size > limit:
            raise FormatError(f"{descriptor.digest}: a manifest of {descriptor.size} bytes, more than {limit}")
        carried = _carried(descriptor)
        if carried is not None:
            return carried
        digest = str(descriptor.digest)
        try:
            return await self._from_any(
                None, lambda candidate, stall: self._promised(candidate, descriptor, stall), blob=digest
            )
        except FastociError as error:
            error.blob = digest  # an index names it: the reference that was asked for is there
            raise

    async def size_of(self, digest: Digest) -> int:
        """How large a blob is, which no document says. As the registry claims: its bytes are held against that.

        Raises:
            FormatError: the registry does not say.
            NotFoundError, RegistryError, TransportError: it cannot be had.
        """
        return await self._from_any(None, partial(self._size_of, digest), blob=str(digest))

    async def _size_of(self, digest: Digest, candidate: Candidate, stall: StallPolicy) -> int:
        for method in ("HEAD", "GET"):  # an address that a registry redirects to may be signed for GET alone
            reply = await self._session.ask(candidate, f"blobs/{digest}", {}, method=method, patience=stall.patience)
            try:
                if reply.status == 200 and reply.length is not None and not codings(reply):
                    return reply.length
                if reply.status not in (200, 403, 405) or (reply.status != 200 and method == "GET"):
                    raise await error_of(reply)
            finally:
                reply.close()
        raise FormatError(f"{reply.url}: the registry does not say how large it is")

    async def _promised(self, candidate: Candidate, descriptor: Descriptor, stall: StallPolicy) -> bytes:
        reply, data = await self._manifest(candidate, str(descriptor.digest), descriptor.size, stall)
        if len(data) != descriptor.size:
            raise wrong_length(descriptor, len(data))
        _check(descriptor.digest, data, reply.url)
        return data

    async def _from_any(
        self,
        reference: Reference | None,
        ask: Callable[[Candidate, StallPolicy], Awaitable[T]],
        *,
        head: bool = False,
        blob: str = "",
    ) -> T:
        """What the first candidate says that has an answer."""
        tag = reference is not None and reference.digest is None
        if reference is not None and reference.digest is not None:
            blob = str(reference.digest)
        failover = self._session.failover(tag=tag, manifest=not head, blob=blob)
        return await failover.run(
            lambda candidate: ask(
                candidate, StallPolicy(lag=partial(failover.slow, candidate), patience=failover.patience)
            )
        )

    async def tags(self) -> tuple[str, ...]:
        """All tags of the repository, in the registry's order, each once. Raises: as ``Lists.tags``."""
        return await self.lists.tags()

    @property
    def lists(self) -> Lists:
        """What the registry lists of the repository."""
        return Lists(self._session, self._manifest_size)

    async def referrers(self, subject: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """What hangs on a manifest or index: what the registry lists, else what the tag for such registries lists.

        Args:
            artifact_type: of this type alone.
        Raises:
            FormatError, UnsupportedError: the list is none, is too large, or does not end.
            RegistryError, TransportError: it cannot be had.
        Spec: distribution-spec v1.1, "Listing Referrers", "Unavailable Referrers API".
        """
        found = await self.lists.referrers(subject, artifact_type)
        if found is None:
            top = await self.tagged(referrers_tag(subject))
            found = () if top is None or top[0].media_type not in mediatype.INDEXES else parse_referrers(top[1])
        return tuple(entry for entry in found if artifact_type in ("", entry.artifact_type))

    async def tagged(self, tag: str) -> tuple[Descriptor, bytes] | None:
        """The manifest or index under another tag of the repository; None when it has none. Raises: as ``resolve``."""
        of = self._session.reference
        try:
            return await self.resolve(Reference(of.domain, of.path, tag, None))
        except NotFoundError:
            return None

    async def fetch(self, blob: Descriptor, offset: int, buffers: BufferSource) -> AsyncGenerator[Buffer, None]:
        """Yield the blob's bytes from ``offset`` on, as ``BlobSource`` says; what arrived before an error comes first.

        Bytes that the descriptor itself carries, and that hold, are used without a request.
        """
        if not 0 <= offset <= blob.size:
            raise ValueError(f"offset {offset} of a blob of {blob.size} bytes")
        if offset == blob.size:
            return
        carried = _carried(blob)
        if carried is not None:
            while offset < blob.size:
                copied = await buffers.take()
                offset += copied.append(carried, offset)
                yield copied
            return
        session = self._session
        while True:
            try:
                async with aclosing(self._received(session, blob, offset, buffers)) as arriving:
                    async for buffer in arriving:
                        offset += len(buffer)
                        yield buffer
                return
            except NotFoundError as error:
                if session is not self._session or not blob.urls:
                    raise
                session = self._elsewhere(blob, error)

    def _elsewhere(self, blob: Descriptor, absent: NotFoundError) -> RepositorySession:
        """Access to a blob that the registry does not have, where its descriptor says.

        Raises:
            NotFoundError: that is not allowed, or nowhere.
        """
        hint = f"it is at {blob.urls[0][:200]!r}, which --download-foreign-layers allows to ask"
        if self._foreign:
            found = self._session.elsewhere(blob.urls)
            if found is not None:
                _LOG.debug("%s is asked for where its descriptor says: %s", blob.digest, blob.urls)
                return found
            hint = f"none of its addresses is https: {blob.urls[0][:200]!r}"
        text = f"{absent.message}; {hint}"
        raise NotFoundError(text, url=absent.url, status=absent.status, code=absent.code) from absent

    async def _received(
        self, session: RepositorySession, blob: Descriptor, offset: int, buffers: BufferSource
    ) -> AsyncGenerator[Buffer, None]:
        failover = session.failover(
            tag=False, manifest=False, blob=str(blob.digest), corrupt=self._corrupt.get(blob.digest, ())
        )
        await failover.begin()
        senders: dict[str, None] = {}
        self._senders[blob.digest] = senders
        stream = ResumingRange(
            session, blob, failover, offset, sent=lambda candidate: senders.setdefault(candidate.server)
        )
        ranges = ParallelRanges(session, blob, stream, buffers, self._read_ahead)
        try:
            with Arrival(session.observer, blob, ranges.received):
                async with aclosing(ranges.bytes()) as arriving:
                    async for buffer in arriving:
                        yield buffer
            failover.done()
        finally:
            await ranges.close()

    def expecting(self, blob: Descriptor) -> AbstractContextManager[None]:
        """Around the fetch of a blob, and the wait before it: others leave a connection for it."""
        return self._read_ahead.expecting(blob)

    def served_by(self, blob: Descriptor) -> tuple[str, ...]:
        """The servers that sent bytes of the last fetch of this blob, the first that did first."""
        return tuple(self._senders.get(blob.digest, ()))

    def report_corrupt(self, blob: Descriptor, servers: Collection[str]) -> None:
        """These servers sent wrong bytes of this blob, now or in an earlier run: ask them last."""
        self._corrupt.setdefault(blob.digest, set()).update(servers)

    async def _manifest(self, candidate: Candidate, target: str, limit: int, stall: StallPolicy) -> tuple[Reply, bytes]:
        """Up to ``limit`` + 1 bytes of a manifest; the reply is closed."""
        path, accept = f"manifests/{target}", {"Accept": _ACCEPT}
        reply = await self._session.ask(candidate, path, accept, patience=stall.patience)
        try:
            if reply.status != 200:
                raise await error_of(reply)
            longest = limit + SLACK if codings(reply) else limit
            return reply, document(reply, await reply.read(longest, stall.lag), limit)
        finally:
            reply.close()


def _media_type(reply: Reply, data: bytes) -> str:
    """The type that a document comes as; what it says itself where that is no type of a manifest or index.

    Raises:
        FormatError: it says nothing, or could be several things.
    """
    label = content_type(reply)
    if label in mediatype.INDEXES | mediatype.MANIFESTS:
        return label
    try:
        return manifest.sniff(data)
    except FormatError as error:
        if label in mediatype.SCHEMA1:
            return label
        page = label == "text/html" or data.lstrip()[:1] == b"<"
        what = "a page for people came in place of a manifest; is a login or portal in between?" if page else error
        raise FormatError(f"{reply.url}: {what}") from error


def _read_as(media_type: str, data: bytes, url: str, *, is_proven: bool) -> str:
    """The type by which a document can be read: the one that it came with, else its own.

    It is read here, where another candidate can be asked, and not when it is used.

    Args:
        is_proven: its digest was asked for. A tag proves nothing: others take the label of what it names for its type.
    Raises:
        FormatError: it is another kind of document, or none, or could be several.
        UnsupportedError: it is not a type of manifest or index.
    """
    try:
        try:
            _parse(data, media_type)
        except FormatError as error:
            own = parsed(manifest.sniff, data)
            if own is None or own == media_type or own not in mediatype.INDEXES | mediatype.MANIFESTS:
                raise
            if not is_proven:
                raise FormatError(f"{error}; by {Digest.of(data)} in place of its tag it is read as {own}") from error
            _LOG.debug("%s: %s, read as %s", url, error, own)
            _parse(data, own)
            return own
    except (FormatError, UnsupportedError) as error:
        raise type(error)(f"{url}: {error}") from error
    return media_type


def _unsigned(data: bytes, url: str) -> bytes:
    """What the digest of a manifest of schema 1 covers."""
    from fastoci.image import schema1  # which few images are

    try:
        return schema1.payload_of(data)
    except FormatError as error:
        raise FormatError(f"{url}: {error}") from error


def _parse(data: bytes, media_type: str) -> None:
    if media_type in mediatype.INDEXES:
        index.parse(data, media_type, choosing=True)
    elif media_type in mediatype.SCHEMA1:
        from fastoci.image import schema1

        schema1.parse(data)
    else:
        manifest.parse(data, media_type)


def _claimed(reply: Reply) -> Digest | None:
    """The digest that the registry claims, to hold its bytes against; None when it claims none that is known."""
    header = reply.header("Docker-Content-Digest")
    return parsed(Digest.parse, header) if header else None


def _check(digest: Digest, data: bytes, url: str) -> None:
    actual = Digest.of(data, digest.algorithm)
    if actual != digest:
        raise DigestMismatchError(
            f"{url}: expected {digest}, the {len(data)} bytes received are {actual}",
            subject=str(digest),
            expected=str(digest),
            actual=str(actual),
        )


def _carried(blob: Descriptor) -> bytes | None:
    """The bytes that a descriptor carries, when they are the ones it promises."""
    data = blob.data
    if data is None or len(data) != blob.size or Digest.of(data, blob.digest.algorithm) != blob.digest:
        return None
    return data
