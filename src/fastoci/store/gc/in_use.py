"""What of the unpacked layers is in use: mounted where a process is, linked to by containerd, shown to podman.

Told by the digits in the names of files, wherever they are: a path may lead to a store in several ways, and what is
kept for another store's sake costs space, and no more. Synchronous, for threads. Spec: docs/store-format.md 9.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastoci import files, mountinfo
from fastoci.errors import StoreError
from fastoci.image import mediatype
from fastoci.image.digest import HEX_DIGITS
from fastoci.image.links import Link
from fastoci.store.layout import MARK, StoreLayout
from fastoci.store.opening import MARK_SIZE

_FIELD: Final = "containerd"  # of fastoci.json
_HEX: Final = "[0-9a-f]{64}(?:[0-9a-f]{64})?"
_NAMED: Final = re.compile(rf"/(?:rootfs/({_HEX})|({_HEX})(?:\.erofs|/tree|/root))\b")
_ALGORITHMS: Final = {digits: algorithm for algorithm, digits in HEX_DIGITS.items()}
_LINKS: Final = ("layer.erofs", "layer.erofs.dmverity")  # in the directory of a snapshot


def mounted_images(paths: StoreLayout) -> Iterator[Link]:
    """The manifests of images that are mounted, as far as the store has them.

    Raises:
        StoreError: the kernel does not tell what is mounted.
    """
    with files.translated("read", "/proc/self/mountinfo"):
        images = mountinfo.mounted_images(mountinfo.mounts_everywhere())
    for digits in sorted(images):
        algorithm = _ALGORITHMS[len(digits)]
        with suppress(OSError):
            size = paths.blobs(algorithm).stat(digits).st_size
            yield Link(mediatype.OCI_MANIFEST, f"{algorithm}:{digits}", size)


def names_in_use(paths: StoreLayout) -> set[str]:
    """The digits of the names of layer files, merged metadata and layer directories that are in use.

    Raises:
        StoreError: it cannot be found out; ``fastoci.json`` names containerd's directories in a wrong way.
    """
    found: set[str] = set()
    with files.translated("read", "/proc/self/mountinfo"):
        mounts = mountinfo.mounts_everywhere()
    found |= mountinfo.mounted_images(mounts)
    texts = [f"{mount.root} {mount.source} {mount.options}" for mount in mounts]
    for text in (*texts, *_loop_files(), *_linked(paths), *_shown(paths)):
        found.update(rootfs or other for rootfs, other in _NAMED.findall(text))
    return found


def _loop_files() -> Iterator[str]:
    """The files that are behind loop devices: devices of a mount are not listed with it."""
    with suppress(FileNotFoundError):
        for name in os.listdir("/sys/block"):
            if name.startswith("loop"):
                with suppress(OSError):  # no file is behind it
                    yield Path("/sys/block", name, "loop/backing_file").read_text(errors="surrogateescape")


def _linked(paths: StoreLayout) -> Iterator[str]:
    """Where the symbolic links of containerd's snapshots lead."""
    for root in _snapshotters(paths):
        yield from links(root)


def links(snapshotter: str) -> Iterator[str]:
    """Where the symbolic links in the snapshots of one snapshotter lead.

    Raises:
        StoreError: its directory cannot be read.
    """
    directory = f"{snapshotter}/snapshots"
    with files.translated("list", directory), suppress(FileNotFoundError):
        for snapshot in os.listdir(directory):
            for name in _LINKS:
                with suppress(FileNotFoundError, NotADirectoryError):
                    path = f"{directory}/{snapshot}/{name}"
                    if os.path.islink(path):
                        yield os.readlink(path)


def _shown(paths: StoreLayout) -> Iterator[str]:
    """Where the links lead by which layer directories are shown to podman and CRI-O."""
    from fastoci.store.layers.places import SHOWN, TREES  # gc has read these

    with files.translated("list", f"{paths.root}/{TREES}"), suppress(FileNotFoundError):
        trees = paths.directory(TREES)
        for name in trees.names():
            with suppress(OSError):  # nothing is shown there
                yield os.readlink(f"{name}/{SHOWN}", dir_fd=trees.fd)


def _snapshotters(paths: StoreLayout) -> list[str]:
    """The directories of containerd's erofs snapshotters that use this store as a cache."""
    path = paths.top.at(MARK)
    value: object = []
    with suppress(ValueError):  # whoever opened the store has checked that it is JSON
        value = json.loads(files.read(paths.top, MARK, MARK_SIZE) or b"{}").get(_FIELD, [])
    if not isinstance(value, list) or not all(isinstance(each, str) and each.startswith("/") for each in value):
        raise StoreError(f'{path}: "{_FIELD}" is not an array of absolute paths', path=path)
    return value
