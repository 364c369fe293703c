"""A tree of files, read by descriptors: each name is opened once, nothing is followed, and what is open is what counts.

Others may change the tree meanwhile. They cannot lead the walk out of it: a directory is entered by its name in its
parent that is held, never through a link, and not into what is mounted in it. What they change under the walk's hands
is found out, and is an error. Spec: openat(2); path_resolution(7).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from msgspec.structs import replace

from fastoci import files, mountinfo
from fastoci.errors import PackError
from fastoci.image.runtime_config import UserNamespace
from fastoci.pack.facts import Facts, below, is_packed, overlay_name
from fastoci.pack.losses import Losses
from fastoci.stream.tar_headers import Kind, carries

_KINDS: Final[dict[int, Kind]] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
}
# Of what is neither file nor directory only the name is held: to open a device may do something.
_PINNED: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FLAGS: Final = {stat.S_IFREG: files.READ | os.O_NOCTTY, stat.S_IFDIR: files.DIRECTORY}
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENXIO})
_HELD: Final = 128  # directories above each other that stay open

Told = Callable[[str], None]  # of what a layer cannot have, and is left out


class Node:
    """What a name leads to, open until ``close``."""

    __slots__ = ("_enter", "facts", "fd", "info", "path")

    def __init__(
        self, fd: int, facts: Facts, info: os.stat_result, path: str, enter: Callable[[Node], Directory]
    ) -> None:
        self.fd = fd
        self.facts = facts
        self.path = path  # for people
        self.info = info
        self._enter = enter

    def enter(self) -> Directory:
        """It as a directory, which closes it."""
        return self._enter(self)

    def read_into(self, view: memoryview, offset: int) -> int:
        """Read a file's content; the number of bytes, 0 at its end.

        Raises:
            StoreError: the disk refused.
        """
        with files.translated("read", self.path):
            return os.preadv(self.fd, [view], offset)

    def read(self, offset: int, size: int) -> bytes:
        """``read_into`` for whoever has no memory."""
        with files.translated("read", self.path):
            return os.pread(self.fd, size, offset)

    def check(self) -> None:
        """Demand that a file is as it was when it was opened.

        Raises:
            PackError: it was written to meanwhile.
        """
        now, then = os.fstat(self.fd), self.info
        if (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (then.st_size, then.st_mtime_ns, then.st_ctime_ns):
            raise changed(self.path)

    def reopen(self, fd: int) -> bool:
        """Take another descriptor of it; False, and that is closed, when it is of something else."""
        if os.path.samestat(os.fstat(fd), self.info):
            self.fd = fd
            return True
        files.close(fd)
        return False

    def close(self) -> None:
        """Let go. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            files.close(fd)


def changed(path: str) -> PackError:
    """The error for what others did to the tree meanwhile."""
    error = PackError(f"{path} changed while it was read", path=path)
    error.retryable = True
    return error


class Tree:
    """A tree below a directory.

    Args:
        fd: the directory; passes to the tree. ``path`` is for people.
        latest_ns: times after it are taken for it; None: times are as they are.
        losses: what its names should have beside what they have; None for a tree of which nothing is known.
        namespace: whose ids the files have, as of a tree that was unpacked without root; None for a tree of root.
        told: hears of what is left out.
    Raises:
        StoreError: there is no ``/proc`` that says what is mounted.
    """

    def __init__(
        self,
        fd: int,
        path: str,
        *,
        latest_ns: int | None = None,
        losses: Losses | None = None,
        namespace: UserNamespace | None = None,
        told: Told,
    ) -> None:
        self.path = path
        self._losses = losses
        self._namespace = namespace
        self._latest_ns = latest_ns
        self._told = told
        try:
            with files.translated("see what is mounted in", path):
                self.mounted = _mounted(fd)
                info = os.fstat(fd)
                facts = self.facts(fd, info, b"")
            self.root: Directory = Node(fd, facts, info, path, lambda node: Directory(self, node, b"", None)).enter()
        except BaseException:
            files.close(fd)
            raise

    def shown(self, path: bytes) -> str:
        """A path in the tree, for people."""
        return f"{self.path}/{os.fsdecode(path)}" if path else self.path

    def leave_out(self, path: bytes, why: str) -> None:
        """Tell of something that no layer can have."""
        self._told(f"{self.shown(path)} {why}")

    def facts(self, fd: int, info: os.stat_result, path: bytes) -> Facts:
        """What is known of an open name. Raises: OSError."""
        kind = _KINDS.get(stat.S_IFMT(info.st_mode))
        xattrs, overlay = self._xattrs(fd, kind, path)
        is_device = kind in ("character", "block")
        uid, gid = (None, None) if self._namespace is None else self._namespace.inside(info.st_uid, info.st_gid)
        facts = Facts(
            kind or "socket",
            stat.S_IMODE(info.st_mode),
            info.st_uid if uid is None else uid,
            info.st_gid if gid is None else gid,
            self._clamped(info.st_mtime_ns),
            size=info.st_size if kind == "file" else 0,
            link=os.readlink(b"", dir_fd=fd) if kind == "symlink" else b"",
            device=(os.major(info.st_rdev), os.minor(info.st_rdev)) if is_device else (0, 0),
            xattrs=xattrs,
            overlay=overlay,
            identity=(info.st_dev, info.st_ino),
            links=info.st_nlink,
        )
        return facts if self._losses is None else self._losses.given_back(path, facts)

    def devices(self, directory: bytes) -> dict[bytes, Facts]:
        """Devices that should be in a directory, and that nobody could make."""
        found = {} if self._losses is None else self._losses.devices.get(directory, {})
        return {name: replace(facts, mtime_ns=self._clamped(facts.mtime_ns)) for name, facts in found.items()}

    def _clamped(self, time_ns: int) -> int:
        return time_ns if self._latest_ns is None else min(time_ns, self._latest_ns)

    def _xattrs(self, fd: int, kind: str | None, path: bytes) -> tuple[tuple[tuple[bytes, bytes], ...], ...]:
        """The attributes that a layer has, and those of overlayfs."""
        target: int | str = fd if kind in ("file", "directory") else f"/proc/self/fd/{fd}"
        try:
            names = os.listxattr(target)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            return (), ()
        if not names:
            return (), ()
        packed, overlay = [], []
        for name in sorted(map(os.fsencode, names)):
            if (own := overlay_name(name)) is not None:
                overlay.append((own, os.getxattr(target, name)))
            elif is_packed(name):
                value = os.getxattr(target, name)
                if carries(name, value):
                    packed.append((name, value))
                else:
                    self.leave_out(path, f"has an attribute that no tar can carry, {os.fsdecode(name)}: it is left out")
        return tuple(packed), tuple(overlay)


