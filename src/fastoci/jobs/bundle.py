"""A runtime bundle: an image's tree, made or mounted, and the document by which a runtime starts a container in it.

The tree comes first, the document last: a directory that has it is finished. So the same command goes on wherever it
was ended, and what is finished stays, also when its user has changed the document since.
Spec: runtime-spec v1.0.2 bundle.md; image-spec v1.1 conversion.md.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

from fastoci import files, path_walk
from fastoci.directory import Directory
from fastoci.errors import RootfsOccupiedError, UnsupportedError
from fastoci.image import container_config
from fastoci.image.container_config import ContainerConfig
from fastoci.image.container_user import find_user
from fastoci.image.runtime_config import ROOTFS, Volume, runtime_config
from fastoci.threads import Threads
from fastoci.unpack import staging, user_namespace
from fastoci.unpack.staging import PRIVATE, Staging
from fastoci.unpack.target import report_name
from fastoci.unpack.tree import Tree

_DOCUMENT: Final = "config.json"
_CHANGES: Final = ("upper", ".upper.work")  # of what is mounted
_USERS_MAX: Final = 4 << 20  # bytes of passwd and group, each
_NEW: Final = 0o755  # of a directory that is missing on the way


async def make_bundle(directory: Path, config: bytes, make: Callable[[Path], Awaitable[object]]) -> tuple[str, ...]:
    """Have a bundle of an image in ``directory``; labels and volumes of the image that were left out.

    Args:
        directory: absolute; new, empty, or with a bundle of this image, of which the document stays as it is.
        config: the image's.
        make: makes the tree, or mounts it, unless it is there, finished.
    Raises:
        RootfsOccupiedError: something else is there.
        FormatError, UnsupportedError: no container can be started from the image.
        StoreError: the disk refused.
    """
    parsed = container_config.parse(config)
    with closing(Threads()) as threads, await Threads.acquire(partial(_open, directory), Directory.close) as target:
        is_finished = await threads.run(partial(_is_finished, target))
        await make(directory / ROOTFS)
        if not is_finished:
            await threads.run(partial(_write, target, parsed))
    return () if is_finished else parsed.left_out


def _open(path: Path) -> Directory:
    """Hold the directory; a new one is this user's alone: set-id programs of an image are for its containers."""
    with files.translated("make a bundle in", str(path)):
        parent, name = path_walk.open_parent(path, make=_NEW, follow=True)
        try:
            files.make_directory_at(parent, name, PRIVATE)
            return Directory(files.open_directory_at(parent, name), str(path))
        finally:
            files.close(parent)


def _is_finished(target: Directory) -> bool:
    """Whether the document is there.

    Raises:
        RootfsOccupiedError: what is there is neither a bundle nor the beginning of one.
    """
    with files.translated("list", target.path):
        names = set(target.names()) - {files.LOST_AND_FOUND} - set(staging.names(target.fd, ROOTFS))
    if {_DOCUMENT, ROOTFS} <= names:
        return True
    if not names <= {ROOTFS, report_name(ROOTFS), *_CHANGES}:
        text = f"{target.path}: is not empty, and holds no bundle: remove it or choose another"
        raise RootfsOccupiedError(text, path=target.path)
    return False


def _write(target: Directory, config: ContainerConfig) -> None:
    """Make the document for the tree that is there."""
    with files.translated("make a bundle in", target.path):
        with target.enter(ROOTFS) as root:
            document = _document(Tree(root.fd, root.path), config)
        own = Staging.make(target.fd, ROOTFS)
        try:
            files.replace_at(own.fd, _DOCUMENT, document, temporary="new")
            os.rename(_DOCUMENT, _DOCUMENT, src_dir_fd=own.fd, dst_dir_fd=target.fd)
        finally:
            own.remove()
        target.sync()


def _document(tree: Tree, config: ContainerConfig) -> bytes:
    resolved = tree.resolve(config.working_dir)
    if resolved == "/proc" or resolved.startswith("/proc/"):  # of the runtime itself, when it enters (CVE-2024-21626)
        raise UnsupportedError(f"the image wants to be started in {config.working_dir}, which leads into /proc")
    user = find_user(config.user, tree.read("/etc/passwd", _USERS_MAX), tree.read("/etc/group", _USERS_MAX))
    volumes = [_volume(tree, path) for path in config.volumes]
    return runtime_config(config, user, user_namespace.for_containers(), volumes)


def _volume(tree: Tree, path: str) -> Volume:
    """A volume with the mode and owner that the image has there."""
    info = tree.stat(path)
    return Volume(path) if info is None else Volume(path, info.st_mode & 0o7777, info.st_uid, info.st_gid)
