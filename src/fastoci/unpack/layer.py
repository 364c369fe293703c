"""One layer's tar becomes files below a directory: sinks over the native extractor and stager.

The one module where the codes of those that read layers become errors. Decompression and digests are others' work.
Spec: image-spec v1.1 layer.md (change sets, whiteouts).
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, Final

from fastoci import _extract
from fastoci._core import Buffer
from fastoci.errors import (
    FastociError,
    FormatError,
    LimitError,
    OwnerError,
    StoreError,
    StoreFullError,
    UnpackError,
    UnsafePathError,
    UnsupportedEntryError,
)
from fastoci.unpack.rights import ALL_IDS, id_count

if TYPE_CHECKING:
    from fastoci import _erofs
    from fastoci.unpack.losses import Notes

    Native = _extract.Extractor | _extract.Stager | _extract.LayerDirectory | _erofs.LayerFile | _erofs.MergedMetadata

_LOG: Final = logging.getLogger(__name__)

# What a disk or a process at its bounds says: not the layer's fault.
_DISK: Final = frozenset({errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_ID: Final = 0xFFFFFFFF  # bits of a uid or gid
_ERRORS: Final = {"unsafe": UnsafePathError, "unsupported": UnsupportedEntryError, "limit": LimitError}
_SHOWN: Final = 512  # characters of a path in a message: a layer may name one of a megabyte


class LayerSink:
    """What the sinks of layers do by their native half."""

    def __init__(self, native: Native, name: str) -> None:
        self.name = name
        self._native = native

    @property
    def entries(self) -> int:
        """Entries read so far."""
        return self._native.entries

    @property
    def bytes(self) -> int:
        """Bytes of file content written so far."""
        return self._native.bytes

    @property
    def memory(self) -> int:
        """Bytes that the names in the layer take; 0 where that is bounded by the number of directories."""
        return 0

    @property
    def size(self) -> int:
        """These, and what else counts for ``max_bytes``: extended attributes, and names that are long together."""
        return self._native.size

    @property
    def skipped(self) -> dict[str, int]:
        """How many owners, devices and xattrs this user or file system could not be given."""
        return self._native.skipped

    def feed(self, buffer: Buffer) -> None:
        """Parse and extract.

        Raises:
            FormatError: this is not a tar, or a damaged one.
            UnpackError: the layer cannot become files (``UnsafePathError``, ``UnsupportedEntryError``).
            StoreError: the disk refused, whatever the layer is; ``StoreFullError``: no space or no inodes left.
        """
        self._check(self._native.feed(buffer))

    def finish(self) -> None:
        """Demand the end of the tar. Raises: as ``feed``."""
        self._check(self._native.finish())
        _LOG.debug("%s: %d entries, %d bytes of files", self.name, self.entries, self.bytes)

    def _check(self, code: int) -> None:
        """Raise what a code of the native half means."""
        if code:
            raise _error(self._native, self.name)

    def stop(self) -> None:
        """From any thread: whatever is under way ends soon, with an error."""
        self._native.stop()

    def abort(self) -> None:
        """Close every descriptor, idempotent; what was extracted or staged is the caller's to remove."""
        self._native.close()


