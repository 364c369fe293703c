"""fs-verity: the digest of a file while its bytes are made, and what the kernel knows of it.

The digest is of a descriptor that has the root of a hash tree over blocks of 4096 bytes, without salt. Spec: the
kernel's Documentation/filesystems/fsverity.rst, "fs-verity descriptor", "FS_IOC_ENABLE_VERITY".
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
from typing import Final

from fastoci import _core
from fastoci.files import failure, translated

BLOCK: Final = _core.VerityTree.block_size
_PIECE: Final = 256 << 10  # bytes of one read
_ALGORITHMS: Final = {1: "sha256", 2: "sha512"}
_SHA256: Final = 1
# version, algorithm, log2 of the block, size of the salt, (signature), size of the data, root, salt, reserved
_DESCRIPTOR: Final = struct.Struct("<BBBBIQ64s32s144x")
_ENABLE: Final = struct.Struct("=IIIIQIIQ88x")  # version, algorithm, block, salt's size and address, signature's
_MEASURE: Final = struct.Struct("=HH64s")
_FS_IOC_ENABLE_VERITY: Final = 0x40806685
_FS_IOC_MEASURE_VERITY: Final = 0xC0046686
_UNABLE: Final = frozenset({errno.ENOTTY, errno.EOPNOTSUPP})  # file system, or kernel, without fs-verity


class FsVerity:
    """The fs-verity digest of a file that is written from its second block on, and its first block last.

    What is not fed is read at the end. Belongs to one thread at a time.
    """

    def __init__(self) -> None:
        self._tree = _core.VerityTree()
        self._size = BLOCK

    def feed(self, data: _core.Buffer | memoryview | bytes) -> None:
        """Take the next bytes of the file, from ``BLOCK`` on."""
        self._tree.feed(data)
        self._size += memoryview(data).nbytes

    def finish(self, fd: int, path: str) -> str:
        """Read the first block and what was not fed of a file that is complete; its digest, as ``sha256:HEX``.

        Raises:
            StoreError: it cannot be read.
        """
        piece = memoryview(bytearray(_PIECE))
        with translated("read", path):
            while size := os.preadv(fd, [piece], self._size):
                self.feed(piece[:size])
            first = os.pread(fd, BLOCK, 0)
        root = self._tree.finish(first)
        assert isinstance(root, bytes)  # nothing is written
        size = self._size if len(first) == BLOCK else len(first)
        root = root if size else bytes(32)  # of an empty file, which has no block
        descriptor = _DESCRIPTOR.pack(1, _SHA256, BLOCK.bit_length() - 1, 0, 0, size, root, b"")
        return f"sha256:{hashlib.sha256(descriptor).hexdigest()}"


def enable_verity(fd: int, path: str) -> bool:
    """Have the kernel hold each read of a file against its fs-verity digest from now on; False when it cannot.

    The file can never be written again. The kernel reads all of it: for a thread.

    Args:
        fd: the file, complete and open for reading only, here and everywhere.

    Raises:
        StoreError: it is open for writing, or its hashes cannot be written.
    """
    request = _ENABLE.pack(1, _SHA256, BLOCK, 0, 0, 0, 0, 0)
    try:
        fcntl.ioctl(fd, _FS_IOC_ENABLE_VERITY, request)
    except OSError as cause:
        if cause.errno in _UNABLE:
            return False
        if cause.errno != errno.EEXIST:  # else it was enabled before
            raise failure(cause, "enable fs-verity of", path) from cause
    return True


def measure_verity(fd: int) -> str | None:
    """The digest that the kernel holds a file against, as ``sha256:HEX``; None for a file without one."""
    try:
        answer = fcntl.ioctl(fd, _FS_IOC_MEASURE_VERITY, _MEASURE.pack(0, 64, b""))
    except OSError:
        return None
    algorithm, size, digest = _MEASURE.unpack(answer)
    return f"{_ALGORITHMS.get(algorithm, algorithm)}:{digest[:size].hex()}"
