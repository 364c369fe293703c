"""Images on directories and away again: one shared mount, binds, overlays, what is in the way, what was cut short.

Covers: jobs/mounts.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fastoci import mountinfo
from fastoci.errors import MountError, RootfsOccupiedError, StoreBusyError, StoreError
from fastoci.jobs import mounting, mounts
from fastoci.jobs.mounting import LayerDirectories, LayerFiles, RefusedError, Request
from fastoci.jobs.mounts import MountedImage
from fastoci.mount.point import Point
from support import erofs_images
from support.disks import disk, mounted
from support.mount_namespaces import mount_namespace, nothing_left
from support.scratch import scratch

HEX = "ab" * 32
OTHER = "cd" * 32


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory on a disk, in a mount namespace of the test's own."""
    with mount_namespace(), nothing_left(), scratch("mounting") as below, disk(below, "ext4", 1 << 25) as directory:
        yield directory


@pytest.fixture
def memory() -> Iterator[Path]:
    with mount_namespace(), nothing_left(), scratch("mounting") as directory:
        yield directory


@contextmanager
def layer_files(place: Path, count: int = 3) -> Iterator[LayerFiles]:
    files = erofs_images.write(place, count)
    with ExitStack() as held:
        fds = [os.open(path, os.O_RDONLY) for path in (files.metadata, *files.layers)]
        for fd in fds:
            held.callback(os.close, fd)
        yield LayerFiles(fds[0], tuple(fds[1:]))


@contextmanager
def layer_directories(place: Path, count: int = 2) -> Iterator[LayerDirectories]:
    with ExitStack() as held:
        fds = []
        for number in reversed(range(count)):
            path = place / f"directory-{number}"
            path.mkdir()
            (path / f"layer-{number:03}").write_bytes(erofs_images.content(number))
            fds.append(os.open(path, os.O_PATH))
            held.callback(os.close, fds[-1])
        yield LayerDirectories(tuple(fds))


def request(directory: Path, *, upper: Path | None = None, image: str = HEX) -> Request:
    return Request(image=image, reference=f"app:{image[:2]}", directory=directory, upper=upper)


def mount(
    sources: LayerFiles | LayerDirectories, directory: Path, *, upper: Path | None = None, image: str = HEX
) -> MountedImage:
    done = mounting.mount(request(directory, upper=upper, image=image), sources)
    assert done is not None
    return done


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def shared() -> list[str]:
    return sorted(mountinfo.mounted_images())


def test_an_image_is_mounted_once_and_shown_on_each_directory(place: Path) -> None:
    with layer_files(place) as sources:
        one = mount(sources, place / "one")
        assert one == MountedImage(str(place / "one"), HEX, "app:ab", "file-backed", "")
        two = mounting.mount(request(place / "two"), None)  # it is mounted, so no files are needed
    assert mounts.mounts() == (one, two)
    assert os.stat(place / "one").st_dev == os.stat(place / "two").st_dev
    assert (place / "two" / "layer-002").read_bytes() == erofs_images.content(2)
    mounts.umount(place / "one")
    assert (names(place / "one"), shared()) == ([], [HEX])
    mounts.umount(place / "two")
    assert (mounts.mounts(), shared(), names(Path("/run/fastoci/images"))) == ((), [], [])


def test_what_is_mounted_where_it_is_asked_for_is_left_as_it_is(place: Path) -> None:
    with layer_files(place) as sources:
        first = mount(sources, place / "one")
        assert mount(sources, place / "one") == first
        written = mount(sources, place / "two", upper=place / "upper")
        assert mount(sources, place / "two", upper=place / "upper") == written
    assert mounts.mounts() == (first, written)
    mounts.umount(place / "two")
    mounts.umount(place / "one")


def test_an_image_that_is_not_mounted_wants_its_files(place: Path) -> None:
    assert mounting.mount(request(place / "one"), None) is None
    assert shared() == []


def test_changes_go_into_the_upper_directory_and_stay_there(place: Path) -> None:
    with layer_files(place) as sources:
        done = mount(sources, place / "root", upper=place / "upper")
        assert (done.way, done.upper) == ("file-backed", str(place / "upper"))
        (place / "root" / "new").write_text("new")
        (place / "root" / "layer-000").unlink()
        (place / "root" / "layer-001").write_text("changed")
        mounts.umount(place / "root")
        assert (names(place / "upper"), shared()) == (["layer-000", "layer-001", "new"], [])
        mount(sources, place / "again", upper=place / "upper")
        assert names(place / "again") == ["layer-001", "layer-002", "new"]
    mounts.umount(place / "again")


def test_two_mounts_do_not_write_to_one_upper_directory(place: Path) -> None:
    with layer_files(place) as sources:
        mount(sources, place / "one", upper=place / "upper")
        with pytest.raises(StoreBusyError, match=f"is written to by the mount on {place}/one"):
            mount(sources, place / "two", upper=place / "upper")
    mounts.umount(place / "one")


