"""What a snapshotter's mounts say of where a layer goes, and in which form. Pure: nothing is opened.

Spec: containerd core/mount, plugins/snapshots/{overlay,native,erofs}; Linux Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from typing import Final, Literal, Protocol

import msgspec

from fastoci.errors import FormatError, UnsupportedError

Kind = Literal["upper", "merged", "erofs", "block"]

# What a mount of ours must not change, and what says nothing of how files are written.
_WRITABLE: Final = frozenset({"rw", "bind", "rbind"})
_TUNING: Final = frozenset({"index", "metacopy", "nfs_export", "redirect_dir", "uuid", "verity", "volatile", "xino"})
# File systems on devices of their own, or in files; and what says of a mount how it is used, not what is on the disk.
_ON_BLOCKS: Final = frozenset({"ext4", "xfs", "btrfs"})
_USE: Final = frozenset({"rw", "loop", "nodev", "nosuid", "noexec", "noatime", "nodiratime", "relatime", "strictatime"})
_TEMPLATED: Final = ("format/", "mkfs/", "mkdir/")


class MountEntry(Protocol):
    """One mount, as containerd names its parts."""

    @property
    def type(self) -> str:
        """A file system, or ``bind``."""

    @property
    def source(self) -> str:
        """What is mounted."""

    @property
    def target(self) -> str:
        """Where below the mount point; empty: there."""

    @property
    def options(self) -> Sequence[str]:
        """As ``mount -o`` takes them."""


class OnBlocks(msgspec.Struct, frozen=True):
    """A file system on a device, or in a file: its kind, and the options that it takes."""

    kind: str
    options: tuple[str, ...]
    is_file: bool


class Target(msgspec.Struct, frozen=True):
    """Where one layer goes. All paths are absolute.

    Attributes:
        kind: ``upper``: into ``directory``, in the form of overlayfs; ``merged``: onto ``directory``, which has what
            lower layers hold; ``erofs``: as a file in ``directory``; ``block``: onto a file system that is mounted for
            it, which has what lower layers hold.
        directory: of ``erofs`` that of the snapshot, of ``block`` the device or file, else the one that the layer's
            files go into.
        lowers: of ``upper``: the directories of lower layers, the topmost first; None: they are not known.
        work: of ``upper`` with ``lowers``: an empty directory for a mount.
        user_xattrs: overlayfs is told by ``user.overlay.*``.
        mounted: of ``block``: how.
    """

    kind: Kind
    directory: str
    lowers: tuple[str, ...] | None = None
    work: str = ""
    user_xattrs: bool = False
    mounted: OnBlocks | None = None

    @property
    def snapshot(self) -> str:
        """The directory of the snapshot, which has the marker of an EROFS snapshotter if it is one's."""
        return self.directory if self.kind == "erofs" else posixpath.dirname(self.directory)


def parse(mounts: Sequence[MountEntry], *, alone: bool = False) -> Target:
    """Where the layer goes that is to be unpacked into a new snapshot.

    Args:
        alone: the snapshot was prepared without its parent, so what is bound gets the form of overlayfs.
    Raises:
        FormatError: a path is relative, has ``..``, or is missing.
        UnsupportedError: a mount or an option that is not known here, or that cannot be written to.
    """
    if not mounts:
        raise FormatError("a snapshot without mounts")
    first, last = mounts[0], mounts[-1]
    if first.type.startswith("mkfs/"):
        return Target("erofs", posixpath.dirname(_path(first.source)))
    if len(mounts) > 1 or last.type.startswith(_TEMPLATED):
        return _among_erofs(mounts)
    if last.target:
        raise UnsupportedError(f"a mount at {last.target!r} in a snapshot is not known here")
    if last.type == "bind":
        _check_bind(last.options)
        return Target("upper" if alone else "merged", _path(last.source))
    if last.type == "overlay":
        return _overlay(last.options)
    if last.type in _ON_BLOCKS:
        return _on_blocks(last)
    raise UnsupportedError(f"a snapshot that is mounted as {last.type!r} is not known here")


def shown(mounts: Sequence[MountEntry]) -> tuple[str, ...]:
    """The directories that show a snapshot, the topmost first; none for no mounts, which are an empty tree.

    Raises:
        FormatError: a path is relative, has ``..``, or is missing.
        UnsupportedError: a mount or an option that is not known here.
    """
    if not mounts:
        return ()
    first = mounts[0]
    if len(mounts) == 1 and not first.target and first.type == "bind":
        _check_bind([option for option in first.options if option != "ro"])
        return (_path(first.source),)
    if len(mounts) > 1 or first.target or first.type != "overlay":
        raise UnsupportedError(f"a snapshot of {len(mounts)} mounts, the first one {first.type!r}, is not known here")
    values = _values([option for option in first.options if option != "ro"])
    unknown = set(values) - _TUNING - {"rw", "lowerdir", "upperdir", "workdir"}
    if unknown:
        raise UnsupportedError(f"an overlay with the option {min(unknown)!r} is not known here")
    upper = [values["upperdir"]] if "upperdir" in values else []
    return tuple(map(_path, [*upper, *values.get("lowerdir", "").split(":")]))


def _among_erofs(mounts: Sequence[MountEntry]) -> Target:
    """Several mounts are an EROFS snapshotter's: the last puts the files of lower layers below the snapshot's own."""
    last = mounts[-1]
    upper = _values(last.options).get("upperdir", "")
    if last.type.rpartition("/")[2] != "overlay" or any(mount.type != "erofs" for mount in mounts[:-1]) or not upper:
        raise UnsupportedError(f"a snapshot of {len(mounts)} mounts, the last one {last.type!r}, is not known here")
    return Target("erofs", posixpath.dirname(_path(upper)))


def _on_blocks(mount: MountEntry) -> Target:
    if "ro" in mount.options:
        raise UnsupportedError(f"a snapshot of {mount.type} that cannot be written to is not known here")
    options = tuple(option for option in mount.options if option not in _USE)
    return Target("block", _path(mount.source), mounted=OnBlocks(mount.type, options, "loop" in mount.options))


def _check_bind(options: Sequence[str]) -> None:
    unknown = set(options) - _WRITABLE
    if unknown:
        raise UnsupportedError(f"a bound snapshot with the option {min(unknown)!r} is not known here")


def _overlay(options: Sequence[str]) -> Target:
    values = _values(options)
    unknown = set(values) - _TUNING - {"rw", "lowerdir", "upperdir", "workdir", "userxattr"}
    if unknown:
        raise UnsupportedError(f"an overlay with the option {min(unknown)!r} is not known here")
    lowers, work = values.get("lowerdir"), values.get("workdir", "")
    if lowers is not None and not work:
        raise FormatError("an overlay with lowerdir and without workdir")
    return Target(
        "upper",
        _path(values.get("upperdir", "")),
        None if lowers is None else tuple(_path(lower) for lower in lowers.split(":")),
        _path(work) if work else "",
        "userxattr" in values,
    )


def _values(options: Sequence[str]) -> dict[str, str]:
    return {name: value for name, _, value in (option.partition("=") for option in options)}


def _path(path: str) -> str:
    """Demand an absolute path that says by itself where it leads, but for links."""
    if not path.startswith("/") or "\0" in path or ".." in path.split("/") or "{{" in path:
        raise FormatError(f"{path!r} in the mounts of a snapshot is not an absolute path")
    return posixpath.normpath(path)
