"""Mount points and overlays, with real directories.

Covers: mount/overlay.py.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fastoci import _mount, mountinfo
from fastoci.errors import StoreError
from fastoci.mount import overlay
from fastoci.mount.overlay import Overlay
from fastoci.mount.point import Point
from support.mount_namespaces import mount_namespace, nothing_left
from support.scratch import scratch

HEX = "ab" * 32


@pytest.fixture
def place() -> Iterator[Path]:
    with mount_namespace(), nothing_left(), scratch("point") as directory:
        yield directory


def tmpfs() -> int:
    return _mount.create("tmpfs", [("size", "1M")])


@contextmanager
def directories(place: Path, *names: str) -> Iterator[list[int]]:
    with ExitStack() as held:
        fds = []
        for name in names:
            (place / name).mkdir(exist_ok=True)
            fds.append(os.open(place / name, os.O_PATH))
            held.callback(os.close, fds[-1])
        yield fds


def test_a_mount_comes_and_goes_at_its_point(place: Path) -> None:
    with Point.at(place / "a" / "b", make=True) as point:
        assert (point.path, point.mounted(), point.names()) == (str(place / "a" / "b"), None, [])
        point.attach(tmpfs())
        mounted = point.mounted()
        assert mounted is not None
        assert (mounted.kind, mounted.point) == ("tmpfs", str(place / "a" / "b"))
        (place / "a" / "b" / "file").touch()
        assert point.names() == ["file"]
        point.unmount()
        assert (point.mounted(), point.names()) == (None, [])


def test_a_mount_in_use_stays(place: Path) -> None:
    with Point.at(place / "a", make=True) as point:
        point.attach(tmpfs())
        with (place / "a" / "file").open("w"), pytest.raises(OSError) as caught:
            point.unmount()
        assert caught.value.errno == errno.EBUSY
        point.unmount()


def test_a_mount_goes_where_the_walk_ended_whoever_moves_the_directory_above(place: Path) -> None:
    with Point.at(place / "a" / "b", make=True) as point:
        (place / "a").rename(place / "moved")
        (place / "a" / "b").mkdir(parents=True)
        point.attach(tmpfs())
        assert [os.path.ismount(place / name / "b") for name in ("a", "moved")] == [False, True]
        point.unmount()


def test_a_point_that_is_a_symbolic_link_is_none(place: Path) -> None:
    (place / "real").mkdir()
    (place / "link").symlink_to("real")
    with Point.at(place / "link", make=True) as point, pytest.raises(OSError):
        point.attach(tmpfs())
    assert not os.path.ismount(place / "real")


def test_a_symbolic_link_of_another_user_on_the_way_is_not_followed(place: Path) -> None:
    (place / "real").mkdir()
    (place / "link").symlink_to("real")
    os.lchown(place / "link", 65534, 65534)
    with pytest.raises(StoreError, match="belongs to user 65534"):
        Point.at(place / "link" / "a", make=True)
    assert os.listdir(place / "real") == []


def test_what_is_mounted_below_a_bind_is_not_below_another(place: Path) -> None:
    with ExitStack() as held:
        shared, one, two = (held.enter_context(Point.at(place / name, make=True)) for name in ("s", "1", "2"))
        shared.attach(tmpfs())
        held.callback(shared.unmount)
        (place / "s" / "proc").mkdir()
        for point in (one, two):
            root = shared.open()
            point.bind(root)
            os.close(root)
            held.callback(point.unmount)
        with Point.at(place / "1" / "proc", make=False) as below:
            below.attach(tmpfs())
            assert [os.path.ismount(place / name / "proc") for name in ("s", "1", "2")] == [False, True, False]
            below.unmount()


@pytest.mark.parametrize("attach", [overlay.attach, overlay.attach_by_text], ids=["descriptors", "text"])
def test_an_overlay_shows_the_topmost_and_writes_to_its_upper_directory(place: Path, attach: object) -> None:
    assert callable(attach)
    with directories(place, "high", "low", "upper", "work") as (high, low, upper, work):
        for name in ("high", "low"):
            (place / name / "who").write_text(name)
        (place / "low" / "more").write_text("low")
        source = mountinfo.label(HEX, os.fstat(upper))
        with Point.at(place / "root", make=True) as point:
            attach(Overlay(lowers=(high, low), source=source, upper=upper, work=work), point)
            mounted = point.mounted()
            assert mounted is not None
            assert (mountinfo.image_of(mounted), mountinfo.is_upper(mounted, os.fstat(upper))) == (HEX, True)
            assert (place / "root" / "who").read_text() == "high"
            (place / "root" / "more").write_text("changed")
            (place / "root" / "who").unlink()
            point.unmount()
    assert (place / "upper" / "more").read_text() == "changed"
    assert (place / "upper" / "who").is_char_device()
    assert (place / "low" / "more").read_text() == "low"


@pytest.mark.parametrize("attach", [overlay.attach, overlay.attach_by_text], ids=["descriptors", "text"])
def test_an_overlay_without_an_upper_directory_is_only_read(place: Path, attach: object) -> None:
    assert callable(attach)
    with directories(place, "high", "low") as lowers, Point.at(place / "root", make=True) as point:
        attach(Overlay(lowers=lowers, source=mountinfo.label(HEX)), point)
        with pytest.raises(OSError) as caught:
            (place / "root" / "file").touch()
        assert caught.value.errno == errno.EROFS
        point.unmount()


def test_a_hundred_and_fifty_directories_fit_the_text_of_old_kernels_and_three_hundred_are_told_of(place: Path) -> None:
    names = [f"layer-{number}" for number in range(300)]
    with directories(place, *names) as lowers, Point.at(place / "root", make=True) as point:
        overlay.attach_by_text(Overlay(lowers=lowers[:150], source=mountinfo.label(HEX)), point)
        point.unmount()
        with pytest.raises(OSError) as caught:
            overlay.attach_by_text(Overlay(lowers=lowers, source=mountinfo.label(HEX)), point)
        assert caught.value.errno == errno.E2BIG
        overlay.attach(Overlay(lowers=lowers, source=mountinfo.label(HEX)), point)
        point.unmount()


def test_a_label_for_selinux_reaches_the_kernel(place: Path) -> None:
    with directories(place, "high", "low") as lowers, Point.at(place / "root", make=True) as point:
        made = Overlay(lowers=lowers, source=mountinfo.label(HEX), context="system_u:object_r:container_file_t:s0")
        if Path("/sys/fs/selinux/enforce").exists():
            overlay.attach(made, point)
            point.unmount()
        else:
            with pytest.raises(OSError, match="Unknown parameter 'context'"):
                overlay.attach(made, point)