def test_images_do_not_get_in_each_others_way(place: Path) -> None:
    with layer_files(place) as sources:
        mount(sources, place / "one")
        mount(sources, place / "two", image=OTHER)
        with pytest.raises(RootfsOccupiedError, match="is mounted there"):
            mount(sources, place / "one", image=OTHER)
    mounts.umount(place / "one")
    assert shared() == [OTHER]
    mounts.umount(place / "two")


def test_layers_in_memory_are_mounted_by_loop_devices(memory: Path) -> None:
    with layer_files(memory) as sources:
        assert mount(sources, memory / "root").way == "loop"
    assert [each.way for each in mounts.mounts()] == ["loop"]
    mounts.umount(memory / "root")


@pytest.mark.parametrize("count", [1, 3], ids=["one", "three"])
def test_layer_directories_are_mounted_as_an_overlay(memory: Path, count: int) -> None:
    with layer_directories(memory, count) as sources:
        assert mount(sources, memory / "root").way == "overlay"
        assert names(memory / "root") == [f"layer-{number:03}" for number in range(count)]
        mount(sources, memory / "written", upper=memory / "upper")
        (memory / "written" / "new").touch()
    assert [(each.way, each.directory) for each in mounts.mounts()] == [
        ("overlay", str(memory / "root")),
        ("overlay", str(memory / "written")),
    ]
    mounts.umount(memory / "root")
    mounts.umount(memory / "written")
    assert names(memory / "upper") == ["new"]


def test_a_directory_with_something_in_it_is_refused(place: Path) -> None:
    (place / "root").mkdir()
    (place / "root" / "file").touch()
    with layer_files(place) as sources, pytest.raises(RootfsOccupiedError, match="not an empty directory"):
        mount(sources, place / "root")
    assert shared() == []


def test_a_mount_in_the_way_is_refused_and_named(place: Path) -> None:
    (place / "root").mkdir()
    with mounted(place / "root", "-t", "tmpfs", "somebody"), layer_files(place) as sources:
        with pytest.raises(RootfsOccupiedError, match=r"somebody \(tmpfs\) is mounted there"):
            mount(sources, place / "root")
        with pytest.raises(MountError, match=r"somebody \(tmpfs\), which is no image, is mounted there"):
            mounts.umount(place / "root")


def test_a_file_or_a_link_of_another_user_in_the_way_is_refused(place: Path) -> None:
    (place / "file").touch()
    (place / "real").mkdir()
    (place / "link").symlink_to("real")
    os.lchown(place / "link", 65534, 65534)
    with layer_files(place) as sources:
        for path in (place / "file", place / "link", place / "link" / "root"):
            with pytest.raises(StoreError):
                mount(sources, path)
    assert (shared(), names(place / "real")) == ([], [])


def test_a_mount_of_others_in_the_place_of_the_shared_one_is_not_believed(place: Path) -> None:
    with layer_files(place) as sources, mounts.locked() as runtime, runtime.shared(HEX):
        pass
    with mounted(Path(f"/run/fastoci/images/{HEX}"), "-t", "tmpfs", "somebody"), layer_files(place / ".") as sources:
        with pytest.raises(MountError, match=r"somebody \(tmpfs\)"):
            mount(sources, place / "root")
        assert mounts.mounts() == ()


def test_a_runtime_directory_that_others_can_write_to_is_refused(place: Path) -> None:
    Path("/run/fastoci").mkdir()
    Path("/run/fastoci").chmod(0o777)
    with layer_files(place) as sources, pytest.raises(StoreError, match="can be written by everyone"):
        mount(sources, place / "root")


def test_nobody_else_comes_near_the_programs_of_a_shared_mount(place: Path) -> None:
    with layer_files(place) as sources:
        mount(sources, place / "root")
    assert stat.S_IMODE(os.stat("/run/fastoci/images").st_mode) == 0o700
    mounts.umount(place / "root")


def test_an_upper_directory_in_the_mount_is_refused(place: Path) -> None:
    with layer_files(place) as sources:
        for directory, upper in (("root", "root/upper"), ("upper/root", "upper"), ("same", "same")):
            with pytest.raises(MountError, match="one in the other"):
                mount(sources, place / directory, upper=place / upper)
    assert shared() == []


def test_an_image_in_use_stays_and_says_who_uses_it(place: Path) -> None:
    with layer_files(place) as sources:
        mount(sources, place / "root")
    with (place / "root" / "layer-000").open() as file:
        with pytest.raises(StoreBusyError, match=f"in use by process {os.getpid()}") as caught:
            mounts.umount(place / "root")
        assert (caught.value.pids, file.read()) == ((os.getpid(),), erofs_images.content(0).decode())
    mounts.umount(place / "root")


def test_what_no_image_is_mounted_on_is_not_taken_away(place: Path) -> None:
    (place / "plain").mkdir()
    with pytest.raises(MountError, match="no image is mounted there"):
        mounts.umount(place / "plain")
    assert not Path("/run/fastoci").exists()
    with mounts.locked():
        pass
    with pytest.raises(MountError, match="no image is mounted there"):
        mounts.umount(place / "plain")
    with pytest.raises(StoreError, match="No such file"):
        mounts.umount(place / "absent")


