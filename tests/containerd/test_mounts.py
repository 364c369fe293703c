"""What mounts of containerd's snapshotters say of where a layer goes; the lists are those that 1.6 to 2.4 send."""

from __future__ import annotations

import dataclasses

import pytest

from fastoci.containerd.mounts import OnBlocks, Target, parse
from fastoci.errors import FastociError, FormatError, UnsupportedError

S = "/var/lib/containerd/snapshots"


@dataclasses.dataclass(frozen=True)
class Mount:
    """As containerd sends it."""

    type: str
    source: str = ""
    options: tuple[str, ...] = ("rw",)
    target: str = ""


BIND = Mount("bind", f"{S}/1/fs", ("rw", "rbind"))
ALONE = Mount("overlay", "overlay", ("rw", f"upperdir={S}/2/fs"))
LOWERS = Mount("overlay", "overlay", ("index=off", f"workdir={S}/3/work", f"upperdir={S}/3/fs", "lowerdir=/b/fs:/a/fs"))
USER = Mount("overlay", "overlay", (*LOWERS.options, "userxattr"))
LOWER_FILE = Mount("erofs", f"{S}/1/layer.erofs", ("ro", "loop"))
ON_EROFS = Mount(
    "format/mkdir/overlay", "overlay", (f"workdir={S}/4/work", f"upperdir={S}/4/fs", "lowerdir={{ mount 0 }}")
)
BLOCK = Mount("mkfs/ext4", f"{S}/5/rwlayer.img", ("X-containerd.mkfs.fs=ext4", "rw", "loop"))
IN_BLOCK = Mount("format/mkdir/bind", "{{ mount 0 }}/upper", ("X-containerd.mkdir.path={{ mount 0 }}/upper:0755", "rw"))
BTRFS = Mount("btrfs", "/dev/sdb", ("subvolid=257", "noatime"))
IN_FILE = Mount("ext4", f"{S}/6", ("loop", "rw"))


@pytest.mark.parametrize(
    ("mounts", "target"),
    [
        ([BIND], Target("merged", f"{S}/1/fs")),
        ([ALONE], Target("upper", f"{S}/2/fs")),
        ([LOWERS], Target("upper", f"{S}/3/fs", ("/b/fs", "/a/fs"), f"{S}/3/work")),
        ([USER], Target("upper", f"{S}/3/fs", ("/b/fs", "/a/fs"), f"{S}/3/work", True)),
        ([LOWER_FILE, ON_EROFS], Target("erofs", f"{S}/4")),
        ([BLOCK, IN_BLOCK], Target("erofs", f"{S}/5")),
        ([BLOCK, LOWER_FILE, ON_EROFS], Target("erofs", f"{S}/5")),
        ([BTRFS], Target("block", "/dev/sdb", mounted=OnBlocks("btrfs", ("subvolid=257",), is_file=False))),
        ([IN_FILE], Target("block", f"{S}/6", mounted=OnBlocks("ext4", (), is_file=True))),
    ],
    ids=["bound", "alone", "overlay", "userxattr", "erofs", "block", "block-on-erofs", "btrfs", "blockfile"],
)
def test_the_mounts_of_a_new_snapshot_say_where_its_layer_goes(mounts: list[Mount], target: Target) -> None:
    assert parse(mounts) == target


def test_what_is_bound_without_its_parent_gets_the_form_of_overlayfs() -> None:
    assert parse([BIND], alone=True) == Target("upper", f"{S}/1/fs")


def test_the_directory_of_a_snapshot_is_where_its_marker_would_be() -> None:
    assert parse([BIND]).snapshot == f"{S}/1"
    assert parse([LOWER_FILE, ON_EROFS]).snapshot == f"{S}/4"


@pytest.mark.parametrize(
    ("mounts", "error"),
    [
        ([], FormatError),
        ([Mount("bind", "snapshots/1/fs")], FormatError),
        ([Mount("ext4", "snapshots/1")], FormatError),
        ([Mount("ext4", f"{S}/1", ("ro", "loop"))], UnsupportedError),
        ([Mount("bind", f"{S}/../../../etc")], FormatError),
        ([Mount("bind", "")], FormatError),
        ([Mount("bind", f"{S}/1/f\0s")], FormatError),
        ([Mount("bind", "{{ mount 0 }}/fs")], FormatError),
        ([Mount("overlay", "overlay", ("rw", "workdir=/w"))], FormatError),
        ([Mount("overlay", "overlay", ("upperdir=/u/fs", "workdir=/w", "lowerdir=/a:../b"))], FormatError),
        ([Mount("overlay", "overlay", ("upperdir=/u/fs", "workdir=w", "lowerdir=/a"))], FormatError),
        ([Mount("overlay", "overlay", ("upperdir=/u/fs", "lowerdir=/a"))], FormatError),
        ([Mount("bind", "/s/fs", ("ro", "rbind"))], UnsupportedError),
        ([Mount("bind", "/s/fs", ("rw", "rbind", "uidmap=0:1000:65536"))], UnsupportedError),
        ([Mount("bind", "/s/fs", ("rw", "rbind"), "etc")], UnsupportedError),
        ([Mount("overlay", "overlay", ("ro", "upperdir=/u/fs"))], UnsupportedError),
        ([Mount("overlay", "overlay", ("upperdir=/u/fs", "nobody=knows"))], UnsupportedError),
        ([Mount("zfs", "pool/1")], UnsupportedError),
        ([BIND, BIND], UnsupportedError),
        ([LOWER_FILE, Mount("format/bind", "{{ mount 0 }}", ("ro",))], UnsupportedError),
        ([Mount("bind", "/etc"), ON_EROFS], UnsupportedError),
    ],
)
def test_mounts_that_say_no_place_are_refused(mounts: list[Mount], error: type[FastociError]) -> None:
    with pytest.raises(error):
        parse(mounts)
