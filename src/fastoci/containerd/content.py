"""Blobs of a store become blobs of containerd's content store, without their bytes wherever that can be.

The file is put where containerd looks for it (``blob_files``); then an ingest with its digest is opened and committed
with no bytes in it, which containerd takes for a blob that another namespace has. Where the directory cannot be reached
or is not shared by its policy, the bytes are sent.

1. Between the file and the ingest a gc of containerd's may sweep the file: then both are done again.
2. An open ingest keeps the file, and the lease keeps the blob when it is committed.
3. What has been committed by somebody else meanwhile is found so: the lease keeps that, too.

Spec: containerd API v1, ``services.content.v1``, and its metadata store's "content sharing policy".
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, Literal, TypeVar

import msgspec

from fastoci import files
from fastoci.containerd import labels, methods
from fastoci.containerd.blob_files import BlobFiles, Placed, Way
from fastoci.containerd.client import Client
from fastoci.containerd.codec import Message
from fastoci.containerd.ingest import PIECE, Ingest
from fastoci.containerd.messages import (
    ContentInfo,
    Empty,
    FieldMask,
    FiltersRequest,
    InfoResponse,
    ListContentResponse,
    NameRequest,
    ReadRequest,
    ReadResponse,
    UpdateContentRequest,
)
from fastoci.containerd.rpc import Code
from fastoci.errors import ContainerdError, StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.threads import Threads, check

M = TypeVar("M", bound=Message)
How = Way | Literal["present", "sent"]
Step = Literal["present", "committed", "absent"]

_SWEPT: Final = 8  # times that a file may be swept before its bytes are sent
# Of a directory that is not ours to write: containerd can.
_UNREACHABLE: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT)


class Recorded(msgspec.Struct, frozen=True):
    """How a blob came into the content store, and why not by a hard link; ``sent`` bytes went through the socket."""

    how: How
    why: str = ""
    sent: int = 0


class ContentStore:
    """The content store of a client's containerd. Made by ``open``; all calls carry the client's lease.

    ``why`` says why its directory is not used; empty when it is.
    """

    def __init__(self, client: Client) -> None:
        self.why = ""
        self._client = client
        self._threads = Threads()
        self._opened: BlobFiles | None = None  # closed at the end alone: threads use it
        self._files: BlobFiles | None = None  # the same, as long as it is of use
        self._sending = asyncio.Lock()  # one at a time: each has a message of 4 MiB in its hands

    async def __aenter__(self) -> ContentStore:
        server = self._client.server
        if not server.is_shared:
            self.why = "its policy isolates the content of namespaces"
        elif server.content_root is None:
            self.why = "containerd does not say where its content is"
        else:
            opening = partial(BlobFiles, server.content_root, server.owner, server.pid)
            try:
                self._opened, cancelled = await self._threads.run_to_end(opening)
            except StoreError as error:
                self.why = error.message
            else:
                self._files = self._opened
                if cancelled:
                    self.close()
                    raise asyncio.CancelledError
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the directory."""
        self._threads.close()
        if self._opened is not None:
            self._opened.close()

    async def held(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        """Those of these whose files are there, recorded in a namespace or not.

        Raises:
            StoreError: the disk refused to tell.
        """
        if self._files is None:
            return []
        held = self._files
        return await self._threads.run(lambda: [blob for blob in blobs if held.holds(blob)])

    async def info(self, digest: Digest) -> ContentInfo | None:
        """What is recorded of a blob in the namespace; None when it is not.

        Raises:
            ContainerdError: containerd refused, or is gone.
        """
        try:
            return (await self._client.call(methods.CONTENT_INFO, NameRequest(str(digest)), InfoResponse)).info
        except ContainerdError as error:
            if error.code != Code.NOT_FOUND:
                raise
        return None

    async def sizes(self) -> dict[str, int]:
        """All that is recorded in the namespace: bytes by digest. Raises: as ``info``."""
        found: dict[str, int] = {}
        async for answer in self._answers(methods.CONTENT_LIST, FiltersRequest(), ListContentResponse):
            found.update((each.digest, each.size) for each in answer.info)
        return found

    async def read(self, digest: str, limit: int) -> bytes:
        """A small blob, of which not more than ``limit`` bytes are taken. Raises: as ``info``; it is not recorded."""
        pieces, size = [], 0
        async for answer in self._answers(methods.CONTENT_READ, ReadRequest(digest), ReadResponse):
            pieces.append(answer.data)
            size += len(answer.data)
            if size > limit:
                text = f"{digest} has more than {limit} bytes"
                raise ContainerdError(text, code=Code.RESOURCE_EXHAUSTED, path=self._client.address)
        return b"".join(pieces)

    async def _answers(self, method: str, request: Message, kind: type[M]) -> AsyncIterator[M]:
        async with await self._client.stream(method) as stream:
            await stream.send(request.encode(), last=True)
            while (answer := await stream.receive()) is not None:
                yield self._client.decoded(answer, kind)

    async def label(self, digest: Digest, wanted: Mapping[str, str]) -> None:
        """Give a recorded blob labels, beside those that it has. Raises: as ``info``; it is not recorded."""
        found = await self.info(digest)
        changed = labels.changes({} if found is None else found.labels, wanted)
        if changed:
            info = ContentInfo(str(digest), labels=changed)
            mask = FieldMask(tuple(f"labels.{key}" for key in changed))
            await self._client.call(methods.CONTENT_UPDATE, UpdateContentRequest(info, mask), InfoResponse)

    async def adopt(self, blob: Descriptor, ref: str, wanted: Mapping[str, str]) -> bool:
        """Record a blob whose file is there; False when it has been swept.

        Raises:
            ContainerdError: as ``info``.
        """
        step = await self._client.patiently(partial(self._ingest, blob, ref, wanted, None))
        if step == "present":
            await self.label(blob.digest, wanted)
        return step != "absent"

    async def record(
        self, blob: Descriptor, ref: str, open_blob: Callable[[Descriptor], int], wanted: Mapping[str, str]
    ) -> Recorded:
        """Have a blob in the namespace, under the lease, with these labels beside those that it has.

        Args:
            ref: of the ingest, as containerd's own pulls call it.
            open_blob: on a thread, opens the verified bytes.
        Raises:
            ContainerdError: containerd refused, or is gone.
            StoreError: the disk refused.
        """
        fd, cancelled = await self._threads.run_to_end(partial(open_blob, blob))
        try:
            if cancelled:
                raise asyncio.CancelledError
            recorded = await self._client.patiently(partial(self._record, blob, ref, fd, wanted))
        finally:
            files.close(fd)
        if recorded.how == "present":
            await self.label(blob.digest, wanted)
        return recorded

    async def _record(self, blob: Descriptor, ref: str, fd: int, wanted: Mapping[str, str]) -> Recorded:
        for _ in range(_SWEPT):
            placed, why = await self._place(blob, fd)
            if placed is None:
                return await self._send(blob, ref, fd, wanted, why)
            step = await self._ingest(blob, ref, wanted, None)
            if step != "absent":
                return Recorded(placed.way if placed.is_new else "present", placed.why)
            if await self.held([blob]):  # else its gc was faster
                # The link stays: somebody else may have recorded the blob by it.
                self.why = "containerd does not see it: it may run in another mount namespace"
                self._files = None
        return await self._send(blob, ref, fd, wanted, "a gc of containerd's was faster")

    async def _place(self, blob: Descriptor, fd: int) -> tuple[Placed | None, str]:
        held = self._files
        if held is None:
            return None, self.why
        try:
            return await self._threads.run(lambda: held.put(blob, fd, check)), ""
        except StoreError as error:
            if error.errno not in _UNREACHABLE:
                raise
            return None, error.message

    async def _send(self, blob: Descriptor, ref: str, fd: int, wanted: Mapping[str, str], why: str) -> Recorded:
        async with self._sending:
            step = await self._ingest(blob, ref, wanted, fd)
        return Recorded("present", why) if step == "present" else Recorded("sent", why, blob.size)

    async def _ingest(self, blob: Descriptor, ref: str, wanted: Mapping[str, str], fd: int | None) -> Step:
        """``_ingest_as``; under a name of its own where somebody else is at the ingest of this one.

        Who fetches the blob under the name meanwhile finds it recorded at the end.
        """
        try:
            return await self._ingest_as(ref, blob, wanted, fd)
        except ContainerdError as error:
            if error.code in (Code.FAILED_PRECONDITION, Code.OUT_OF_RANGE):  # what an earlier attempt left
                await self._abort(ref)
            elif error.code != Code.UNAVAILABLE or not self._client.connected:
                raise
        return await self._ingest_as(f"{ref}-{secrets.token_hex(4)}", blob, wanted, fd)

    async def _ingest_as(self, ref: str, blob: Descriptor, wanted: Mapping[str, str], fd: int | None) -> Step:
        """Open an ingest and commit it: of the file that is there, or of bytes that are sent."""
        stream = await self._client.stream(methods.CONTENT_WRITE)
        ingest, committing = Ingest(stream, blob, ref), False
        try:
            offset = await ingest.begin()
            if offset < blob.size and fd is not None:
                await ingest.send(offset, lambda at: self._threads.run(partial(os.pread, fd, PIECE, at)))
            elif offset < blob.size:
                stream.cancel()
                await self._abort(ref)
                return "absent"
            committing = True
            await ingest.commit(wanted)
        except ContainerdError as error:
            if error.code != Code.ALREADY_EXISTS:
                raise
        else:
            return "committed"
        finally:
            stream.cancel()
        # Who comes second at the commit does not get it into the lease.
        return await self._ingest_as(ref, blob, wanted, fd) if committing else "present"

    async def _abort(self, ref: str) -> None:
        with suppress(ContainerdError):  # it goes with the lease
            await self._client.call(methods.CONTENT_ABORT, NameRequest(ref), Empty)