class Directory:
    """An open directory of a tree. ``leave`` leads back to its parent, whose descriptor may have been given up.

    Args:
        node: the directory; passes to this one.
    """

    def __init__(self, tree: Tree, node: Node, path: bytes, parent: Directory | None) -> None:
        self.path = path
        self.facts = node.facts
        self._tree = tree
        self._node = node
        self._parent = parent
        self._absent: dict[bytes, Facts] = {}  # what should be here, and is not
        self._depth: int = 0 if parent is None else parent._depth + 1
        if parent is not None and parent._depth >= _HELD:
            parent._node.close()

    def names(self) -> list[bytes]:
        """What is in it, in the order of bytes; with devices that should be.

        Raises:
            StoreError: the disk refused.
        """
        with files.translated("list", self._tree.shown(self.path)):
            names = set(map(os.fsencode, os.listdir(self._node.fd)))
        self._absent = {name: facts for name, facts in self._tree.devices(self.path).items() if name not in names}
        return sorted(names.union(self._absent))

    def is_mounted(self, name: bytes) -> bool:
        """Whether something else is mounted at a name: it is not of the tree."""
        return below(self.path, name) in self._tree.mounted

    def open(self, name: bytes) -> Node:
        """What is at a name; the caller closes it.

        Raises:
            PackError: it was there, and is not any more, or is another one.
            StoreError: it may not be read, or the disk refused.
        """
        path = below(self.path, name)
        if name in self._absent:
            facts = self._absent[name]
            return Node(-1, facts, self._node.info, self._tree.shown(path), partial(self._enter, path))
        with self._naming(path):
            seen = os.stat(name, dir_fd=self._node.fd, follow_symlinks=False)
            fd = os.open(name, _FLAGS.get(stat.S_IFMT(seen.st_mode), _PINNED), dir_fd=self._node.fd)
            try:
                info = os.fstat(fd)
                if (info.st_mode, info.st_ino, info.st_dev) != (seen.st_mode, seen.st_ino, seen.st_dev):
                    raise changed(self._tree.shown(path))
                return Node(
                    fd, self._tree.facts(fd, info, path), info, self._tree.shown(path), partial(self._enter, path)
                )
            except BaseException:
                files.close(fd)
                raise

    def leave(self) -> None:
        """Go back to its parent, which is usable from then on.

        Raises:
            PackError: this directory was moved meanwhile.
        """
        try:
            if self._parent is not None and self._parent._node.fd < 0:
                self._parent._return_from(self._node.fd)
        finally:
            self.close()

    def close(self) -> None:
        """Let go. Idempotent."""
        self._node.close()

    def _enter(self, path: bytes, node: Node) -> Directory:
        return Directory(self._tree, node, path, self)

    def _return_from(self, child: int) -> None:
        with self._naming(self.path):
            fd = os.open("..", files.DIRECTORY, dir_fd=child)
        if not self._node.reopen(fd):
            raise changed(self._tree.shown(self.path))

    @contextmanager
    def _naming(self, path: bytes) -> Iterator[None]:
        """Translate what the system says of a name that was there a moment ago."""
        shown = self._tree.shown(path)
        try:
            with files.translated("read", shown):
                yield
        except Exception as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in _GONE:
                raise changed(shown) from error
            raise


def _mounted(fd: int) -> frozenset[bytes]:
    """The paths in a directory that something is mounted at: also a bind of the same file system.

    A directory of a mount that is nowhere has none: its path is one of that mount alone.
    """
    points = mountinfo.mounts()
    if _mount_id(fd) not in (mount.id for mount in points):
        return frozenset()
    top = os.fsencode(os.readlink(f"/proc/self/fd/{fd}")).rstrip(b"/") + b"/"
    found = map(os.fsencode, (mount.point for mount in points))
    return frozenset(point.removeprefix(top) for point in found if point.startswith(top) and point != top)


def _mount_id(fd: int) -> int:
    """Of the mount that an open directory is seen through."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        fields = dict(line.split(b":", 1) for line in file.read().splitlines() if b":" in line)
    return int(fields[b"mnt_id"])
