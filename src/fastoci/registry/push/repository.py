"""One repository as a destination: blobs out of any source, then the manifests that name them; and what is taken away.

A blob is asked for first, then mounted from another repository of the registry where it may be there, then uploaded
(``upload``). Nothing of an upload is visible before the registry has hashed it; all that it took is asked for again.

Rules:
1. Only the registry that the reference names is written to, never a mirror.
2. Where an upload goes is said by the registry, and may be another host: that one gets neither credentials nor headers
   of ours, may be no nearer than a redirect may lead, and is https where the registry is.
3. Bytes come from their source as the connection takes them: a few pieces at a time are in memory.

Spec: distribution-spec v1.1, "Pushing blobs", "Pushing manifests", "Deleting manifests".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from fastoci.errors import UnsupportedError
from fastoci.image.attachments import subject_of
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.image_interfaces import Way
from fastoci.interfaces import BlobSource, Streaming, UploadNotes
from fastoci.registry.fetch.failover import Candidate, Failover
from fastoci.registry.fetch.repository import Repository
from fastoci.registry.http.error_response import error_of
from fastoci.registry.http.untrusted import parsed
from fastoci.registry.http.upload import Upload
from fastoci.registry.push.body import Body
from fastoci.registry.push.referrers import keep_listed
from fastoci.registry.push.remembered import Remembered
from fastoci.registry.push.session import Held, PushSession, check_digest
from fastoci.registry.push.upload import BlobUpload, mount

_DELETES_NOTHING: Final = frozenset({400, 405, 501})
_BY_DIGEST: Final = "it takes away no single tag; REPOSITORY@DIGEST takes away the manifest, with all its tags"
_NOT_AT_ALL: Final = "it deletes nothing; whoever runs it can allow that (docker-registry: storage.delete.enabled)"

T = TypeVar("T")


class PushRepository:
    """One repository of a registry that takes blobs and manifests. The registry holds both against their digests.

    Args:
        reading: the same repository as a source.
        streaming: how bytes go through.
        notes: keeps what a later process needs to go on with an upload; None: nothing does.
        mount_from: the path of another repository of the same registry that may have blobs.
    """

    def __init__(
        self,
        session: PushSession,
        reading: Repository,
        streaming: Streaming,
        *,
        notes: UploadNotes | None = None,
        mount_from: str = "",
    ) -> None:
        session.also = mount_from
        self.reading = reading
        self._listing = asyncio.Lock()
        self._session = session
        self._streaming = streaming
        self._notes = notes
        self._mount_from = mount_from

    @property
    def reference(self) -> Reference:
        """What names it."""
        return self._session.reference

    @property
    def name(self) -> str:
        """``domain/path``."""
        return self._session.reference.name

    async def put_blob(self, blob: Descriptor, source: BlobSource, *, absent: bool = False) -> Way:
        """Bring a blob into the repository, unless it is there; how it came.

        Args:
            absent: nobody has to ask whether it is there.
        Raises:
            RegistryError, TransportError: the registry does not take it, by any try.
            IntegrityError: the source has other bytes; or the registry has, after it took these.
            FastociError: the source does not give it.
        """
        if not absent and await self.has_blob(blob):
            return "there"
        body = Body(blob, source, self._streaming)
        remembered = Remembered(self._notes, self.name, blob)
        upload = BlobUpload(self._session, blob, body, remembered, mount_from=self._mount_from)
        while True:
            if (way := await self._any(blob, upload.attempt)) is not None:
                return way
            if not body.forget():
                assert body.error is not None
                raise body.error
            await upload.restart()

    async def take_blob(self, blob: Descriptor) -> Way | None:
        """Have the repository take a blob without its bytes: how it came, or None when these are needed.

        Raises:
            RegistryError, TransportError: the registry does not say.
        """
        if await self.has_blob(blob):
            return "there"
        if not self._mount_from:
            return None
        mounted = await self._any(blob, partial(mount, self._session, blob, self._mount_from))
        return "mounted" if mounted is not None and mounted.status == 201 else None

    async def has_blob(self, blob: Descriptor) -> bool:
        """Whether the registry has a blob, as far as it says. Raises: as ``take_blob``."""
        return await self._has(f"blobs/{blob.digest}", blob)

    async def has_manifest(self, descriptor: Descriptor) -> bool:
        """Whether the registry has a manifest or index under its digest. Raises: as ``take_blob``."""
        return await self._has(f"manifests/{descriptor.digest}", descriptor)

    async def put_manifest(self, descriptor: Descriptor, data: bytes, tag: str = "") -> None:
        """Give a manifest or index to the registry, after all that it names.

        What hangs on another document is listed for that one: by the registry, else under the tag for such lists.

        Args:
            tag: names it from then on; without one its digest is all that does.
        Raises:
            RegistryError, TransportError: the registry does not take it.
            IntegrityError: it has something else under the name, after it took this.
            FormatError: what should list it is no list.
        """
        target = tag or str(descriptor.digest)
        lists = await self._any(descriptor, partial(self._put_manifest, descriptor, data, target, target))
        subject = parsed(subject_of, data)
        if subject is not None and not lists:
            await self._list(subject, descriptor, data, listing=True)

    async def delete(self, target: Reference) -> None:
        """Take away a tag, or a manifest or index by its digest with all tags that it has. docs/push.md.

        What hung on another document is listed for that one no more.

        Raises:
            NotFoundError: it is not there.
            UnsupportedError: the registry does not do that.
            RegistryError, TransportError: it refuses.
        """
        _, data = await self.reading.resolve(target)
        await self._any(None, partial(self._delete, target))
        if target.digest is not None and (subject := parsed(subject_of, data)) is not None:
            await self._list(subject, Descriptor("", target.digest, len(data)), data, listing=False)

    async def _delete(self, target: Reference, candidate: Candidate, failover: Failover) -> None:
        path, patience = f"manifests/{target.target}", failover.patience
        reply = await self._session.ask(candidate, path, {}, method="DELETE", patience=patience)
        if reply.status in _DELETES_NOTHING:
            refused = await error_of(reply)
            text = _BY_DIGEST if target.digest is None else _NOT_AT_ALL
            raise UnsupportedError(f"{refused.message}: {text}") from refused
        await self._session.demand(reply, 200, 202, 204)

    async def _list(self, subject: Digest, descriptor: Descriptor, data: bytes, *, listing: bool) -> None:
        if await self.reading.lists.referrers(subject) is not None:
            return

        async def put(listed: Descriptor, written: bytes, tag: str) -> None:
            own = str(listed.digest)  # another may have the tag by then
            await self._any(listed, partial(self._put_manifest, listed, written, tag, own))

        async with self._listing:
            await keep_listed(subject, descriptor, data, self.reading.tagged, put, listing=listing)

    async def _put_manifest(
        self, descriptor: Descriptor, data: bytes, target: str, asked: str, candidate: Candidate, failover: Failover
    ) -> bool:
        """Whether the registry lists it for its subject, as it says.

        Args:
            asked: under which name it is asked for afterwards.
        """
        path, kind = f"manifests/{target}", {"Content-Type": descriptor.media_type}
        patience, body = failover.patience, Upload.of(data)
        reply = await self._session.ask(candidate, path, kind, method="PUT", patience=patience, body=body)
        await self._session.demand(reply, 201)
        check_digest(reply, descriptor)
        held = await self._session.head(candidate, f"manifests/{asked}", failover.patience)
        if held is not None and (error := held.difference(descriptor)) is not None:
            raise error
        return bool(reply.header("OCI-Subject"))

    async def _has(self, path: str, descriptor: Descriptor) -> bool:
        async def ask(candidate: Candidate, failover: Failover) -> Held | None:
            return await self._session.head(candidate, path, failover.patience)

        held = await self._any(descriptor, ask)
        return held is not None and held.difference(descriptor) is None

    async def _any(self, blob: Descriptor | None, ask: Callable[[Candidate, Failover], Awaitable[T]]) -> T:
        failover = self._session.failover(tag=False, manifest=False, blob="" if blob is None else str(blob.digest))
        return await failover.run(lambda candidate: ask(candidate, failover))
