"""Mount an image on a directory: the shared mount when it is not there yet, then a bind of it, or an overlay over it.

What is wrong with the directories is said before anything is mounted. Synchronous, for threads.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from fastoci import files, mountinfo, path_walk
from fastoci.errors import MountError, RootfsOccupiedError, StoreBusyError, StoreError
from fastoci.jobs.mount_check import shows_layers
from fastoci.jobs.mounts import MountedImage, Runtime, locked
from fastoci.mount import erofs, fuse, overlay
from fastoci.mount.overlay import Overlay
from fastoci.mount.point import Point
from fastoci.mount.way import way_of
from fastoci.mountinfo import Mount

_DAMAGE: Final = (errno.EUCLEAN, errno.EBADMSG, errno.EIO)
_WORK: Final = ".work"


class RefusedError(Exception):
    """These sources cannot be mounted here, and others may be: the message says why."""


class LayerFiles(msgspec.Struct, frozen=True):
    """Merged metadata and its layer files, open, in the order of their slots."""

    metadata: int
    devices: tuple[int, ...]


class LayerDirectories(msgspec.Struct, frozen=True):
    """The layer directories of an image, open, the topmost first; ``user_xattrs`` is as of ``Overlay``."""

    directories: tuple[int, ...]
    user_xattrs: bool = False


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is mounted where.

    Attributes:
        image: the hex of the manifest's digest.
        directory, upper: absolute; ``upper`` is the directory that changes are written to.
        context: the SELinux label of all files.
    """

    image: str
    reference: str
    directory: Path
    upper: Path | None = None
    context: str = ""


class _Upper(msgspec.Struct, frozen=True):
    """The directory that is written to, held, and the one that the kernel works in."""

    path: Path
    fd: int
    work: int

    @property
    def info(self) -> os.stat_result:
        return os.fstat(self.fd)


def mount(request: Request, sources: LayerFiles | LayerDirectories | None) -> MountedImage | None:
    """Mount an image, unless it is mounted there already; None when ``sources`` are needed and not given.

    Raises:
        RootfsOccupiedError: the directory is not empty, or something else is mounted there.
        StoreBusyError: another mount writes to ``upper``.
        RefusedError: these sources cannot be mounted here.
        MountError: ``directory`` and ``upper`` are not such that an image can be mounted.
        StoreError: they are damaged; a symbolic link on the way is another user's; the disk refused.
    """
    path = str(request.directory)
    if path_walk.is_within(request.directory, Path(mountinfo.runtime_directory())):
        raise MountError(f"{path} is where shared mounts are kept: choose another place", path=path)
    with files.translated("mount an image on", path), ExitStack() as held:
        runtime = held.enter_context(locked())
        upper = held.enter_context(_open_upper(request))
        with Point.at(request.directory, make=True) as point:
            if not _is_there(runtime, request, point, upper):
                _demand_empty(point)
                try:
                    if not _attach(runtime, request, point, sources, upper):
                        return None
                except BaseException:
                    runtime.sweep()
                    raise
            return _describe(runtime, request, point, upper)


def _attach(
    runtime: Runtime,
    request: Request,
    point: Point,
    sources: LayerFiles | LayerDirectories | None,
    upper: _Upper | None,
) -> bool:
    """Mount the image on the point; whether that was possible without ``sources``, when there are none."""
    if os.geteuid():
        if sources is None:
            return False
        _attach_by_programs(runtime, request, point, sources, upper)
        runtime.note(request.image, request.reference)
        return True
    shared = _open_shared(runtime, request, sources)
    if shared is None:
        return False
    try:
        if upper is None and not request.context:
            point.bind(shared)
        else:
            _attach_overlay(runtime, request, point, shared, upper)
    except OSError as error:
        raise MountError(f"{point.path}: {_explain(error)}", path=point.path) from error
    finally:
        os.close(shared)
    return True


def _attach_overlay(runtime: Runtime, request: Request, point: Point, shared: int, upper: _Upper | None) -> None:
    """Mount what is the image's own below what this directory wants: changes, or a label."""
    if upper is not None:
        source = mountinfo.label(request.image, upper.info)
        made = _overlay((shared,), source, upper, context=request.context)
        overlay.attach(made, point)
    else:
        _attach_read_only(runtime, request, point, (shared,), context=request.context)


