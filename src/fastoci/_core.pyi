"""The native core: memory, hashing, inflating, tar and files. It returns codes and facts and raises nothing typed."""

from collections.abc import Callable, Sequence
from typing import Protocol, Self, final, type_check_only

from typing_extensions import Buffer as Readable

BUFFER_SIZE: int
MAX_DIRECTORIES: int  # of an Extractor, unless it is told another number
WINDOW_SIZE: int  # bytes that one Inflate.run appends at most
WINDOW_OVERHEAD: int  # bytes that libzstd takes at most beside the history of its frames

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

def update_many(pairs: Sequence[tuple[Sha256, Buffer]], /) -> None:
    """Hash each buffer into its state, without the GIL; streams in flight together share lanes. States are distinct."""

@type_check_only
class Deflate(Protocol):
    """A decoder of one member's raw deflate data, written in Python.

    ``run`` raises ValueError when the data is damaged; anything else that it raises comes out of ``Inflate.run``.
    """

    crc: int  # CRC-32 of what was made
    ended: bool  # the deflate data is over

    def run(self, source: bytes, room: int, /) -> tuple[bytes, int]:
        """At most ``room`` bytes of content, and how many of the source were consumed; neither: it needs more.

        Negative: so many more than it took are handed back, of the last 16 that earlier calls consumed.
        """

@final
class Inflate:
    """One gzip or zstd stream, all members or frames, to its demanded end. One thread at a time.

    ``format`` is "gzip" or "zstd", bound before. ``run`` consumes from ``source[start:]`` and appends to ``out`` at
    most ``WINDOW_SIZE``; it returns the bytes consumed, or -1 with ``code`` set. The source is used up when all of it
    is consumed and less than ``WINDOW_SIZE`` (and than the room) was made. ``finish`` returns 0 when the input ended
    where a member ends, else a code. ``window``: bytes of history that a zstd frame may demand.

    When ``demanded`` is not 0 after a ``run``, a zstd frame waits for ``allow`` of as much; without it the next
    ``run`` fails. Of the history, no more than what is allowed is ever allocated, beside ``WINDOW_OVERHEAD``; it is
    freed by ``close``.

    ``deflate`` makes a decoder for each gzip member, in place of the one that is bound; it is called with the GIL.
    """

    def __new__(cls, format: str, /, *, window: int, deflate: Callable[[], Deflate] | None = None) -> Self: ...
    def run(self, source: Buffer, start: int, out: Buffer, /) -> int: ...
    @property
    def demanded(self) -> int:
        """Bytes of history that the next frame demands, when that is more than is allowed; else 0."""
    def allow(self, window: int, /) -> None:
        """Let frames demand ``window`` bytes from now on; it never shrinks, and 2 GiB are the most."""
    def finish(self) -> int: ...
    def close(self) -> None:
        """Free the decoder; idempotent. Facts may still be read, but ``demanded``."""
    @property
    def code(self) -> int:
        """0, or one of ``INFLATE_*``."""
    @property
    def consumed(self) -> int:
        """Bytes of input used so far: where an error is."""
    @property
    def produced(self) -> int: ...

def bind(format: str, path: str, /) -> bool:
    """Look the decoder of "gzip" or "zstd" up in the shared object at ``path`` and try it; whether it can be used."""

INFLATE_CODES: dict[int, str]  # code -> one sentence

@final
class TarReader:
    """Headers of a tar stream, for listings and tests: the very parser that ``Extractor`` uses."""

    def __new__(cls) -> Self: ...
    def feed(self, data: Readable, /) -> int:
        """Parse a window of any size; 0, or a code. After a code, only the facts may be read."""
    def finish(self) -> int:
        """0 when the stream may end here, else a code."""
    def entries(self) -> list[TarEntry]:
        """The entries completed since the last call."""
    code: int
    offset: int
    path: bytes

@final
class TarEntry:
    """One entry: the header with pax and GNU extensions applied."""

    path: bytes
    link: bytes
    type: str  # "f" file, "d", "l" symlink, "h" hard link, "p" fifo, "c", "b"
    mode: int
    uid: int
    gid: int
    size: int  # apparent size, bytes
    mtime_ns: int
    device: tuple[int, int]  # major, minor
    xattrs: dict[bytes, bytes]
    sparse: bool

