"""A layer that was made here becomes a blob of the containerd that asks, by its content service.

Spec: containerd api/services/content/v1 (``Write``, ``Update``).
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

from fastoci.containerd import methods
from fastoci.containerd.messages import (
    COMMIT,
    STAT,
    WRITE,
    ContentInfo,
    FieldMask,
    UpdateContentRequest,
    WriteRequest,
    WriteResponse,
)
from fastoci.containerd.rpc import Code, Connection, Stream
from fastoci.errors import ContainerdError, FormatError, StoreError
from fastoci.image.descriptor import Descriptor
from fastoci.transfer.workers import WorkerPool

_PIECE: Final = 4 << 20  # bytes of one message


class Committing:
    """Commits blobs over a connection; ``metadata`` is the namespace of the request, and its lease."""

    def __init__(self, connection: Connection, workers: WorkerPool, metadata: Mapping[str, str]) -> None:
        self._connection = connection
        self._workers = workers
        self._metadata = metadata

    async def commit(self, blob: Descriptor, fd: int, ref: str, labels: Mapping[str, str]) -> None:
        """Have a blob in the content store, with these labels; one that is there gets them.

        Args:
            ref: of the ingest; empty: one of its own.
        Raises:
            ContainerdError: containerd refuses it, or cannot be asked. StoreError: the disk refused.
        """
        request = WriteRequest(STAT, ref or f"{time.time_ns()}-{secrets.token_hex(4)}", blob.size, str(blob.digest))
        try:
            async with self._connection.stream(methods.CONTENT_WRITE, self._metadata) as stream:
                offset = (await _step(stream, request)).offset
                await self._write(stream, request, fd, offset)
                last = WriteRequest(COMMIT, request.ref, blob.size, request.expected, blob.size, b"", labels)
                await _step(stream, last)
        except ContainerdError as error:
            if error.code != Code.ALREADY_EXISTS:
                raise
            mask = FieldMask(tuple(f"labels.{key}" for key in labels))
            update = UpdateContentRequest(ContentInfo(str(blob.digest), labels=labels), mask)
            await self._connection.call(methods.CONTENT_UPDATE, update.encode(), self._metadata)

    async def _write(self, stream: Stream, request: WriteRequest, fd: int, offset: int) -> None:
        while offset < request.total:
            piece = await self._workers.run(partial(os.pread, fd, _PIECE, offset))
            if not piece:
                text = f"{request.expected} ends after {offset} of {request.total} bytes"
                raise StoreError(text, path=request.expected)
            await _step(stream, WriteRequest(WRITE, request.ref, request.total, request.expected, offset, piece))
            offset += len(piece)


async def _step(stream: Stream, request: WriteRequest) -> WriteResponse:
    await stream.send(request.encode())
    answer = await stream.receive()
    if answer is None:
        raise stream.failure("containerd ended an ingest early", Code.UNKNOWN)
    try:
        return WriteResponse.decode(answer)
    except FormatError as error:
        raise stream.failure(f"the answer cannot be read: {error}", Code.INTERNAL) from error
