"""The images that are mounted: one mount an image in the runtime directory, and the directories that show it.

All changes happen under one lock, which processes of this user wait for. The list of mounts is the kernel's; beside
each shared mount is only a name for people. Whatever a killed process left is finished or taken away by the next one.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from fastoci import files, locks, mountinfo, path_walk
from fastoci.directory import Directory
from fastoci.errors import MountError, StoreBusyError, StoreError
from fastoci.mount import fuse
from fastoci.mount.point import Point
from fastoci.mount.way import Way, way_of
from fastoci.mountinfo import Mount
from fastoci.store import trust

_NAME_SIZE: Final = 1 << 16  # bytes of a note
_UPPER: Final = re.compile(r"(?:^|,)upperdir=(/.*?),workdir=/")


class MountedImage(msgspec.Struct, frozen=True):
    """An image that is mounted on a directory.

    Attributes:
        directory: where.
        manifest: the hex of its manifest's digest.
        reference: what it was called when it was mounted first; empty when that is not known.
        way: how the files are read: of several that need nothing but the kernel the first that it can.
        upper: the directory that changes are written to; empty when the image cannot be written to, and where an
            old kernel does not tell.
    """

    directory: str
    manifest: str
    reference: str
    way: Way
    upper: str


class Runtime:
    """The shared mounts of this user, while the lock is held."""

    def __init__(self, top: Directory, images: Directory) -> None:
        self.images = images
        self._top = top

    def shared(self, image: str) -> Point:
        """The point where an image is mounted once for all; its directory is made."""
        _make(self.images, image)
        return Point(os.dup(self.images.fd), image, self.images.at(image))

    def empty(self) -> int:
        """An empty directory, which the caller closes: an overlay that is only read has two."""
        _make(self.images, "empty")
        return self.images.open("empty", os.O_PATH | os.O_DIRECTORY)

    def note(self, image: str, reference: str) -> None:
        """Say beside a shared mount what it is, unless that is said."""
        if not self.images.has(f"{image}.json"):
            _write(self.images, f"{image}.json", json.dumps({"reference": reference}).encode())

    def note_point(self, point: Point, label: str) -> None:
        """Say what is mounted on a point, when its source does not: as ``mountinfo`` reads it."""
        mounted = point.mounted()
        if mounted is not None:
            _make(self._top, "fuse")
            with self._top.enter("fuse") as notes:
                _write(notes, mounted.device, os.fsencode(f"{label}\n{mounted.point}"))

    def sweep(self) -> bool:
        """Take away the shared mounts that nobody uses, and what killed processes left; whether there was any."""
        found = mountinfo.mounts()
        names = [name for name in self.images.names() if mountinfo.is_image(name)]
        return any([self._take_away(name, found) for name in names if not _uses(name, self._device(name), found)])

    def _device(self, image: str) -> str | None:
        with self.shared(image) as point:
            mounted = point.mounted()
        return None if mounted is None else mounted.device

    def _take_away(self, image: str, found: Sequence[Mount]) -> bool:
        with self.shared(image) as point:
            while (mounted := point.mounted()) is not None:
                if way_of(mounted) is None:
                    return False  # not ours
                try:
                    _unmount(point, mounted)
                except StoreBusyError:
                    return False  # somebody looks into it
            self.images.rmdir(image)
        for name in (f"{image}.json", f".{image}.json.new"):
            with suppress(FileNotFoundError):
                self.images.unlink(name)
        return True


def _make(directory: Directory, name: str) -> None:
    """Make a directory for this user alone: images have programs with the set-user-ID bit. Nothing here is synced."""
    with suppress(FileExistsError):
        directory.mkdir(name, 0o700)


def _write(directory: Directory, name: str, data: bytes) -> None:
    """Give a file of the runtime directory its content at once; of the lock's holder."""
    with suppress(FileNotFoundError):
        directory.unlink(f".{name}.new")
    fd = directory.open(f".{name}.new", files.CREATE)
    try:
        files.write_all(fd, data)
    finally:
        os.close(fd)
    directory.rename(f".{name}.new", directory, name)


@contextmanager
def locked() -> Iterator[Runtime]:
    """Hold the runtime directory, which is made when it is absent.

    Raises:
        StoreError: it cannot be made, or others may write to it; another process has had the lock for a minute.
    """
    path = mountinfo.runtime_directory()
    own = (0, os.geteuid())
    with ExitStack() as held:
        with files.translated("open", path):
            top = held.enter_context(Directory(path_walk.open_directory(Path(path), make=0o755, exact=True), path))
            trust.check(top, own)
            _make(top, "images")
            images = held.enter_context(trust.enter(top, "images", own))
            lock = locks.acquire(top, "lock", wait=True)
        assert lock is not None
        held.callback(os.close, lock)
        yield Runtime(top, images)