def test_binds_and_mounts_by_others_count_as_users(place: Path) -> None:
    (place / "bind").mkdir()
    with layer_files(place) as sources:
        mount(sources, place / "root")
    with mounted(place / "bind", "--bind", str(place / "root")):
        mounts.umount(place / "root")
        assert shared() == [HEX]
        assert [each.directory for each in mounts.mounts()] == [str(place / "bind")]
    with pytest.raises(MountError, match="ext4"):
        mounts.umount(place)
    assert shared() == []  # swept by that


def test_a_process_killed_between_the_steps_is_finished_by_the_same_command(place: Path) -> None:
    with layer_files(place) as sources:
        with mounts.locked() as runtime:  # the shared mount is made, and the bind is not
            mounting._open_shared(runtime, request(place / "root"), sources)  # what it returned is closed by the kill
        (held,) = [int(fd) for fd in os.listdir("/proc/self/fd") if _leads_to_shared(int(fd))]
        os.close(held)
        assert shared() == [HEX]
        assert mount(sources, place / "root").way == "file-backed"
    with Point.at(place / "root", make=False) as point:
        point.unmount()  # and umount was killed before it took the shared mount away
    assert shared() == [HEX]
    mounts.umount(place / "root")
    assert shared() == []
    with pytest.raises(MountError):
        mounts.umount(place / "root")


def _leads_to_shared(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").endswith(f"images/{HEX}")
    except OSError:
        return False


def _killed_before(event: int, work: Callable[[], object]) -> bool:
    """Do something in a process that is killed before its n-th audit event; whether it was."""
    child = os.fork()
    if child == 0:
        left = event

        def hook(name: str, arguments: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("upper", [None, "upper"], ids=["read", "written"])
def test_wherever_mount_and_umount_are_killed_the_same_command_ends_right(place: Path, upper: str | None) -> None:
    """At each seventh of the files and directories that they open, look at or make."""
    above = None if upper is None else place / upper
    with layer_files(place) as sources:
        event = 1
        while _killed_before(event, lambda: mount(sources, place / "root", upper=above)):
            event += 7
            assert mount(sources, place / "root", upper=above).way == "file-backed"
            mounts.umount(place / "root")
            assert (shared(), names(Path("/run/fastoci/images"))) == ([], [])
        assert event > 30
        event = 1
        while _killed_before(event, lambda: mounts.umount(place / "root")):
            event += 7
            if shared():
                mounts.umount(place / "root")
            assert (mounts.mounts(), shared()) == ((), [])
            mount(sources, place / "root", upper=above)
        assert event > 30
    assert shared() == []


_MOUNT = f"""
import os, sys
from pathlib import Path
from fastoci.jobs import mounting
metadata, *layers, target = sys.argv[1:]
fds = [os.open(path, os.O_RDONLY) for path in (metadata, *layers)]
sources = mounting.LayerFiles(fds[0], tuple(fds[1:]))
mounting.mount(mounting.Request(image="{HEX}", reference="app", directory=Path(target)), sources)
"""


def test_processes_that_begin_at_once_mount_it_once(place: Path) -> None:
    files = erofs_images.write(place, 3)
    command: list[str | Path] = [sys.executable, "-c", _MOUNT, files.metadata, *files.layers]
    begun = [subprocess.Popen([*command, place / f"root-{number}"]) for number in range(4)]
    assert [process.wait() for process in begun] == [0] * 4
    assert [each.kind for each in mountinfo.mounts()].count("erofs") == 5  # the shared one and four binds
    assert len({os.stat(place / f"root-{number}").st_dev for number in range(4)}) == 1
    for number in range(4):
        mounts.umount(place / f"root-{number}")
    assert shared() == []


def test_threads_mount_and_unmount_beside_each_other(place: Path) -> None:
    def work(number: int) -> None:
        with layer_files(place / f"sources-{number}") as sources:
            for _ in range(5):
                mount(sources, place / f"root-{number}")
                mounts.umount(place / f"root-{number}")

    for number in range(3):
        (place / f"sources-{number}").mkdir()
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(3))) == [None] * 3
    assert shared() == []


def test_all_is_counted_on_one_file_system_by_du(place: Path) -> None:
    with layer_files(place) as sources:
        mount(sources, place / "root", upper=place / "upper")
    (place / "root" / "new").write_bytes(bytes(1 << 20))
    done = subprocess.run(["du", "-xsb", place / "root"], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[0]) >= (1 << 20) + sum(len(erofs_images.content(number)) for number in range(3))
    mounts.umount(place / "root")


def test_files_that_the_kernel_refuses_are_told_of_and_leave_nothing(place: Path) -> None:
    with layer_files(place) as sources:
        wrong = LayerFiles(sources.metadata, sources.devices[:1])
        if shutil.which("erofsfuse") is None:
            with pytest.raises(RefusedError, match="EROFS: Invalid argument; erofsfuse is not installed"):
                mount(wrong, place / "root")
    with mounts.locked() as runtime:
        runtime.sweep()
        assert names(Path(runtime.images.path)) == []