def _attach_read_only(
    runtime: Runtime,
    request: Request,
    point: Point,
    lowers: tuple[int, ...],
    *,
    context: str = "",
    user_xattrs: bool = False,
) -> None:
    empty = runtime.empty()
    try:
        made = _overlay((*lowers, empty), mountinfo.label(request.image), None, context=context)
        overlay.attach(msgspec.structs.replace(made, user_xattrs=user_xattrs), point)
    finally:
        os.close(empty)


def _open_shared(runtime: Runtime, request: Request, sources: LayerFiles | LayerDirectories | None) -> int | None:
    """The root of the image's shared mount, which is made when there are sources; None when it is not there."""
    with runtime.shared(request.image) as point:
        mounted = point.mounted()
        if mounted is not None and way_of(mounted) is None:
            raise MountError(f"{point.path}: {mounted.source} ({mounted.kind}) is mounted there", path=point.path)
        if mounted is not None and _is_dead(point):
            point.unmount()
            mounted = None
        if mounted is None:
            if sources is None:
                return None
            _make_shared(runtime, request, point, sources)
        runtime.note(request.image, request.reference)
        return point.open()


def _make_shared(runtime: Runtime, request: Request, point: Point, sources: LayerFiles | LayerDirectories) -> None:
    """Mount the image once for all who use it."""
    try:
        if isinstance(sources, LayerDirectories):
            return _attach_read_only(runtime, request, point, sources.directories, user_xattrs=sources.user_xattrs)
        os.posix_fadvise(sources.metadata, 0, 0, os.POSIX_FADV_WILLNEED)
        return point.attach(erofs.make(sources.metadata, sources.devices)[0])
    except OSError as error:
        if error.errno in _DAMAGE:
            text = f"{request.reference}: the kernel says that its layer files are damaged: {error.strerror}"
            raise StoreError(text, path=point.path) from error
        why = erofs.reason(error) if isinstance(sources, LayerFiles) else f"an overlay: {_explain(error)}"
    if isinstance(sources, LayerFiles):
        if not (more := fuse.missing(fuse.EROFS)):
            source = mountinfo.label(request.image)
            return _attach_by_erofsfuse(sources, source, point)
        why = f"{why}; {more}"
    raise RefusedError(why)


def _attach_by_erofsfuse(sources: LayerFiles, source: str, point: Point) -> None:
    try:
        fuse.attach_erofs(sources.metadata, sources.devices, source=source, point=point)
    except MountError as error:
        raise RefusedError(error.message) from error
    if not shows_layers(point.proc_path, sources.metadata, sources.devices):
        _unmount(point)
        raise RefusedError("this erofsfuse reads images of several devices wrongly")


def _attach_by_programs(
    runtime: Runtime, request: Request, point: Point, sources: LayerFiles | LayerDirectories, upper: _Upper | None
) -> None:
    """Mount the image on the point as a user may who may not mount: there are no binds, so each mount is one's own.

    Raises:
        RefusedError: a program is missing, or failed.
    """
    source = mountinfo.label(request.image, None if upper is None else upper.info)
    needed = [fuse.EROFS] if isinstance(sources, LayerFiles) else []
    needed += [fuse.OVERLAY] if upper is not None or not needed else []
    if missing := [why for program in needed if (why := fuse.missing(program))]:
        raise RefusedError(f"only root may mount, and {'; '.join(missing)}")
    if isinstance(sources, LayerDirectories):
        _attach_by_fuse_overlayfs(runtime, point, _overlay(sources.directories, source, upper))
    elif upper is None:
        _attach_by_erofsfuse(sources, source, point)
    else:
        with runtime.shared(request.image) as shared:
            if shared.mounted() is None:
                _attach_by_erofsfuse(sources, mountinfo.label(request.image), shared)
            lower = shared.open()
        try:
            _attach_by_fuse_overlayfs(runtime, point, _overlay((lower,), source, upper))
        finally:
            os.close(lower)


def _attach_by_fuse_overlayfs(runtime: Runtime, point: Point, made: Overlay) -> None:
    try:
        fuse.attach_overlay(made, point)
    except MountError as error:
        raise RefusedError(error.message) from error
    runtime.note_point(point, made.source)


def _unmount(point: Point) -> None:
    if os.geteuid():
        fuse.unmount(point)
    else:
        point.unmount()


