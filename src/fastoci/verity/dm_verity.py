"""dm-verity: a hash tree behind the bytes of a file, and the sidecar that containerd reads beside a layer file.

Data and hashes are in blocks of 4096 bytes, the salt is 32 zero bytes. The tree has a superblock in a block of its own.
Spec: the kernel's Documentation/admin-guide/device-mapper/verity.rst; cryptsetup's wiki, "DMVerity"; containerd's
``internal/dmverity`` (2.3) for the parameters and the sidecar.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Final
from uuid import UUID

import msgspec

from fastoci import _core
from fastoci.errors import StoreError
from fastoci.files import failure, translated, write_all

BLOCK: Final = _core.VerityTree.block_size
SALT: Final = bytes(32)
_PIECE: Final = 256 << 10  # bytes of one read
# signature, version, hash type (salt first), UUID, algorithm, block of data and of hashes, blocks of data, salt
_SUPERBLOCK: Final = struct.Struct("<8sII16s32sIIQH6x256s168x")


class Appended(msgspec.Struct, frozen=True):
    """A hash tree at the end of a file: the root of the tree, where its superblock is, and the size of the file now."""

    root: str
    offset: int
    size: int

    def sidecar(self) -> bytes:
        """What containerd reads from ``NAME.dmverity``."""
        return json.dumps({"roothash": self.root, "hashoffset": self.offset}, separators=(",", ":")).encode()


def append(fd: int, path: str, uuid: UUID) -> Appended:
    """Put a hash tree behind a file that is complete; on a thread, since all of it is read.

    Args:
        fd: open for reading and writing.
        uuid: of the tree; the same file and the same one give the same bytes.
    Raises:
        StoreError: it is not of whole blocks, or cannot be read or written.
    """
    with translated("append a hash tree to", path):
        size = os.fstat(fd).st_size
        if not size or size % BLOCK:
            raise StoreError(f"{path}: {size} bytes are not whole blocks of {BLOCK}", path=path)
        tree = _core.VerityTree(SALT)
        end = tree.write_to(fd, size + BLOCK, size)
        _read_into(tree, fd, size)
        root = tree.finish(os.pread(fd, BLOCK, 0))
        if isinstance(root, int):
            raise failure(OSError(-root, os.strerror(-root)), "append a hash tree to", path)
        head = _SUPERBLOCK.pack(
            b"verity", 1, 1, uuid.bytes, b"sha256", BLOCK, BLOCK, size // BLOCK, len(SALT), SALT
        ).ljust(BLOCK, b"\0")
        os.lseek(fd, size, os.SEEK_SET)
        write_all(fd, head)
    return Appended(root.hex(), size, end)


def _read_into(tree: _core.VerityTree, fd: int, size: int) -> None:
    piece = memoryview(bytearray(_PIECE))
    offset = BLOCK
    while offset < size:
        read = os.preadv(fd, [piece[: min(_PIECE, size - offset)]], offset)
        if not read:
            raise OSError(f"ends after {offset} of {size} bytes")
        tree.feed(piece[:read])
        offset += read
