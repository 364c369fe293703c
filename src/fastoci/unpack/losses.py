"""What a tree is not given: owners, devices, privileged attributes and set-id bits, of a user who is not root.

The native extractor notes it by inode while layers become files. When all are there, the tree is walked once: each name
that lost something gets a line in a report beside the tree, and the empty files that stood for devices go.
Spec: docs/unpacking.md, "Without root".
"""

from __future__ import annotations

import base64
import errno
import json
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec

from fastoci import _extract, files
from fastoci.errors import StoreError
from fastoci.unpack.sorted_records import SortedRecords
from fastoci.unpack.target import report_name

_VERSION: Final = 1
_DEVICES: Final = 10  # that are told by name
_HELD: Final = 16  # directories on a way of which one is held open: at most 128 of the deepest
_LINE_MAX: Final = 64 << 20  # bytes: the attributes of one file


class Lost(msgspec.Struct, frozen=True):
    """What one name of a tree should have: ``path`` is relative, empty for the root.

    ``device`` is its type, major and minor number, and then nothing has the name; ``mtime_ns`` is that of a device.
    """

    path: bytes
    uid: int
    gid: int
    mode: int
    xattrs: dict[str, bytes]
    device: tuple[str, int, int] | None
    mtime_ns: int

    def line(self) -> bytes:
        """As in a report."""
        form: dict[str, Any] = {"path": os.fsdecode(self.path), "uid": self.uid, "gid": self.gid}
        form["mode"] = f"{self.mode:04o}"
        if self.xattrs:
            form["xattrs"] = {key: base64.b64encode(value).decode() for key, value in self.xattrs.items()}
        if self.device is not None:
            kind, major, minor = self.device
            form |= {"device": kind, "major": major, "minor": minor, "mtime_ns": self.mtime_ns}
        return json.dumps(form).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Lost:
        """Read a line of a report. Raises ValueError, TypeError, KeyError."""
        form = json.loads(line)
        device = (str(form["device"]), int(form["major"]), int(form["minor"])) if "device" in form else None
        return cls(
            path=os.fsencode(form["path"]),
            uid=int(form["uid"]),
            gid=int(form["gid"]),
            mode=int(form["mode"], 8),
            xattrs={key: base64.b64decode(value) for key, value in form.get("xattrs", {}).items()},
            device=device,
            mtime_ns=int(form.get("mtime_ns", 0)),
        )


class Settled(msgspec.Struct, frozen=True):
    """How much a tree is not given, by kind, and the paths of the first devices among that.

    ``has_report``: there is one. ``warning``: why owners were not given that could be, as a rule.
    """

    counts: dict[str, int]
    devices: tuple[str, ...]
    has_report: bool = False
    warning: str = ""


class Notes:
    """The notes of one tree while it grows: two files without names. End it with ``close``."""

    def __init__(self, records: int, values: int) -> None:
        self.fds: tuple[int, ...] = (records, values)
        self.native = _extract.Losses(records, values)

    @classmethod
    def make(cls, directory: int) -> Notes:
        """Begin them in a private directory. Raises OSError."""
        records = files.nameless_at(directory)
        try:
            return cls(records, files.nameless_at(directory))
        except BaseException:
            files.close(records)
            raise

    def close(self) -> None:
        """Let go of them. Idempotent."""
        for fd in self.fds:
            files.close(fd)
        self.fds = ()


Give = Callable[[int, bytes, Lost], set[str]]  # gives a name of a directory what it lost; which kinds are lost still
REPORT: Final = "lost"  # its name in the private directory
_KINDS: Final = ("owners", "modes", "xattrs")


def settle(
    root: int, notes: _extract.Losses, lost: SortedRecords, *, give: Give | None = None, stop: _extract.Stop
) -> Settled:
    """Walk a tree that nobody else can change, and tell what its names lost.

    Args:
        lost: gets a line for each.
        give: what it gives is not lost.
    Raises:
        TooManyError: these are too many lines.
        OSError: the disk refused, or ``stop`` was set.
    """
    notes.sort()
    devices: list[str] = []
    counts = dict.fromkeys((*_KINDS, "devices"), 0)
    for directory, name, path, inode in _walk(root, stop):
        each = _lost(path, notes.find(inode))
        if each is None:
            continue
        if each.device is not None:
            os.unlink(name, dir_fd=directory)
            counts["devices"] += 1
            devices += [os.fsdecode(path)] if len(devices) < _DEVICES else []
        else:
            still = set(_KINDS) if give is None else give(directory, name, each)
            if not still:
                continue
            counts["owners"] += "owners" in still and (each.uid > 0 or each.gid > 0)
            counts["modes"] += "modes" in still and each.mode & (stat.S_ISUID | stat.S_ISGID) > 0
            counts["xattrs"] += len(each.xattrs) if "xattrs" in still else 0
        lost.add(path.replace(b"/", b"\0"), each.line())  # a directory, and then what is in it
    return Settled(counts, tuple(devices))


def settle_and_report(
    root: int,
    notes: _extract.Losses,
    private: int,
    limit: int,
    manifest: str,
    *,
    give: Give | None = None,
    stop: _extract.Stop,
) -> Settled:
    """``settle``, with a report in a private directory when anything is lost.

    Args:
        limit: bytes of the report.
        manifest: the digest of the image's.
    Raises:
        TooManyError: the report would be larger. OSError: as ``settle``.
    """
    with closing(SortedRecords(private, limit)) as lost:
        settled = settle(root, notes, lost, give=give, stop=stop)
        if not lost:
            return settled
        fd = os.open(REPORT, files.CREATE, 0o644, dir_fd=private)
        try:
            write_report(fd, lost, root, manifest)
        finally:
            files.close(fd)
    return msgspec.structs.replace(settled, has_report=True)