class LayerWriter(LayerSink):
    """A sink for the tar of one layer. Lower layers must be complete.

    Args:
        root_fd: the directory; stays the caller's and must outlive this object.
        name: the layer in messages: a diff_id or a file.
        base: lower layers are there, so whiteouts have work to do.
        owners: give files to the owners that entries name.
        max_entries, max_bytes: what this layer may still make.
        max_directories: what it may make or reach.
    """

    def __init__(
        self,
        root_fd: int,
        *,
        name: str,
        base: bool,
        owners: bool,
        max_entries: int,
        max_bytes: int,
        max_directories: int,
    ) -> None:
        self._extractor = _extract.Extractor(
            root_fd,
            owners=owners,
            privileged=os.geteuid() == 0,
            base=base,
            max_entries=max_entries,
            max_bytes=max_bytes,
            max_directories=max_directories,
        )
        super().__init__(self._extractor, name)

    @property
    def names_root(self) -> bool:
        """Whether an entry gives the root of the tree its metadata."""
        return self._extractor.names_root

    def note(self, notes: Notes) -> None:
        """Before the first buffer: note what files are not given."""
        self._extractor.note(notes.native)

    def adopt(self, stager: LayerStager, count: int) -> bool:
        """Do the next ``count`` entries of a finished stager instead of ``feed``; whether there are more.

        The tree, the facts and the errors are those of a fed layer. After the last entry ``finish`` is next.
        Raises: as ``feed``.
        """
        result = self._extractor.adopt(stager.native, count)
        self._check(min(result, 0))
        return result > 0

    def finish(self) -> None:
        """Demand the end of the tar and set the times of directories. Raises: as ``feed``."""
        super().finish()
        self._extractor.close()


class LayerStager(LayerSink):
    """A sink for the tar of one layer whose lower layers may still be on their way.

    It makes the content and metadata of files, and finds what is wrong with the layer by itself; then one
    ``LayerWriter`` adopts it. ``finish`` leaves it open for that. ``abort`` ends it, also after that. ``skipped``
    counts regular files only.

    Args:
        directory_fd: an empty private directory on the file system of the root; stays the caller's, who removes it
            with what is left in it.
        name: the layer in messages: a diff_id or a file.
        owners: as the adopting ``LayerWriter`` has it.
        max_entries, max_bytes: what this layer may make; the adopting ``LayerWriter`` counts again.
    """

    def __init__(self, directory_fd: int, *, name: str, owners: bool, max_entries: int, max_bytes: int) -> None:
        privileged = os.geteuid() == 0
        self.native = _extract.Stager(
            directory_fd, owners=owners, privileged=privileged, max_entries=max_entries, max_bytes=max_bytes
        )
        super().__init__(self.native, name)

    def note(self, notes: Notes) -> None:
        """As ``LayerWriter``'s, of the one that adopts it."""
        self.native.note(notes.native)


def _error(native: Native, name: str) -> FastociError:
    """Map code and facts to the error tree."""
    kind, sentence = _extract.TAR_CODES[native.code]
    path = native.path.decode("utf-8", "backslashreplace")
    offset, value = native.offset, native.value
    shown = path if len(path) <= _SHOWN else f"{path[: _SHOWN // 2]}...{path[-_SHOWN // 2 :]}"
    subject = f"layer {name}, entry {shown!r}" if path else f"layer {name}"
    if kind == "io":
        if value in (errno.ENOSPC, errno.EDQUOT):
            return StoreFullError(f"{subject}: {os.strerror(value)}: free space and run again", path=path)
        if value in _DISK:
            return StoreError(f"{subject}: {os.strerror(value)}", path=path)
        return UnpackError(f"{subject}: {os.strerror(value)}", path=path, layer=name, offset=offset)
    if kind == "owner":
        return _owner_error(f"{subject}: {sentence}", path, value >> 32 & _ID, value & _ID)
    message = f"{subject}: {sentence} (header at byte {offset} of the tar, value {value})"
    if kind == "format":
        return FormatError(message)
    return _ERRORS.get(kind, UnpackError)(message, path=path, layer=name, offset=offset)


def _owner_error(problem: str, path: str, uid: int, gid: int) -> OwnerError:
    """Say what is missing: ids in the user namespace, or the right to use them."""
    users, groups = id_count("uid"), id_count("gid")
    advice = "unpack with --no-same-owner"
    if (users or ALL_IDS) < ALL_IDS or (groups or ALL_IDS) < ALL_IDS:
        problem += f", which has {users} user and {groups} group ids"
        advice = f"give its user more of them in /etc/subuid and /etc/subgid, or {advice}"
    return OwnerError(f"{problem}: uid {uid}, gid {gid}: {advice}", path=path, uid=uid, gid=gid)
