"""Mounts of a user who may not mount: by fuse-overlayfs, and by erofsfuse where that is right."""

from __future__ import annotations

import os
import shutil
import stat
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fastoci import mountinfo
from fastoci.errors import MountError
from fastoci.jobs import mounting, mounts
from fastoci.jobs.mounting import LayerDirectories, LayerFiles, RefusedError, Request
from fastoci.mount import fuse
from support import erofs_images
from support.disks import mount
from support.mount_namespaces import mount_namespace
from support.scratch import scratch

HEX = "ab" * 32
NOBODY = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of another user, who may open ``/dev/fuse``, in a mount namespace of the test's own."""
    with mount_namespace(), scratch("fuse") as directory:
        if not Path("/dev/fuse").exists():
            pytest.skip("the kernel has no FUSE")
        mount("-t", "tmpfs", "tmpfs", "/mnt")
        os.mknod("/mnt/fuse", stat.S_IFCHR | 0o666, os.stat("/dev/fuse").st_rdev)
        os.chmod("/mnt/fuse", 0o666)
        mount("--bind", "/mnt/fuse", "/dev/fuse")
        for path in (directory, directory / "runtime"):
            path.mkdir(exist_ok=True)
            os.chown(path, NOBODY, NOBODY)
        yield directory


def as_nobody(place: Path, work: Callable[[], None]) -> None:
    """Do something as a user without rights; what fails there fails here."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.environ.update(XDG_RUNTIME_DIR=str(place / "runtime"), HOME=str(place))
            work()
        except BaseException:
            os.write(theirs, traceback.format_exc().encode()[-4000:])
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert said == ""


def layer_directories(place: Path) -> LayerDirectories:
    """Two of them, which end with the process."""
    fds = []
    for number in (1, 0):
        path = place / f"layer-{number}"
        path.mkdir()
        (path / f"file-{number}").write_text(str(number))
        fds.append(os.open(path, os.O_PATH))
    return LayerDirectories(tuple(fds))


def request(directory: Path, upper: Path | None = None) -> Request:
    return Request(image=HEX, reference="app:1", directory=directory, upper=upper)


def test_fuse_overlayfs_mounts_layer_directories_which_are_listed_and_taken_away(
    place: Path, peer: Callable[[str], str]
) -> None:
    peer("fuse-overlayfs")
    peer("fusermount3")

    def work() -> None:
        sources = layer_directories(place)
        read = mounting.mount(request(place / "root"), sources)
        written = mounting.mount(request(place / "written", place / "upper"), sources)
        assert read is not None
        assert written is not None
        assert (read.way, written.way, written.upper) == ("fuse-overlayfs", "fuse-overlayfs", str(place / "upper"))
        assert sorted(os.listdir(place / "root")) == ["file-0", "file-1"]
        (place / "written" / "new").write_text("new")
        (place / "written" / "file-0").unlink()
        assert sorted(os.listdir(place / "written")) == ["file-1", "new"]
        assert [each.directory for each in mounts.mounts()] == [str(place / "root"), str(place / "written")]
        assert [each.reference for each in mounts.mounts()] == ["app:1", "app:1"]
        assert mountinfo.mounted_images() == {HEX}
        assert mounting.mount(request(place / "written", place / "upper"), sources) == written
        mounts.umount(place / "written")
        mounts.umount(place / "root")
        assert (mounts.mounts(), mountinfo.mounted_images()) == ((), frozenset())

    as_nobody(place, work)
    assert [each.kind for each in mountinfo.mounts() if each.kind.startswith("fuse")] == []


def test_without_a_program_it_is_said_which_is_missing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place))

    def work() -> None:
        with pytest.raises(RefusedError, match="only root may mount, and fuse-overlayfs is not installed"):
            mounting.mount(request(place / "root"), layer_directories(place))
        with pytest.raises(RefusedError, match="erofsfuse is not installed; fuse-overlayfs is not installed"):
            mounting.mount(request(place / "root", place / "upper"), LayerFiles(0, ()))

    as_nobody(place, work)


def test_a_program_that_fails_is_quoted(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = place / "erofsfuse"
    program.write_text("#!/bin/sh\necho one >&2\necho 'no such image' >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    with mounts.locked() as runtime, runtime.shared(HEX) as point:
        with pytest.raises(MountError, match="erofsfuse: no such image"):
            fuse.attach_erofs(0, [], source=mountinfo.label(HEX), point=point)
        assert point.mounted() is None


def test_erofsfuse_shows_the_layers_or_is_taken_away(place: Path) -> None:
    if shutil.which("erofsfuse") is None:
        pytest.skip("erofsfuse is not installed")
    files = erofs_images.write(place, 3, block=4096)

    def work() -> None:
        with ExitStack() as held:
            fds = [os.open(path, os.O_RDONLY) for path in (files.metadata, *files.layers)]
            for fd in fds:
                held.callback(os.close, fd)
            try:
                done = mounting.mount(request(place / "root"), LayerFiles(fds[0], tuple(fds[1:])))
            except RefusedError as error:
                assert "wrongly" in str(error)  # up to erofs-utils 1.9.3
                assert mounts.mounts() == ()
                return
        assert done is not None
        assert done.way == "fuse"
        assert (place / "root" / "layer-002").read_bytes() == erofs_images.content(2)
        mounts.umount(place / "root")

    as_nobody(place, work)