def _lost(path: bytes, found: tuple[int, int, int, int, tuple[int, int] | None, bytes] | None) -> Lost | None:
    if found is None:
        return None
    uid, gid, mode, mtime_ns, numbers, values = found
    device = None if numbers is None else ("c" if stat.S_ISCHR(mode) else "b", *numbers)
    return Lost(path, uid, gid, stat.S_IMODE(mode), dict(_attributes(values)), device, mtime_ns)


def _attributes(values: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at < len(values):
        key, value = struct.unpack_from("=II", values, at)
        at += 8
        yield os.fsdecode(values[at : at + key]), values[at + key : at + key + value]
        at += key + value


def _walk(root: int, stop: _extract.Stop) -> Iterator[tuple[int, bytes, bytes, int]]:
    """A directory and all below: the directory that each is in, its name there, its path, and its inode.

    The name may be removed. A directory's own mode and time are as before when it has been walked.
    """
    frames: list[_Frame] = []
    yield root, b".", b"", os.fstat(root).st_ino
    path = b""
    try:
        while True:
            frame = _Frame.open(root, path, frames)
            frames.append(frame)
            before = os.fstat(frame.fd)
            with os.scandir(frame.fd) as entries:
                for entry in entries:
                    if stop.is_set():
                        raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
                    name = os.fsencode(entry.name)
                    info = os.stat(name, dir_fd=frame.fd, follow_symlinks=False)
                    yield frame.fd, name, path + name, info.st_ino
                    if stat.S_ISDIR(info.st_mode):
                        frame.below.append(name)
            if os.fstat(frame.fd).st_mtime_ns != before.st_mtime_ns:
                os.utime(frame.fd, ns=(before.st_atime_ns, before.st_mtime_ns))
            if len(frames) % _HELD != 1:
                frame.close()
            while frames and not frames[-1].below:
                frames.pop().end(root, frames)
            if not frames:
                return
            path = frames[-1].path + frames[-1].below.pop() + b"/"
    finally:
        for frame in frames:
            frame.close()


class _Frame:
    """A directory on the way of a walk, and what is still to be walked in it; one in ``_HELD`` stays open."""

    def __init__(self, path: bytes, fd: int, mode: int | None) -> None:
        self.path = path
        self.fd = fd
        self.below: list[bytes] = []
        self._mode = mode  # when it had to be changed

    @classmethod
    def open(cls, root: int, path: bytes, frames: list[_Frame]) -> _Frame:
        """Open what is below the last of ``frames``."""
        at, name = _nearest(root, path, frames)
        mode = stat.S_IMODE(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode)
        if mode & stat.S_IRWXU == stat.S_IRWXU or os.geteuid() == 0:
            return cls(path, os.open(name, files.DIRECTORY, dir_fd=at), None)
        os.chmod(name, mode | stat.S_IRWXU, dir_fd=at)
        return cls(path, os.open(name, files.DIRECTORY, dir_fd=at), mode)

    def close(self) -> None:
        """Let go of the descriptor. Idempotent."""
        if self.fd >= 0:
            files.close(self.fd)
        self.fd = -1

    def end(self, root: int, frames: list[_Frame]) -> None:
        """Leave it as it was; ``frames`` are those above it."""
        self.close()
        if self._mode is not None:
            at, name = _nearest(root, self.path, frames)
            os.chmod(name, self._mode, dir_fd=at)


def _nearest(root: int, path: bytes, frames: list[_Frame]) -> tuple[int, bytes]:
    """The nearest directory above a path that is open, and the rest of the path: so a deep tree costs no more."""
    for frame in reversed(frames):
        if frame.fd >= 0:
            return frame.fd, path[len(frame.path) :] or b"."
    return root, path or b"."


def write_report(fd: int, lost: SortedRecords, root: int, manifest: str) -> None:
    """Write what was lost, after a line that says of which tree. Raises OSError."""
    info = os.fstat(root)
    header = {"version": _VERSION, "manifest": manifest, "inode": info.st_ino, "born_ns": _extract.birth_time_ns(root)}
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        for _, line in lost:
            file.write(line)


def read_report(tree: Path) -> Iterator[Lost]:
    """What was lost of a tree, by its report: each directory before what is in it, names in the order of their bytes.

    Raises:
        StoreError: the report is another user's, of another tree, or damaged.
    """
    path = tree.with_name(report_name(tree.name))
    with files.translated("read", str(path)):
        try:
            fd = os.open(path, files.READ)
        except FileNotFoundError:
            return
        with os.fdopen(fd, "rb") as file:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
                raise StoreError(f"{path} is not a file of this user: remove it", path=str(path))
            try:
                _check_header(json.loads(file.readline(_LINE_MAX)), tree, path)
                while line := file.readline(_LINE_MAX):
                    yield Lost.parse(line)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise StoreError(f"{path} is damaged: {error}", path=str(path)) from error


def _check_header(header: dict[str, Any], tree: Path, path: Path) -> None:
    fd = os.open(tree, files.DIRECTORY)
    try:
        found = (os.fstat(fd).st_ino, _extract.birth_time_ns(fd))
    finally:
        files.close(fd)
    if header["version"] != _VERSION or (header["inode"], header["born_ns"]) != found:
        raise StoreError(f"{path} is of another tree than {tree}: remove it", path=str(path))
