"""A stream out of a file: the thread that hashes a buffer reads it before, so that no other one has to."""

from __future__ import annotations

import os
from collections.abc import Callable

from fastoci._core import BUFFER_SIZE, Buffer
from fastoci.errors import StoreError
from fastoci.stream.sink import Sink
from fastoci.stream.verify import Verifier
from fastoci.transfer.pipeline import PushPipeline, Workers


class FilePipeline(PushPipeline):
    """A pipeline that is fed empty buffers, and fills them from a file of as many bytes as ``verifier`` wants.

    Args:
        fd: stays open as long as this works. The bytes are read from the verifier's offset on.
    """

    def __init__(
        self,
        workers: Workers,
        sink: Sink,
        verifier: Verifier,
        *,
        fd: int,
        depth: int,
        progressed: Callable[[int], None],
    ) -> None:
        super().__init__(workers, sink, verifier, depth=depth, progressed=progressed)
        assert verifier.size is not None
        self._size = verifier.size
        self._fd = fd
        self._at = verifier.offset

    def take(self) -> Buffer | None:
        """On a thread: the next buffer, filled; None when ``abort`` took it away.

        Raises:
            StoreError: the disk refused, or the file became shorter.
        """
        buffer = super().take()
        if buffer is not None and self.error is None:
            try:
                self._fill(buffer)
            except BaseException:
                self.let_go(buffer)
                raise
        return buffer

    def _fill(self, buffer: Buffer) -> None:
        count = buffer.pread(self._fd, self._at)
        if count < min(BUFFER_SIZE, self._size - self._at):
            what = os.strerror(-count) if count < 0 else f"it ends after {self._at + count} of {self._size} bytes"
            path = os.readlink(f"/proc/self/fd/{self._fd}")
            raise StoreError(f"cannot read {path}: {what}", path=path)
        self._at += count

    def _drop(self) -> None:
        while (buffer := super().take()) is not None:
            self.let_go(buffer)
