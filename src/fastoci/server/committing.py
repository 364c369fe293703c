"""A layer that was made here becomes a blob of the containerd that asks, by its content service.

Spec: containerd api/services/content/v1 (``Write``, ``Update``).
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from functools import partial

from fastoci.containerd import methods
from fastoci.containerd.ingest import PIECE, Ingest
from fastoci.containerd.messages import ContentInfo, FieldMask, UpdateContentRequest
from fastoci.containerd.rpc import Code, Connection
from fastoci.errors import ContainerdError
from fastoci.image.descriptor import Descriptor
from fastoci.transfer.workers import WorkerPool


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
        name = ref or f"{time.time_ns()}-{secrets.token_hex(4)}"
        try:
            async with self._connection.stream(methods.CONTENT_WRITE, self._metadata) as stream:
                ingest = Ingest(stream, blob, name)
                await ingest.send(await ingest.begin(), lambda at: self._workers.run(partial(os.pread, fd, PIECE, at)))
                await ingest.commit(labels)
        except ContainerdError as error:
            if error.code != Code.ALREADY_EXISTS:
                raise
            mask = FieldMask(tuple(f"labels.{key}" for key in labels))
            update = UpdateContentRequest(ContentInfo(str(blob.digest), labels=labels), mask)
            await self._connection.call(methods.CONTENT_UPDATE, update.encode(), self._metadata)
