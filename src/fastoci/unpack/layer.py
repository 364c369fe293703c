"""One layer's tar becomes files below a directory: a sink over the native extractor.

The place where the extractor's codes become errors. Decompression and digests are others' work.
Spec: image-spec v1.1 layer.md (change sets, whiteouts).
"""

from __future__ import annotations

import errno
import os

from fastoci import _core
from fastoci._core import Span
from fastoci.errors import (
    FastociError,
    FormatError,
    StoreFullError,
    UnpackError,
    UnsafePathError,
    UnsupportedEntryError,
)


class LayerWriter:
    """A sink for the tar of one layer. Lower layers must be complete.

    Args:
        root_fd: the directory; stays the caller's and must outlive this object.
        name: the layer in messages: a diff_id or a file.
        base: lower layers are there, so whiteouts have work to do.
        max_entries, max_bytes: what this layer may still make.
    """

    def __init__(self, root_fd: int, *, name: str, base: bool, max_entries: int, max_bytes: int) -> None:
        self.name = name
        self._extractor = _core.Extractor(
            root_fd, owners=os.geteuid() == 0, base=base, max_entries=max_entries, max_bytes=max_bytes
        )

    @property
    def entries(self) -> int:
        """Entries read so far."""
        return self._extractor.entries

    @property
    def bytes(self) -> int:
        """Bytes of file content written so far."""
        return self._extractor.bytes

    @property
    def skipped(self) -> dict[str, int]:
        """How many owners, devices and xattrs this user or file system could not be given."""
        return self._extractor.skipped

    def feed(self, span: Span) -> None:
        """Parse and extract.

        Raises:
            FormatError: this is no tar, or a damaged one.
            UnpackError: the layer cannot become files (``UnsafePathError``, ``UnsupportedEntryError``).
            StoreFullError: no space or no inodes left.
        """
        if self._extractor.feed(span):
            raise self._error()

    def finish(self) -> None:
        """Demand the end of the tar and set the times of directories. Raises: as ``feed``."""
        if self._extractor.finish():
            raise self._error()
        self._extractor.close()

    def abort(self) -> None:
        """Close every descriptor; what was extracted is the caller's to remove."""
        self._extractor.close()

    def _error(self) -> FastociError:
        """Map the extractor's code and facts to the error tree."""
        kind, sentence = _core.TAR_CODES[self._extractor.code]
        path = self._extractor.path.decode("utf-8", "backslashreplace")
        offset, value = self._extractor.offset, self._extractor.value
        subject = f"layer {self.name}, entry {path!r}" if path else f"layer {self.name}"
        if kind == "io":
            if value in (errno.ENOSPC, errno.EDQUOT):
                return StoreFullError(f"{subject}: {os.strerror(value)}: free space and run again", path=path)
            return UnpackError(f"{subject}: {os.strerror(value)}", path=path, layer=self.name, offset=offset)
        message = f"{subject}: {sentence} (header at byte {offset} of the tar, value {value})"
        if kind == "format":
            return FormatError(message)
        error = {"unsafe": UnsafePathError, "unsupported": UnsupportedEntryError}.get(kind, UnpackError)
        return error(message, path=path, layer=self.name, offset=offset)
