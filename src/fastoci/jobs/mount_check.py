"""Whether a mount shows what is in its layer files: a program that answers for it may be wrong.

erofsfuse up to 1.9.3 reads the blocks of files without chunks from the first device, whichever has them.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from fastoci.unpack.erofs_reader import ErofsReader, Inode

_FILES: Final = 8  # that are compared: of a wrong program all are wrong
_NAMES: Final = 10_000  # that are looked at for them
_PIECE: Final = 4096  # bytes of each


def shows_layers(root: str, metadata: int, devices: Sequence[int]) -> bool:
    """Whether some files below ``root`` begin as merged metadata and its layer files say.

    Raises:
        FormatError: the metadata is damaged.
        OSError: the mount cannot be read.
    """
    reader = ErofsReader(metadata, "merged metadata")
    for path, inode in _some(reader):
        piece = next(iter(reader.pieces(inode)), None)
        if piece is None or piece.position is None or not piece.device:
            continue
        size = min(_PIECE, piece.size)
        fd = os.open(os.path.join(os.fsencode(root), path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.pread(fd, size, 0) != os.pread(devices[piece.device - 1], size, piece.position):
                return False
        finally:
            os.close(fd)
    return True


def _some(reader: ErofsReader) -> Iterator[tuple[bytes, Inode]]:
    """Some files that have data, with their paths, the nearest to the root first."""
    ahead = deque([(b"", reader.root)])
    found = looked = 0
    while ahead and found < _FILES and looked < _NAMES:
        path, directory = ahead.popleft()
        for name, inode in reader.children(directory):
            looked += 1
            if stat.S_ISDIR(inode.mode):
                ahead.append((os.path.join(path, name), inode))
            elif stat.S_ISREG(inode.mode) and inode.size and found < _FILES:
                found += 1
                yield os.path.join(path, name), inode
