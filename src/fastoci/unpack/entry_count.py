"""How many entries the tar of a layer has. Spec: POSIX pax; docs/inspect.md."""

from __future__ import annotations

from typing import Final

from fastoci import _extract
from fastoci._core import Buffer
from fastoci.errors import FormatError, UnpackError

_NOTHING: Final[dict[str, int]] = {}


class EntryCount:
    """A sink for the tar of one layer, which counts its entries and makes nothing."""

    bytes = size = 0  # of files that it makes
    skipped = _NOTHING

    def __init__(self, name: str) -> None:
        self.name = name
        self.entries = 0  # so far
        self._reader = _extract.TarReader()
        self._stopped = False

    def feed(self, buffer: Buffer) -> None:
        """Take the next bytes of the tar.

        Raises:
            FormatError, UnpackError: it is no tar that a layer can be.
        """
        self._check(self._reader.feed(buffer))
        self.entries += len(self._reader.entries())

    def finish(self) -> None:
        """Demand the end of the tar. Raises: as ``feed``."""
        self._check(self._reader.finish())

    def stop(self) -> None:
        """From any thread: the next call ends with an error."""
        self._stopped = True

    def abort(self) -> None:
        """Nothing is held."""

    def _check(self, code: int) -> None:
        if self._stopped:
            raise UnpackError(f"layer {self.name}: was stopped", path="", layer=self.name, offset=0)
        if code:
            _, sentence = _extract.TAR_CODES.get(code, ("", "is no tar"))
            raise FormatError(f"layer {self.name}: {sentence} (header at byte {self._reader.offset} of the tar)")
