"""Hashes of the content of some files of a layer, taken while its tar passes by, so that two images can be compared.

Holes count as the zeros that they read as. Spec: docs/inspect.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from fastoci._core import Buffer
from fastoci.errors import FormatError, UnpackError
from fastoci.image.layer_file import TAR_OFFSET
from fastoci.unpack.erofs_difference import Place

_ZEROS: Final = memoryview(bytes(1 << 20))


class _Part(msgspec.Struct, frozen=True, order=True):
    """Data of one file, from ``start`` to ``end`` in the layer file; ``hole`` bytes of the file are before them."""

    start: int
    end: int
    file: int
    hole: int


class ContentHashes:
    """A sink for the tar of one layer, which hashes some files in it.

    Args:
        files: by number, where the data of each are: in this layer, or nowhere (holes).
    Raises:
        FormatError: data of a file are not in their order, as they are in every tar.
    """

    def __init__(self, name: str, files: Mapping[int, Sequence[Place]]) -> None:
        self.name = name
        self.digests: dict[int, bytes] = {}  # by the number of the file, when all of the tar was fed
        self._hashes = {number: hashlib.sha256() for number in files}
        self._parts = sorted((part for number in files for part in self._parts_of(number, files[number])), reverse=True)
        self._tails = {number: _tail(places) for number, places in files.items()}
        self._at = TAR_OFFSET
        self._stopped = False

    def feed(self, buffer: Buffer) -> None:
        """Hash what of these bytes is in files that are asked for.

        Raises:
            FormatError: the metadata have data of two files in one place.
        """
        with memoryview(buffer) as view:
            done, end = self._at, self._at + len(view)
            while self._parts and self._parts[-1].start < end:
                part = self._parts.pop()
                if part.start < done:
                    raise FormatError(f"the metadata are damaged: data of two files of {self.name} are in one place")
                self._fill(part.file, part.hole)
                done = min(part.end, end)
                self._hashes[part.file].update(view[part.start - self._at : done - self._at])
                if done < part.end:
                    self._parts.append(_Part(done, part.end, part.file, 0))
            self._at = end

    def finish(self) -> None:
        """The layer ends here.

        Raises:
            FormatError: it is shorter than the metadata say.
        """
        if self._parts:
            raise FormatError(f"layer {self.name} ends at byte {self._at - TAR_OFFSET} of its tar, inside of a file")
        for number, size in self._tails.items():
            self._fill(number, size)
        self.digests = {number: each.digest() for number, each in self._hashes.items()}

    def stop(self) -> None:
        """From any thread: the next call ends with an error."""
        self._stopped = True

    def abort(self) -> None:
        """Nothing is held."""

    def _parts_of(self, number: int, places: Sequence[Place]) -> Iterator[_Part]:
        """The data of a file, with the holes between them."""
        hole = last = 0
        for _, size, layer, position in places:
            if not layer:
                hole += size
                continue
            if position < last:
                raise FormatError(f"the metadata are damaged: data of a file of {self.name} are not in their order")
            yield _Part(position, position + size, number, hole)
            hole, last = 0, position + size

    def _fill(self, number: int, size: int) -> None:
        """Hash a hole."""
        while size > 0:
            if self._stopped:
                raise UnpackError(f"layer {self.name}: was stopped", path="", layer=self.name, offset=0)
            count = min(size, len(_ZEROS))
            self._hashes[number].update(_ZEROS[:count])
            size -= count


def _tail(places: Sequence[Place]) -> int:
    """Bytes of the hole at the end of a file."""
    return places[-1][1] if places and not places[-1][2] else 0