@final
class Stop:
    """A request to stop that native calls see soon; any thread may make it, and nobody can take it back."""

    def set(self) -> None: ...
    def is_set(self) -> bool: ...

def remove_tree(parent_fd: int, name: bytes, /, *, stop: Stop | None = None, within: float | None = None) -> int:
    """Remove one name of a directory with all below it, without the GIL; 0, or a negative errno.

    However deep and wide, in linear time. No symbolic link is followed, no mount point entered or removed. All that can
    be removed goes, and the first error is the answer: ``-EBUSY`` when a mount point is in the way, ``-ECANCELED``
    after ``stop``, ``-ETIMEDOUT`` after ``within`` seconds. A name that is not there is removed.
    """

@final
class Extractor:
    """Makes the files of one layer below a directory. One thread at a time.

    ``root_fd`` stays the caller's. ``owners``: apply owners, device nodes and privileged xattrs (needs root); without
    it they are skipped and counted. ``base``: the root already holds lower layers, so whiteouts have work to do.
    ``max_directories``: those that the layer makes or reaches, at about 130 bytes of memory each. ``max_work``: what
    names, links and attributes may ask for beside the entries' own share (``csrc/extract/context.h``).
    """

    def __new__(
        cls,
        root_fd: int,
        /,
        *,
        owners: bool,
        base: bool,
        max_entries: int,
        max_bytes: int,
        max_directories: int = ...,
        max_work: int = ...,
    ) -> Self: ...
    def feed(self, data: Readable, /) -> int:
        """Parse and extract a window of any size, without the GIL; 0, or a code (then the layer is lost)."""
    def adopt(self, stager: Stager, count: int, /) -> int:
        """Do with the next ``count`` entries of a stager what feeding them would do, without the GIL.

        Files are moved into place. 1: there are more; 0: that was all, and ``finish`` is next; a negative number: the
        code (then the layer is lost), of an entry, or the stager's own behind its last entry. This extractor has been
        fed nothing and has the stager's ``owners``; the stager has finished or failed and is not closed.
        """
    def finish(self) -> int:
        """Demand the end of the archive, set the times of directories; 0 or a code."""
    def stop(self) -> None:
        """From any thread: the call under way, and every other, ends soon with a code."""
    def close(self) -> None:
        """Close every descriptor; idempotent, also after an error."""
    @property
    def code(self) -> int: ...
    @property
    def offset(self) -> int:
        """Offset in the tar of the header at fault."""
    @property
    def path(self) -> bytes:
        """The entry at fault."""
    @property
    def value(self) -> int:
        """errno for ``EXTRACT_IO``, else the number that was wrong."""
    @property
    def entries(self) -> int: ...
    @property
    def bytes(self) -> int:
        """Bytes of file content written."""
    @property
    def size(self) -> int:
        """What counts for ``max_bytes``, holes excluded: ``bytes``, extended attributes, names that are long."""
    @property
    def skipped(self) -> dict[str, int]:
        """What could not be applied: counts for "owners", "devices", "xattrs"."""

@final
class Stager:
    """Makes what of a layer needs no lower layers; ``Extractor.adopt`` makes the rest. One thread at a time.

    Files go, whole and with their metadata, into an empty private directory on the root's file system, under numbers
    for names; what is adopted leaves it. All entries go into a nameless file there. ``directory_fd`` stays the
    caller's.
    Members are as ``Extractor``'s; ``finish`` closes nothing, and ``skipped`` counts only what files could not have.
    """

    def __new__(
        cls, directory_fd: int, /, *, owners: bool, max_entries: int, max_bytes: int, max_work: int = ...
    ) -> Self: ...
    def feed(self, data: Readable, /) -> int: ...
    def finish(self) -> int: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...
    @property
    def code(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def path(self) -> bytes: ...
    @property
    def value(self) -> int: ...
    @property
    def entries(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def skipped(self) -> dict[str, int]: ...

# code -> (kind, sentence); kind is "format", "unsafe", "unsupported", "limit", "io" or "stopped".
TAR_CODES: dict[int, tuple[str, str]]

def info() -> dict[str, str]:
    """Which tier is live.

    "sha256": "sha-ni, 2 lanes", "sha-arm, 2 lanes", "openssl" or "scalar"; "gzip": "isa-l" or "none"; "zstd": "libzstd"
    or "none".
    """
