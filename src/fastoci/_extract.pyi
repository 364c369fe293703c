"""The native extractor: tar, files of a layer, their removal. It returns codes and facts and raises nothing typed."""

from typing import Self, final

from typing_extensions import Buffer as Readable

from fastoci._core import Buffer

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
    def skip_body(self) -> int:
        """Pass over what of the body under way is still to come, so that its entry is completed; how many bytes."""
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
class TarSplit:
    """What a tar has beside the content of its files, as lines of tar-split. One thread at a time."""

    def __new__(cls) -> Self: ...
    def feed(self, data: Buffer, /) -> int:
        """Take the next bytes, without the GIL; 0, or a code of ``TAR_CODES``."""
    def finish(self) -> int:
        """0 when the tar may end here, else a code."""
    def take(self) -> bytes:
        """The lines since the last call."""
    is_exact: bool  # each content is what has its name in the tree that the tar makes
    owners: tuple[int, int]  # the largest owner and group of an entry so far

@final
class Stop:
    """A request to stop that native calls see soon; any thread may make it, and it is never taken back."""

    def set(self) -> None: ...
    def is_set(self) -> bool: ...

def remove_tree(parent_fd: int, name: bytes, /, *, stop: Stop | None = None, within: float | None = None) -> int:
    """Remove one name of a directory with all below it, without the GIL; 0, or a negative errno.

    However deep and wide, in linear time. No symbolic link is followed, no mount point entered or removed. All that can
    be removed goes, and the first error is the answer: ``-EBUSY`` when a mount point is in the way, ``-ECANCELED``
    after ``stop``, ``-ETIMEDOUT`` after ``within`` seconds. A name that is not there is removed.
    """

def is_mount_point(parent_fd: int, name: bytes, /) -> bool:
    """Whether something is mounted on this directory of another, a bind mount included. Raises OSError."""

def birth_time_ns(fd: int, /) -> int:
    """When an open file or directory was made, in nanoseconds since 1970; 0 where that is not known."""

def enter_user_namespace() -> None:
    """Give this process, of one thread, a user namespace of its own, which has no ids yet. Raises OSError."""

def sync_filesystem(fd: int, /) -> None:
    """Wait, without the GIL, until all of a file system is on its disk, whoever wrote it. Raises OSError."""

@final
class Extractor:
    """Makes the files of one layer below a directory. One thread at a time.

    ``root_fd`` stays the caller's. ``owners``: give files to the owners that entries name. ``privileged``: make device
    nodes and privileged xattrs (needs root). What is left out is counted as skipped. ``base``: the root already holds
    lower layers, so whiteouts have work to do.
    ``max_directories``: those that the layer makes or reaches, at about 130 bytes of memory each. ``max_work``: what
    names, links and attributes may ask for beside the entries' own share (``csrc/layer/context.h``).
    ``snapshot``: another tool makes the root, so its entry is passed over, and a device 0:0 hides its name, as
    overlayfs would read it.
    """

    def __new__(
        cls,
        root_fd: int,
        /,
        *,
        owners: bool,
        privileged: bool,
        base: bool,
        max_entries: int,
        max_bytes: int,
        max_directories: int,
        max_work: int = ...,
        snapshot: int = ...,
    ) -> Self: ...
    def note(self, losses: Losses, /) -> None:
        """Before anything is fed: note what files are not given.

        Where a device cannot be made, an empty file is, for the caller to remove. Of an adopting extractor and its
        stager both.
        """
    def feed(self, data: Readable, /) -> int:
        """Parse and extract a window of any size, without the GIL; 0, or a code (then the layer is lost)."""
    def adopt(self, stager: Stager, count: int, /) -> int:
        """Do with the next ``count`` entries of a stager what feeding them would do, without the GIL.

        Files are moved into place. 1: there are more; 0: that was all, and ``finish`` is next; a negative number: the
        code (then the layer is lost), of an entry, or the stager's own behind its last entry. This extractor has been
        fed nothing and has the stager's options; the stager has finished or failed and is not closed.
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
        """errno for ``LAYER_IO``, else the number that was wrong; of an owner, uid << 32 | gid."""
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
    @property
    def names_root(self) -> bool:
        """Whether an entry gives the root its metadata."""

@final
class Losses:
    """Notes on what the files of a tree are not given, in two files, which stay the caller's.

    Extractors and stagers of one tree note from several threads; ``sort`` ends that, and then ``find`` finds.
    """

    def __new__(cls, records: int, values: int, /) -> Self: ...
    def sort(self) -> None:
        """Make the notes ready. Raises OSError."""
    def find(self, inode: int, /) -> tuple[int, int, int, int, tuple[int, int] | None, bytes] | None:
        """What a file should have: uid, gid, mode, mtime in ns, the numbers of a device, and attributes.

        These are, each: the lengths of key and value as 32 bits, and both. None: nothing was lost.
        """

@final
class Stager:
    """Makes what of a layer needs no lower layers; ``Extractor.adopt`` makes the rest. One thread at a time.

    Files go, whole and with their metadata, into an empty private directory on the root's file system, under numbers
    for names; what is adopted leaves it. All entries go into a nameless file there. ``directory_fd`` stays the
    caller's.
    Members are as ``Extractor``'s; ``finish`` closes nothing, and ``skipped`` counts only what files could not have.
    """

    def __new__(
        cls,
        directory_fd: int,
        /,
        *,
        owners: bool,
        privileged: bool,
        max_entries: int,
        max_bytes: int,
        max_work: int = ...,
    ) -> Self: ...
    def note(self, losses: Losses, /) -> None: ...
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
    @property
    def names_root(self) -> bool: ...

# code -> (kind, sentence); kind is "format", "unsafe", "unsupported", "limit", "io" or "stopped".
TAR_CODES: dict[int, tuple[str, str]]

@final
class LayerDirectory:
    """Makes one layer alone, in the form of overlayfs, for lower layers that are not there. One thread at a time.

    ``directory_fd`` is an empty directory and stays the caller's. ``user_xattrs``: what overlayfs must know is in
    ``user.overlay.*`` and not in ``trusted.overlay.*``. ``unknown_lowers``: lower layers are there, and will not
    be asked, so that a whiteout gets a directory to be in. All else is as ``Extractor``'s. A refusal of a layer that
    has ``reasons`` may be wrong.
    """

    def __new__(
        cls,
        directory_fd: int,
        /,
        *,
        owners: bool,
        privileged: bool,
        user_xattrs: bool,
        max_entries: int,
        max_bytes: int,
        max_directories: int,
        max_work: int = ...,
        snapshot: int = ...,
        unknown_lowers: int = ...,
    ) -> Self: ...
    def note(self, losses: Losses, /) -> None: ...
    def feed(self, data: Readable, /) -> int: ...
    def finish(self) -> int:
        """Demand the end of the archive, say what is hidden, set the times of directories; 0 or a code."""
    def stop(self) -> None: ...
    def close(self) -> None: ...
    @property
    def implied(self) -> list[bytes]:
        """The directories that lower layers have a say in, since no entry names them: paths, parents before children.

        Known between ``finish`` and ``close``.
        """
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
    @property
    def names_root(self) -> bool: ...
    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the directory is not exact on top of every stack of layers (``csrc/layer/facts.h``); empty: it is."""
