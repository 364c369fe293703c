"""The list of mounts as the kernel writes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastoci.mountinfo import (
    Mount,
    image_of,
    is_upper,
    label,
    mount_id,
    mounted_images,
    mounts,
    parse,
    runtime_directory,
)
from support.disks import mounted

HEX = "c0" * 32


def line(*, point: str = "/mnt", kind: str = "ext4", source: str = "/dev/vda", optional: str = "shared:1 ") -> bytes:
    return f"36 35 98:0 / {point} rw,noatime {optional}- {kind} {source} rw,errors=continue\n".encode()


def test_a_line_is_read_whatever_optional_fields_it_has() -> None:
    expected = Mount(36, 35, "98:0", "/", "/mnt", "ext4", "/dev/vda", "rw,errors=continue")
    for optional in ("", "shared:1 ", "shared:1 master:2 propagate_from:3 unbindable "):
        assert parse(line(optional=optional)) == (expected,)


def test_names_with_blanks_and_odd_bytes_are_as_they_are_on_disk() -> None:
    (found,) = parse(line(point=r"/a\040b\011c\012d\134e\043").replace(b"/a", b"/a\xff"))
    assert os.fsencode(found.point) == b"/a\xff b\tc\nd\\e#"


def test_a_source_may_be_empty() -> None:
    (found,) = parse(line(source="", kind="tmpfs"))
    assert (found.kind, found.source, found.options) == ("tmpfs", "", "rw,errors=continue")


@pytest.mark.parametrize("data", [b"\n", b"36 35 98:0 / /mnt rw shared:1 ext4 /dev/vda rw\n", b"a b c d e f - g h i\n"])
def test_what_is_no_list_of_mounts_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse(data)


def test_the_kernels_own_list_is_read() -> None:
    assert [each for each in mounts() if each.point == "/proc" and each.kind == "proc"]


def test_an_image_is_in_use_where_it_is_mounted_and_below_an_overlay() -> None:
    images = f"{runtime_directory()}/images"
    found = parse(
        line(point=f"{images}/{HEX}", kind="erofs", source="/proc/self/fd/7")
        + line(point="/srv/app", kind="overlay", source="fastoci:" + "d1" * 32)
        + line(point="/srv/w", kind="overlay", source="fastoci:" + "d2" * 32 + ":66306:12")
        + line(point=f"{images}/{HEX}/proc")
        + line(point=f"{images}/lock")
        + line(point=f"/srv/{HEX}", kind="overlay", source="fastoci:x")
        + line(point="/srv/e", source="fastoci:" + "d3" * 32)
    )
    assert [image_of(each) for each in found] == [HEX, "d1" * 32, "d2" * 32, None, None, None, None]
    assert mounted_images(found) == {HEX, "d1" * 32, "d2" * 32}


@pytest.mark.parametrize(("user", "own"), [(os.geteuid(), True), (os.geteuid() + 1, False)], ids=["own", "another"])
def test_what_another_user_mounts_by_fuse_counts_for_nothing_whatever_its_name(user: int, own: bool) -> None:
    text = line(kind="fuse.erofsfuse", source=label(HEX)).replace(b"errors=continue", f"user_id={user}".encode())
    assert mounted_images(parse(text)) == ({HEX} if own else frozenset())


def test_the_directory_that_an_overlay_writes_to_is_told_by_its_number(tmp_path: Path) -> None:
    upper = os.stat(tmp_path)
    (mounted,) = parse(line(kind="overlay", source=label(HEX, upper)))
    assert (image_of(mounted), is_upper(mounted, upper), is_upper(mounted, os.stat("/"))) == (HEX, True, False)


def test_an_overlay_that_is_mounted_is_found_by_its_source(tmp_path: Path) -> None:
    for name in ("a", "b", "root"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/a:{tmp_path}/b"
    with mounted(tmp_path / "root", "-t", "overlay", "-o", options, f"fastoci:{HEX}"):
        assert HEX in mounted_images()
    assert HEX not in mounted_images()


def test_an_open_directory_tells_its_mount() -> None:
    fd = os.open("/proc/self", os.O_PATH)
    try:
        (found,) = [each for each in mounts() if each.id == mount_id(fd)]
        assert (found.point, found.kind) == ("/proc", "proc")
    finally:
        os.close(fd)
