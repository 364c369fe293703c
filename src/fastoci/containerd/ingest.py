"""One blob on its way into a content store, over a stream of ``Write``: where it is, its bytes, its end.

Spec: containerd API v1, ``services.content.v1``, ``WriteContentRequest``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from fastoci.containerd.messages import COMMIT, STAT, WRITE, WriteRequest, WriteResponse
from fastoci.containerd.rpc import Code, Stream
from fastoci.errors import FormatError, StoreError
from fastoci.image.descriptor import Descriptor

PIECE: Final = 4 << 20  # bytes of one message: smaller ones cost more in containerd, up to twice


class Ingest:
    """An ingest under a name, of a blob whose digest and size are known."""

    def __init__(self, stream: Stream, blob: Descriptor, ref: str) -> None:
        self._stream = stream
        self._blob = blob
        self._ref = ref
        self._expected = str(blob.digest)

    async def begin(self) -> int:
        """Open it; how many bytes are there. The blob's size: another namespace has it, and it can be committed.

        Raises:
            ContainerdError: containerd refused, or is gone; the blob is there.
        """
        return (await self._step(WriteRequest(STAT, self._ref, self._blob.size, self._expected))).offset

    async def send(self, offset: int, read: Callable[[int], Awaitable[bytes]]) -> None:
        """Send what is missing.

        Args:
            read: the next ``PIECE`` at an offset.
        Raises:
            ContainerdError: as ``begin``. StoreError: there are fewer bytes than the blob has, or none can be read.
        """
        while offset < self._blob.size:
            piece = await read(offset)
            if not piece:
                text = f"{self._expected} ends after {offset} of {self._blob.size} bytes"
                raise StoreError(text, path=self._expected)
            await self._step(WriteRequest(WRITE, self._ref, self._blob.size, self._expected, offset, piece))
            offset += len(piece)

    async def commit(self, labels: Mapping[str, str]) -> None:
        """Have it in the content store, with these labels. Raises: as ``begin``."""
        total = self._blob.size
        await self._step(WriteRequest(COMMIT, self._ref, total, self._expected, total, labels=dict(labels)))

    async def _step(self, request: WriteRequest) -> WriteResponse:
        await self._stream.send(request.encode())
        answer = await self._stream.receive()
        if answer is None:
            raise self._stream.failure("containerd ended an ingest early", Code.UNKNOWN)
        try:
            return WriteResponse.decode(answer)
        except FormatError as error:
            raise self._stream.failure(f"the answer cannot be read: {error}", Code.INTERNAL) from error
