"""What is mounted where this process sees it, and which images that keeps in use.

``parse`` is pure. Of other mount namespaces is seen what their processes see, as far as these are: docs/mounting.md.
Spec: proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from typing import Final

import msgspec

# What is mounted over an image's mount, or by FUSE, has a source that names the image: any text may be one.
_LABEL: Final = re.compile(r"fastoci:([0-9a-f]{64}(?:[0-9a-f]{64})?)(?::([0-9]+:[0-9]+))?")
_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")  # blank, tab, line feed, backslash and # are written so
_NOTE: Final = 1 << 13  # bytes: a label and a path
_HEX: Final = re.compile(r"[0-9a-f]{64}(?:[0-9a-f]{64})?")


class Mount(msgspec.Struct, frozen=True):
    """One line: a file system, or a part of it, at one place.

    Attributes:
        device: of the file system, major and minor number; binds of it have the same.
        root: what of the file system is mounted, a path in it.
        point: where.
        kind: ``erofs``, ``overlay``, ``fuse.erofsfuse``.
        source: a device, or what was given as one.
        options: of the file system.
    """

    id: int
    parent: int
    device: str
    root: str
    point: str
    kind: str
    source: str
    options: str


def parse(data: bytes) -> tuple[Mount, ...]:
    """The mounts that a ``mountinfo`` lists, in its order: of two at one place the later is on top.

    Raises:
        ValueError: it is not one.
    """
    return tuple(map(_line, data.splitlines()))


def mounts() -> tuple[Mount, ...]:
    """The mounts that this process sees.

    Raises:
        OSError: there is no ``/proc``.
    """
    with open("/proc/self/mountinfo", "rb") as file:
        return parse(file.read())


def mounts_everywhere() -> tuple[Mount, ...]:
    """The mounts that this process sees, and those of other mount namespaces, of one process in each.

    Of a process that this one may not look at, or that ended meanwhile, nothing is seen.

    Raises:
        OSError: there is no ``/proc``.
    """
    found = [mounts()]
    seen = {os.readlink("/proc/self/ns/mnt")}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError):
                namespace = os.readlink(f"/proc/{name}/ns/mnt")
                if namespace not in seen:
                    with open(f"/proc/{name}/mountinfo", "rb") as file:
                        found.append(parse(file.read()))
                    seen.add(namespace)
    return tuple(chain.from_iterable(found))


def mount_id(fd: int) -> int:
    """The number of the mount that an open file or directory is on: ``Mount.id``.

    Raises:
        OSError: there is no ``/proc``.
    """
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        lines = dict(line.split(b":", 1) for line in file.read().splitlines() if b":" in line)
    return int(lines[b"mnt_id"])


def runtime_directory() -> str:
    """Where this user's mounts are while the machine runs: ``/run/fastoci``, or below ``XDG_RUNTIME_DIR``."""
    if os.geteuid() == 0:
        return "/run/fastoci"
    above = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return os.path.join(os.path.realpath(above), "fastoci")


def is_image(name: str) -> bool:
    """Whether a name is the hex of a manifest."""
    return _HEX.fullmatch(name) is not None


def label(image: str, upper: os.stat_result | None = None) -> str:
    """The source of a mount of an image.

    Args:
        image: the hex of its manifest.
        upper: of the directory that is written to.
    """
    return f"fastoci:{image}" + ("" if upper is None else f":{_number(upper)}")


def image_of(mount: Mount) -> str | None:
    """The hex of the manifest of the image that is mounted; None for all other mounts, and for binds of it."""
    directory, _, name = mount.point.rpartition("/")
    if directory == f"{runtime_directory()}/images" and is_image(name):
        return name
    found = _LABEL.fullmatch(_label(mount))
    return found[1] if found else None


def is_upper(mount: Mount, directory: os.stat_result) -> bool:
    """Whether a mount writes to a directory. The kernel lets several do so, and then none of them is right."""
    found = _LABEL.fullmatch(_label(mount))
    return found is not None and found[2] == _number(directory)


def mounted_images(found: Iterable[Mount] | None = None) -> frozenset[str]:
    """The hex of the manifest of each image that is mounted: its merged metadata and layers are in use.

    Args:
        found: by default what is mounted now.
    Raises:
        OSError: there is no ``/proc``.
    """
    return frozenset(filter(None, map(image_of, mounts() if found is None else found)))


def _number(directory: os.stat_result) -> str:
    return f"{directory.st_dev}:{directory.st_ino}"


def _label(mount: Mount) -> str:
    """What ``label`` gave the mount: of this user's or root's, since by FUSE others mount under any name.

    fuse-overlayfs takes no source: beside it is a note in the runtime directory, of its device number and its point.
    """
    if mount.kind == "overlay":
        return mount.source
    if not mount.kind.startswith("fuse") or f"user_id={os.geteuid()}" not in mount.options.split(","):
        return ""
    if mount.kind != "fuse.fuse-overlayfs":
        return mount.source
    try:
        with open(f"{runtime_directory()}/fuse/{mount.device}", "rb") as file:
            source, _, point = os.fsdecode(file.read(_NOTE)).partition("\n")
    except OSError:
        return ""
    return source if point == mount.point else ""


def _line(line: bytes) -> Mount:
    fields = line.split(b" ")
    end = fields.index(b"-", 6)  # behind a number of optional fields that may be zero
    number, parent, device, root, point = fields[:5]
    kind, source, *options = fields[end + 1 :]
    texts = (_text(each) for each in (device, root, point, kind, source, b" ".join(options)))
    return Mount(int(number), int(parent), *texts)


def _text(field: bytes) -> str:
    if b"\\" in field:
        field = _ESCAPED.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field)
    return os.fsdecode(field)
