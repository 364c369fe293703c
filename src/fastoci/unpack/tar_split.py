"""What a layer's tar has beside the content of its files, as tar-split has it: by that and the files it is made again.

Spec: github.com/vbatts/tar-split, ``tar/storage``; containers/storage ``layers.go`` (``tar-split.gz``).
"""

from __future__ import annotations

import os
from typing import Final

from fastoci import _extract, files
from fastoci._core import Buffer
from fastoci.errors import UnpackError
from fastoci.image.containers_storage import TarFacts
from fastoci.stream.compress import Gzip

_LINES: Final = 1 << 20  # bytes that are compressed at a time


class TarSplitWriter:
    """``LayerSink`` that writes them, compressed, into an empty file.

    Args:
        fd: stays the caller's.
        name: of the layer, in messages.
    """

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self._fd = fd
        self._split = _extract.TarSplit()
        self._gzip = Gzip()
        self._size = 0
        self._stopped = False
        files.write_all(fd, self._gzip.head)

    @property
    def is_exact(self) -> bool:
        """Whether each content is what has its name in the tree that the tar makes; else the tar is not made again."""
        return self._split.is_exact

    @property
    def tar(self) -> TarFacts:
        """What is known of the tar, when all of it was fed."""
        return TarFacts(self._size, *self._split.owners)

    def feed(self, buffer: Buffer) -> None:
        """Take the next bytes of the tar.

        Raises:
            UnpackError: it is no tar. StoreError: the disk refused.
        """
        self._size += len(buffer)
        self._check(self._split.feed(buffer))
        self._write()

    def finish(self) -> None:
        """The tar ended here; raises as ``feed``."""
        self._check(self._split.finish())
        self._write()
        with files.translated("write", os.readlink(f"/proc/self/fd/{self._fd}")):
            files.write_all(self._fd, self._gzip.tail())

    def stop(self) -> None:
        """Let the next call end with an exception: each takes milliseconds."""
        self._stopped = True

    def abort(self) -> None:
        """Nothing is held."""

    def _check(self, code: int) -> None:
        if code or self._stopped:
            _, sentence = _extract.TAR_CODES.get(code, ("", "was stopped"))
            raise UnpackError(f"layer {self.name}: {sentence}", path="", layer=self.name, offset=0)

    def _write(self) -> None:
        lines = memoryview(self._split.take())
        with files.translated("write", os.readlink(f"/proc/self/fd/{self._fd}")):
            for start in range(0, len(lines), _LINES):
                block = lines[start : start + _LINES]
                self._gzip.count(block)
                files.write_all(self._fd, self._gzip.block(block))
