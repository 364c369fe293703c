"""The native core: memory, SHA-256 and files. It returns codes and facts and raises nothing typed."""

from collections.abc import Callable, Sequence
from typing import Self, final

from typing_extensions import Buffer as Readable

BUFFER_SIZE: int

@final
class Pool:
    """The memory budget: ``capacity`` bytes, handed out as buffers of ``BUFFER_SIZE``.

    ``poison`` overwrites a buffer with 0xDB when it comes back (tests). ``on_release`` is called, from whichever
    thread let go of a buffer, after it is free again.
    """

    def __new__(cls, capacity: int, /, *, poison: bool = False) -> Self: ...
    on_release: Callable[[], object] | None
    @property
    def capacity(self) -> int: ...
    @property
    def in_use(self) -> int:
        """Bytes in buffers that are out."""
    @property
    def aside(self) -> int:
        """Bytes taken out of the budget by ``set_aside``."""
    def take(self) -> Buffer | None:
        """An empty buffer with one reference, or None when the budget is spent."""
    def set_aside(self, size: int, /) -> bool:
        """Take memory that is allocated elsewhere out of the budget, in whole buffers; False when too little is free.

        Free buffers are unmapped, so that the process never holds more than ``capacity`` for both together.
        """
    def put_back(self, size: int, /) -> None:
        """Undo a ``set_aside`` of the same size, once that memory is freed; calls ``on_release``."""

@final
class Buffer:
    """A reference-counted piece of the pool: ``len(buffer)`` bytes of ``BUFFER_SIZE`` are filled.

    Made by ``Pool.take`` only. The buffer protocol gives the filled bytes, read-only. Memory goes back to the pool
    when the last reference is released and the last exported buffer is closed. One owner writes, before it hands on.
    """

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    @property
    def room(self) -> int:
        """Bytes that can still be appended."""
    def append(self, data: Readable, start: int = 0, /) -> int:
        """Copy as much of ``data[start:]`` as there is room for; the number of bytes taken."""
    def reserve(self, size: int, /) -> memoryview:
        """A writable view of at most ``size`` bytes of the room; ``advance`` then says how many were written."""
    def advance(self, size: int, /) -> None:
        """Count bytes as filled that were written through ``reserve``."""
    def pread(self, fd: int, offset: int, /) -> int:
        """Fill the room from a file at ``offset``, without the GIL; bytes read, 0 at the end, -errno."""
    def pwrite(self, fd: int, offset: int, /, *, uncached: bool = False) -> int:
        """Write all filled bytes at ``offset``, without the GIL; 0, or -errno.

        ``uncached``: they leave the page cache as soon as they are on the disk (RWF_DONTCACHE). -EOPNOTSUPP, -EINVAL or
        -ENOSYS, and nothing written, where kernel or file system cannot.
        """
    def clear(self) -> None:
        """Forget the content, keep the memory; only for the sole owner."""
    def retain(self) -> Buffer:
        """One more reference; returns itself."""
    def release(self) -> None:
        """One reference less; ValueError when there is none left."""

def reserve(fd: int, offset: int, size: int, /) -> int:
    """Take blocks for bytes beyond the end of a file, whose length stays; 0, or -errno after a part of them."""

def place(nameless: int, named: int, files: list[tuple[bytes, Buffer]], sync: bool, /) -> tuple[list[int], int]:
    """Give what buffers hold names in the directory ``named``, as files of mode 0444; without the GIL.

    Each is complete before it has its name, in ``nameless``; nothing is put in place of what is there. ``sync``: and it
    is on the disk by then, and the names when this returns. For each 0, or -errno and it has no name; and 0, or -errno
    of the sync of the names.
    """

def hold(fd: int, byte: int, named: int, ingests: int, name: bytes, /) -> int:
    """Lock a byte of an open file while nothing has the name in two directories: 1, and 0 when something has.

    -EAGAIN while somebody else has the byte, or -errno; in all cases but the first it is not locked. Without waiting,
    and without letting go of the GIL: getting it back takes longer.
    """

def let_go(fd: int, byte: int, /) -> int:
    """Unlock the byte; 0, or -errno."""

def file_system(fd: int, /) -> int:
    """The number of the kind of file system that a file is on (``f_type`` of statfs, 32 bits), or -errno."""

@final
class Sha256:
    """SHA-256, hashlib-compatible, whose state can be saved. One task or thread at a time."""

    name: str
    digest_size: int
    block_size: int
    def __new__(cls, data: Readable = b"", /) -> Self: ...
    def update(self, data: Readable, /) -> None: ...
    def digest(self) -> bytes: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> Sha256: ...
    def state(self) -> bytes:
        """104 bytes: 8 words, the count of bytes, and the tail that is not a whole block."""
    def restore(self, state: Readable, /) -> None:
        """Go on from ``state()``'s answer; ValueError when it cannot be one."""

def lanes() -> int:
    """How many streams ``update_many`` hashes at a time, by a measurement of a millisecond on the first call."""

def tier() -> str:
    """What SHA-256 runs on: "sha-ni, 2 lanes", "sha-arm, 2 lanes", "openssl" or "scalar"."""

def update_many(pairs: Sequence[tuple[Sha256, Buffer | bytes]], /) -> None:
    """Hash each piece into its state, without the GIL; streams in flight together share lanes. States are distinct."""

@final
class VerityTree:
    """The hash tree of a file whose first block of ``block_size`` comes last. One task or thread at a time.

    SHA-256 of blocks of 4096 bytes, each behind ``salt`` (at most 32 bytes), in lanes. Keeps 70 KB, whatever the size.
    """

    block_size: int
    def __new__(cls, salt: Readable = b"", /) -> Self: ...
    def write_to(self, fd: int, offset: int, size: int, /) -> int:
        """Write the blocks of hashes of a file of ``size`` bytes at ``offset``, the highest level first; their end."""
    def feed(self, data: Readable, /) -> None:
        """The next bytes of the file, from ``block_size`` on, without the GIL."""
    def finish(self, first: Readable, /) -> bytes | int:
        """The end of the file: from its first block (shorter only when nothing was fed) the root, 32 bytes.

        -errno when a block of hashes could not be written.
        """