def _overlay(lowers: tuple[int, ...], source: str, upper: _Upper | None, *, context: str = "") -> Overlay:
    if upper is None:
        return Overlay(lowers=lowers, source=source, context=context)
    return Overlay(
        lowers=lowers,
        source=source,
        upper=upper.fd,
        work=upper.work,
        context=context,
        user_xattrs=_needs_user_xattrs(upper.work),
    )


def _needs_user_xattrs(directory: int) -> bool:
    """Whether this process may not set ``trusted.*`` on a directory, as root of a user namespace may not."""
    path = f"/proc/self/fd/{directory}"
    with suppress(OSError):  # of a file system that has neither, the kernel tells
        try:
            os.setxattr(path, "trusted.fastoci", b"")
        except PermissionError:
            return True
        os.removexattr(path, "trusted.fastoci")
    return False


@contextmanager
def _open_upper(request: Request) -> Iterator[_Upper | None]:
    """Hold the directory that is written to, made when it is absent, and the one beside it that overlayfs works in."""
    path = request.upper
    if path is None:
        yield None
        return
    if path_walk.is_within(path, request.directory) or path_walk.is_within(request.directory, path):
        raise MountError(f"{path} and {request.directory} are one in the other: choose another", path=str(path))
    with Point.at(path, make=True) as point:
        if point.mounted() is not None:
            raise MountError(f"{path} is a mount point: choose a directory in it", path=str(path))
        upper = point.open()
        try:
            with Point.at(path.with_name(files.fitted(f".{path.name}", len(_WORK)) + _WORK), make=True) as beside:
                work = beside.open()
            try:
                if os.fstat(work).st_uid not in (0, os.geteuid()):
                    raise MountError(f"{beside.path} belongs to another user", path=beside.path)
                yield _Upper(path, upper, work)
            finally:
                os.close(work)
        finally:
            os.close(upper)


def _is_there(runtime: Runtime, request: Request, point: Point, upper: _Upper | None) -> bool:
    """Whether the image is mounted there already, as it is asked for.

    Raises:
        RootfsOccupiedError: something else is.
        StoreBusyError: ``upper`` is in use.
    """
    mounted = point.mounted()
    if mounted is None:
        if upper is not None and (user := _user_of(upper)) is not None:
            text = f"{upper.path} is written to by the mount on {user.point}: two would spoil each other's changes"
            raise StoreBusyError(text, path=str(upper.path))
        return False
    with runtime.shared(request.image) as shared:
        beneath = shared.mounted()
    is_bind = beneath is not None and mounted.device == beneath.device and mounted.root == beneath.root
    if upper is None and (is_bind or mounted.source == mountinfo.label(request.image)):
        return True
    if upper is not None and mountinfo.image_of(mounted) == request.image and mountinfo.is_upper(mounted, upper.info):
        return True
    text = f"{point.path}: {mounted.source} ({mounted.kind}) is mounted there: take it away or choose another"
    raise RootfsOccupiedError(text, path=point.path)


def _user_of(upper: _Upper) -> Mount | None:
    return next((each for each in mountinfo.mounts() if mountinfo.is_upper(each, upper.info)), None)


def _demand_empty(point: Point) -> None:
    if set(point.names()) - {files.LOST_AND_FOUND}:
        text = f"{point.path}: exists and is not an empty directory: remove it or choose another"
        raise RootfsOccupiedError(text, path=point.path)


def _describe(runtime: Runtime, request: Request, point: Point, upper: _Upper | None) -> MountedImage:
    mounted = point.mounted()
    with runtime.shared(request.image) as shared:
        beneath = shared.mounted() or mounted
    way = None if beneath is None else way_of(beneath)
    if way is None:
        raise MountError(f"{point.path}: somebody took the mount away", path=point.path)
    return MountedImage(point.path, request.image, request.reference, way, "" if upper is None else str(upper.path))


def _is_dead(point: Point) -> bool:
    """Whether the program that answers for a mount has ended."""
    try:
        os.stat(point.proc_path)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def _explain(error: OSError) -> str:
    """What the kernel said, for people."""
    if error.errno == errno.EPERM:
        return "mounting needs CAP_SYS_ADMIN"
    if error.errno == errno.ENOSYS:
        return f"the kernel is older than 5.12, and has no {error.filename}"
    return str(error.strerror)
