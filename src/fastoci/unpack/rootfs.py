"""A rootfs while it grows: under a private name, until every diff_id holds; then it gets its own.

The directory beside may belong to another user, and so may what is in it. All is done by descriptors: of the parent,
opened once, and of the private directory, which is nobody else's because its descriptor says so.
A finished tree has a marker (``marker.py``), by which the next unpack of the same image finds it. It is synced only
on demand: without that, the marker counts until the machine is started anew, and then the tree is made anew.
Knows no layers and no limits. Spec: rename(2), openat(2); docs/store-format.md 10.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastoci import _extract, files, path_walk
from fastoci.errors import StoreError, UnpackError
from fastoci.unpack import marker, move
from fastoci.unpack.marker import Contents
from fastoci.unpack.rights import is_machine_root
from fastoci.unpack.staging import PRIVATE, Staging, make_plain
from fastoci.unpack.target import Target, occupied, report_name

if TYPE_CHECKING:
    from fastoci.unpack.losses import Notes, Settled

_TREE: Final = "rootfs"  # in the private directory
_OLD: Final = "old"  # the tree that is replaced


class Rootfs:
    """One tree under construction. ``fd`` is its root. End it with ``publish`` or ``discard``.

    Attributes:
        notes: where it is noted what files are not given; None when all can be.
        replaces: it takes the place of a tree with the same contents, of which a power cut may have taken a part.
    """

    def __init__(self, target: Target, contents: Contents | None, own: Staging, fd: int, replaces: bool) -> None:
        self.target = target.path
        self.replaces = replaces
        self._target = target
        self._contents = contents
        self._staging = own
        self.notes: Notes | None = None
        self._has_report = False
        self._times: tuple[int, int] | None = None  # of the root, when nothing is done in it any more
        self.fd = fd

    @classmethod
    def begin(cls, target: Path, contents: Contents | None = None, *, stop: _extract.Stop | None = None) -> Rootfs:
        """Make the private directory beside ``target``, which is absolute, or in it.

        Args:
            contents: what the tree will be, for its marker; None for a tree without.
            stop: whatever others left may stay.
        Raises:
            RootfsOccupiedError: ``target`` exists and is neither an empty directory nor a tree with these contents.
            StoreBusyError: another process unpacks into it.
            StoreError: the disk refused, or the way to it is another user's.
        """
        try:
            with ExitStack() as undo:
                held = undo.enter_context(closing(Target.open(target, stop=stop, make=0o755)))
                held.demand_alone()
                replaces = held.held(contents) is not None
                own = Staging.make(held.area, held.name)
                undo.callback(own.remove)
                held.demand_alone(own)
                made = cls(held, contents, own, own.make_directory(_TREE, 0o755), replaces)
                if contents is not None and not is_machine_root():
                    made.notes = _begin_notes(own)
                undo.pop_all()
        except OSError as error:
            raise _translate(error, target) from error
        return made

    @staticmethod
    def find(target: Path, contents: Contents, *, stop: _extract.Stop | None = None) -> bool:
        """Whether the tree is there already, finished. What killed processes left is removed.

        Its files are not looked at.

        Raises:
            RootfsOccupiedError, StoreBusyError, StoreError: as ``begin``.
        """
        try:
            with closing(Target.open(target, stop=stop)) as held:
                held.demand_alone()
                found = held.held(contents)
                if found is None or not found.is_trusted:
                    return False
                _end_publish(held.fd, found.mode)
                return True
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _translate(error, target) from error

    @property
    def area(self) -> Path:
        """The directory that the private one is in."""
        return self.target if self._target.is_inside else self.target.parent

    def stage(self, number: int) -> int:
        """Make an empty directory beside the tree for the files of one layer; its descriptor.

        Raises:
            StoreError: the disk refused.
        """
        try:
            return self._staging.make_directory(f"layer{number}", PRIVATE)
        except OSError as error:
            raise _translate(error, self.target) from error

    def unstage(self, number: int, *, stop: _extract.Stop | None = None) -> None:
        """Remove such a directory and what is left in it; what cannot be removed stays until the end."""
        _extract.remove_tree(self._staging.fd, b"layer%d" % number, stop=stop)

    def settle(self, limit: int, *, stop: _extract.Stop) -> Settled | None:
        """Find what the tree is not given, for a report that ``publish`` puts beside it.

        Args:
            limit: bytes of the report.
        Raises:
            UnpackError: the report would be larger.
            StoreError: the disk refused.
        """
        if self.notes is None or self._contents is None:
            return None
        from fastoci.unpack import settling
        from fastoci.unpack.sorted_records import TooManyError

        try:
            settled = settling.settle(
                self.fd,
                self.notes,
                (self._staging.fd, self._staging.lock),
                limit,
                str(self._contents.manifest),
                mapped=self._contents.mapped and not self._target.is_inside,
                stop=stop,
            )
        except TooManyError as error:
            text = f"{self.target}: what this user cannot be given takes more than {limit} bytes (--max-unpacked)"
            raise UnpackError(text) from error
        except OSError as error:
            raise _translate(error, self.target) from error
        self._has_report = settled.has_report
        return settled

    def publish(self, *, sync: bool = False) -> None:
        """Give the tree its final name. Closes, also on error.

        Args:
            sync: wait for the disk, before that and after.
        Raises:
            RootfsOccupiedError: the name was taken meanwhile, other than by a tree with the same contents.
            StoreError: the disk refused.
        """
        try:
            if sync:
                _extract.sync_filesystem(self.fd)
            if not self._target.is_inside:
                self._rename(synced=sync)
            else:
                self._move_up(sync=sync)
            if sync:
                _extract.sync_filesystem(self.fd)
        except OSError as error:
            raise _translate(error, self.target) from error
        finally:
            self.discard()

    def discard(self, *, within: float | None = None, stop: _extract.Stop | None = None) -> str:
        """Remove what is left under the private name. Idempotent.

        Args:
            within: seconds for that; what stays then, or after ``stop``, is removed by the next unpack to the same
                target.
        Returns:
            the private name, when something stays; else nothing.
        """
        if self.fd < 0:
            return ""
        files.close(self.fd)
        self.fd = -1
        if self.notes is not None:
            self.notes.close()
        left = self._staging.remove(within=within, stop=stop)
        if self._times is not None:
            with suppress(PermissionError):
                os.utime(self._target.fd, ns=self._times)
        self._target.close()
        return left

    def _rename(self, *, synced: bool) -> None:
        """Let the tree take the name of nothing, of an empty directory, or of the tree that it replaces."""
        target = self._target
        target.look()
        if (held := target.held(self._contents)) is not None:
            if held.is_trusted:
                return  # another process was faster
            self._set_aside()
        self._publish_report()
        mode = stat.S_IMODE(os.fstat(self.fd).st_mode)
        with move.writable(self.fd):
            if self._contents is not None:
                marker.write(self.fd, self._contents, synced=synced, mode=mode)
            # Replaces an empty directory, nothing else.
            os.rename(_TREE, target.name, src_dir_fd=self._staging.fd, dst_dir_fd=target.parent)

    def _publish_report(self) -> None:
        """Put the report beside the tree, before it has its name; or take away that on a tree that is gone."""
        name, parent = report_name(self._target.name), self._target.parent
        if self._has_report:
            os.rename("lost", name, src_dir_fd=self._staging.fd, dst_dir_fd=parent)
            return
        with suppress(FileNotFoundError):
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid():
                os.unlink(name, dir_fd=parent)

    def _set_aside(self) -> None:
        """Take the old tree into the private directory. Raises OSError: something else has the name by now."""
        target, private = self._target, self._staging.fd
        with move.writable(target.fd):
            os.rename(target.name, _OLD, src_dir_fd=target.parent, dst_dir_fd=private)
        if files.is_at(target.fd, private, _OLD):
            return
        for name in (target.name, f"{files.fitted(target.name, 17)}.{secrets.token_hex(8)}"):
            with suppress(OSError):
                os.rename(_OLD, name, src_dir_fd=private, dst_dir_fd=target.parent)
                break
        raise FileExistsError(errno.EEXIST, "was replaced meanwhile", target.name)

    def _move_up(self, *, sync: bool) -> None:
        """Move what is in the tree to the directory that the private one is in, in place of the old tree.

        Whoever is killed between leaves names of which the private directory tells, so they are removed.
        """
        target, root = self._target, self._target.fd
        if (held := target.held(self._contents)) is not None and held.is_trusted:
            return
        info = os.fstat(self.fd)
        old, new = target.names(), sorted(os.listdir(self.fd), key=lambda name: name != files.LOST_AND_FOUND)
        self._staging.begin_move((old | set(new)) - {files.LOST_AND_FOUND})
        try:
            marker.clear(root)
            aside = self._staging.make_directory(_OLD, PRIVATE)
            try:
                for name in old:
                    move.move(name, root, aside)
            finally:
                files.close(aside)
            for name in new:
                move.move(name, self.fd, root)
            move.copy_metadata(self.fd, root)
            if sync:
                _extract.sync_filesystem(root)
            if self._contents is not None:
                mode = stat.S_IMODE(os.fstat(root).st_mode)
                with move.writable(root):
                    marker.write(root, self._contents, synced=sync, mode=mode)
            self._staging.end_move()
            self._times = info.st_atime_ns, info.st_mtime_ns
        except BaseException:
            target.undo_move(self._staging)
            raise


def _begin_notes(own: Staging) -> Notes:
    from fastoci.unpack.losses import Notes  # root, who loses nothing, does not need it

    return Notes.make(own.fd)


def open_directory(path: Path) -> tuple[int, bool]:
    """Open (or make) a directory, by its absolute path, to apply layers onto; and whether it holds anything.

    It does not hold the image any more that it may have held.

    Raises:
        StoreError: it is not a directory, cannot be made or opened, or the way to it is another user's.
    """
    try:
        fd = _open_or_make(path)
        try:
            marker.clear(fd)
            return fd, bool(os.listdir(fd))
        except BaseException:
            files.close(fd)
            raise
    except OSError as error:
        raise _translate(error, path) from error


def _end_publish(fd: int, mode: int) -> None:
    """Whoever was killed right after the rename has left a mode that it needed for that."""
    if stat.S_IMODE(os.fstat(fd).st_mode) == mode | stat.S_IWUSR != mode:
        os.fchmod(fd, mode)


def _open_or_make(path: Path) -> int:
    unreadable = False
    try:
        return path_walk.open_directory(path)
    except FileNotFoundError:
        pass
    except PermissionError:
        unreadable = True
    parent, name = path_walk.open_parent(path, follow=True)
    try:
        if unreadable:
            return _open_unreadable(parent, name)
        os.mkdir(name, PRIVATE, dir_fd=parent)
        fd = files.open_directory_at(parent, name)
        try:
            # In another user's directory it may have been replaced by now.
            if os.fstat(fd).st_uid == os.geteuid() and not os.listdir(fd):
                make_plain(fd, 0o755)
        except BaseException:
            files.close(fd)
            raise
        return fd
    finally:
        files.close(parent)


def _open_unreadable(parent: int, name: str) -> int:
    """Open one's own directory although its mode forbids it, as that of a layer before may; the mode stays."""
    held = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    link = f"/proc/self/fd/{held}"  # the held directory: fchmod takes no descriptor of O_PATH
    try:
        mode = stat.S_IMODE(os.fstat(held).st_mode)
        os.chmod(link, mode | PRIVATE)
        try:
            return files.open_directory_at(held, ".")
        finally:
            os.chmod(link, mode)
    finally:
        files.close(held)


def _translate(error: OSError, target: Path) -> StoreError:
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
        return occupied(target)
    return files.failure(error, "unpack to", str(target))