def mounts() -> tuple[MountedImage, ...]:
    """The directories on which images are mounted, in the order in which they were.

    Raises:
        StoreError: there is no ``/proc``.
    """
    with files.translated("read", "/proc/self/mountinfo"):
        found = mountinfo.mounts()
    shared = shared_mounts(found)
    images = {mount.device: image for image, mount in shared.items()}
    listed = []
    for mount in found:
        image = mountinfo.image_of(mount) or (images.get(mount.device) if mount.root == "/" else None)
        way = way_of(shared.get(image or "", mount))
        if image is not None and way is not None and mount not in shared.values():
            upper = _UPPER.search(mount.options)
            listed.append(MountedImage(mount.point, image, _reference(image), way, upper[1] if upper else ""))
    return tuple(listed)


def shared_mounts(found: Sequence[Mount]) -> dict[str, Mount]:
    """The mounts that binds and overlays of images are made from, by the hex of the image's manifest."""
    above = f"{mountinfo.runtime_directory()}/images/"
    return {
        image: mount
        for mount in found
        if mount.point.startswith(above) and (image := mountinfo.image_of(mount)) is not None and way_of(mount)
    }


def umount(directory: str | os.PathLike[str]) -> None:
    """Take the image that is mounted on a directory away from it, and the shared mount when nobody else uses it.

    Raises:
        MountError: no image is mounted there.
        StoreBusyError: it is in use; ``pids`` are the processes that are seen to use it.
        StoreError: a symbolic link on the way is another user's; the disk refused.
    """
    path = path_walk.absolute(directory)
    if not os.path.isdir(mountinfo.runtime_directory()):
        raise _no_image(path, None)
    with files.translated("take away what is mounted on", str(path)), locked() as runtime:
        with Point.at(path, make=False) as point:
            mounted = point.mounted()
            if mounted is not None and _image(mounted) is not None:
                _unmount(point, mounted)
                runtime.sweep()
                return
        if runtime.sweep() and mounted is None:  # a process was killed between the two steps
            return
    raise _no_image(path, mounted)


def _no_image(path: Path, mounted: Mount | None) -> MountError:
    there = "no image is" if mounted is None else f"{mounted.source} ({mounted.kind}), which is no image, is"
    return MountError(f"{path}: {there} mounted there: fastoci mounts shows where there are some", path=str(path))


def _image(mount: Mount) -> str | None:
    """The image that a mount on a user's directory shows."""
    shared = shared_mounts(mountinfo.mounts())
    devices = {each.device: image for image, each in shared.items()} if mount.root == "/" else {}
    return mountinfo.image_of(mount) or devices.get(mount.device)


def _uses(image: str, device: str | None, found: Sequence[Mount]) -> bool:
    """Whether a mount that is seen here shows an image, other than its shared one."""
    own = f"{mountinfo.runtime_directory()}/images/{image}"
    return any(mount.point != own and (mount.device == device or mountinfo.image_of(mount) == image) for mount in found)


def _unmount(point: Point, mounted: Mount) -> None:
    """Take away what is mounted on a point.

    Raises:
        StoreBusyError: it is in use.
        OSError: the kernel refused otherwise.
    """
    try:
        point.unmount()
    except OSError as error:
        is_user = error.errno == errno.EPERM and mounted.kind.startswith("fuse.")
        if is_user and fuse.unmount(point):
            return
        if error.errno != errno.EBUSY and not is_user:
            raise
        pids = _users(point.path)
        who = f"process {', '.join(map(str, pids))}" if pids else "a process, or a mount below it"
        text = f"{point.path} is in use by {who}, and stays mounted"
        raise StoreBusyError(text, path=point.path, pids=pids) from error


def _users(path: str) -> tuple[int, ...]:
    """The processes that have something below a path open, or work there, as far as this one may see them."""

    def uses(pid: str) -> bool:
        links = [f"/proc/{pid}/{name}" for name in ("cwd", "root", "exe")]
        with suppress(OSError):
            links += [f"/proc/{pid}/fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]
        for link in links:
            with suppress(OSError):  # gone by now, or another user's
                target = os.readlink(link)
                if target == path or target.startswith(f"{path}/"):
                    return True
        return False

    return tuple(sorted(int(pid) for pid in os.listdir("/proc") if pid.isdecimal() and uses(pid)))


def _reference(image: str) -> str:
    path = f"{mountinfo.runtime_directory()}/images"
    ignored = suppress(OSError, StoreError, ValueError, AttributeError)
    with ignored, Directory(path_walk.open_directory(Path(path)), path) as images:
        return str(json.loads(files.read(images, f"{image}.json", _NAME_SIZE) or b"{}").get("reference", ""))
    return ""
