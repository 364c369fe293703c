"""EROFS by the kernel: which way it takes, what it shows, and what it says where it cannot.

Covers: mount/way.py, _mount.pyx.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fastoci import _mount
from fastoci.mount import erofs
from support import erofs_images
from support.disks import disk
from support.mount_namespaces import mount_namespace, nothing_left
from support.scratch import scratch


@pytest.fixture
def namespace() -> Iterator[None]:
    with mount_namespace(), nothing_left():
        yield


@pytest.fixture
def ext4(namespace: None) -> Iterator[Path]:
    """A file system that can back an EROFS."""
    with scratch("erofs") as place, disk(place, "ext4", 1 << 25) as directory:
        yield directory


@contextmanager
def opened(paths: Sequence[Path]) -> Iterator[list[int]]:
    with ExitStack() as held:
        fds = [os.open(path, os.O_RDONLY) for path in paths]
        for fd in fds:
            held.callback(os.close, fd)
        yield fds


def shown(files: erofs_images.Files) -> tuple[str, dict[str, bytes]]:
    """The way of a mount that is nowhere, and what is in it."""
    with opened([files.metadata, *files.layers]) as fds:
        mount, way = erofs.make(fds[0], fds[1:])
    try:
        root = Path(f"/proc/self/fd/{mount}")
        return way, {path.name: path.read_bytes() for path in root.iterdir()}
    finally:
        os.close(mount)


def expected(count: int) -> dict[str, bytes]:
    return {f"layer-{number:03}": erofs_images.content(number) for number in range(count)}


@pytest.mark.parametrize("block", [512, 4096], ids=["512", "4k"])
def test_files_of_a_disk_are_mounted_as_they_are(ext4: Path, block: int) -> None:
    assert shown(erofs_images.write(ext4, 3, block=block)) == ("file-backed", expected(3))


def test_files_in_memory_are_mounted_by_loop_devices_which_go_with_the_mount(namespace: None) -> None:
    with scratch("erofs-loop") as directory:
        assert shown(erofs_images.write(directory, 3)) == ("loop", expected(3))


def test_as_many_layers_as_an_image_may_have_are_one_mount(ext4: Path) -> None:
    assert shown(erofs_images.write(ext4, 127)) == ("file-backed", expected(127))


def test_devices_are_taken_in_the_order_of_their_slots(ext4: Path) -> None:
    files = erofs_images.write(ext4, 2)
    swapped = erofs_images.Files(files.metadata, files.layers[::-1])
    assert shown(swapped)[1]["layer-000"] == erofs_images.content(1)[: len(erofs_images.content(0))]


@pytest.mark.parametrize("spoil", ["magic", "devices"])
def test_what_is_no_such_image_is_refused_by_the_kernel(ext4: Path, spoil: str) -> None:
    files = erofs_images.write(ext4, 2)
    if spoil == "magic":
        data = files.metadata.read_bytes()
        files.metadata.unlink()
        files.metadata.write_bytes(data[:1024] + b"\0" + data[1025:])
    paths = [files.metadata, *files.layers[: 1 if spoil == "devices" else 2]]
    with opened(paths) as fds, pytest.raises(OSError) as caught:
        erofs.make(fds[0], fds[1:])
    assert caught.value.errno == errno.EINVAL
    assert erofs.reason(caught.value) == "EROFS: Invalid argument"


def test_the_probe_says_file_backed_where_files_of_a_disk_are_mounted(ext4: Path) -> None:
    before = os.listdir("/proc/self/fd")
    assert erofs.probe() == (shown(erofs_images.write(ext4, 1))[0], "")
    assert os.listdir("/proc/self/fd") == before


def test_an_option_that_a_file_system_does_not_know_is_named_with_what_the_kernel_says(namespace: None) -> None:
    with pytest.raises(OSError) as caught:
        _mount.create("tmpfs", [("size", "1M"), ("nonsense", "1")])
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, "nonsense")
    assert "Unknown parameter 'nonsense'" in str(caught.value.strerror)


def test_a_file_system_that_the_kernel_does_not_have_is_told_of(namespace: None) -> None:
    with pytest.raises(OSError) as caught:
        _mount.create("nosuchfs", [])
    assert (caught.value.errno, caught.value.filename) == (errno.ENODEV, "fsopen")
    assert erofs.reason(caught.value) == "the kernel has no EROFS"
