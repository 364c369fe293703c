"""Images of a store, mounted: each way shows what ``unpack`` makes, and what is missing here is said.

Covers: jobs/mount_check.py, cli/commands/mount.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import fastoci
from fastoci.errors import RootfsOccupiedError, StoreError
from fastoci.events import Event, Warned
from fastoci.jobs import mount_check, mounts
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, whiteout
from fastoci.testing.registry import Registry, serve
from fastoci.testing.trees import listing
from support import erofs_images
from support.disks import disk, mounted
from support.mount_namespaces import mount_namespace, nothing_left
from support.scratch import scratch

IMAGE = Image.build(
    [
        Layer.build(
            [
                Entry("bin", "directory", mode=0o755),
                Entry("bin/tool", data=b"tool" * 5000, mode=0o4755),
                Entry("bin/old", data=b"old"),
                Entry("etc", "directory", mode=0o700),
                Entry("etc/conf", data=b"lower", uid=1000, gid=1000),
            ],
            "gzip",
        ),
        Layer.build(
            [whiteout("bin/old"), Entry("etc/conf", data=b"upper"), Entry("bin/link", "symlink", link="tool")], "zstd"
        ),
        Layer.build(
            [
                Entry("bin/hard", "hardlink", link="bin/tool"),
                Entry("srv", "directory"),
                Entry("srv/file", data=b"x" * 600),
            ],
            "none",
        ),
    ]
)


@pytest.fixture
def memory() -> Iterator[Path]:
    with mount_namespace(), nothing_left(), scratch("mount") as directory:
        yield directory


@pytest.fixture
def place(memory: Path) -> Iterator[Path]:
    with disk(memory, "ext4", 1 << 26) as directory:
        yield directory


class Pulled:
    """An engine with the image in its store, and what it was told."""

    def __init__(self, engine: fastoci.Engine, image: fastoci.Image, events: list[Event]) -> None:
        self.engine = engine
        self.image = image
        self._events = events

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self._events if isinstance(event, Warned)]


@asynccontextmanager
async def pulled(store: Path) -> AsyncIterator[Pulled]:
    events: list[Event] = []
    with serve(Registry()) as registry:
        registry.add_image("app", "1", IMAGE)
        async with fastoci.Engine(store, observer=events.append) as engine:
            yield Pulled(engine, await engine.pull(f"{registry.address}/app:1"), events)


async def test_a_mount_of_layer_files_is_the_tree_that_unpack_makes(place: Path) -> None:
    async with pulled(place / "store") as at:
        done = await at.image.mount(place / "root")
        await at.image.unpack(place / "tree")
        assert (done.way, done.reference, done.manifest) == (
            "file-backed",
            str(at.image.reference),
            at.image.manifest_descriptor.digest.hex,
        )
        assert listing(place / "root") == listing(place / "tree")
        assert at.warnings == []
        mounts.umount(place / "root")
        assert (await at.image.mount(place / "root")).way == "file-backed"  # the layers are there by now
        mounts.umount(place / "root")


async def test_layers_in_memory_are_mounted_by_loop_devices(memory: Path) -> None:
    async with pulled(memory / "store") as at:
        assert (await at.image.mount(memory / "root")).way == "loop"
        await at.image.unpack(memory / "tree")
        assert listing(memory / "root") == listing(memory / "tree")
        mounts.umount(memory / "root")


async def test_without_loop_devices_layers_in_memory_are_mounted_as_directories(memory: Path) -> None:
    async with pulled(memory / "store") as at:
        with mounted(Path("/dev/loop-control"), "--bind", "/dev/null"):
            done = await at.image.mount(memory / "root")
            await at.image.unpack(memory / "tree")
            assert done.way == "overlay"
            assert listing(memory / "root") == listing(memory / "tree")
            assert [f"{memory}/root is layer directories: a loop device: " in text for text in at.warnings] == [True]
            written = await at.image.mount(memory / "written", upper=memory / "upper")
            (memory / "written" / "bin" / "tool").unlink()
            assert (written.upper, os.listdir(memory / "upper" / "bin")) == (str(memory / "upper"), ["tool"])
            mounts.umount(memory / "written")
            mounts.umount(memory / "root")


async def test_a_directory_in_the_store_is_refused_before_anything_is_made(place: Path) -> None:
    async with pulled(place / "store") as at:
        for directory, upper in (("store/root", "upper"), ("root", "store/upper")):
            with pytest.raises(StoreError, match="is in the store"):
                await at.image.mount(place / directory, upper=place / upper)
        with pytest.raises(StoreError, match="where shared mounts are kept"):
            await at.image.mount("/run/fastoci/images/root")
        (place / "full").mkdir()
        (place / "full" / "file").touch()
        with pytest.raises(RootfsOccupiedError):
            await at.image.mount(place / "full")
    assert not (place / "store" / "layers").exists()


@pytest.mark.parametrize("which", ["merged", "layer"])
async def test_a_file_that_another_user_has_is_not_mounted(place: Path, which: str) -> None:
    async with pulled(place / "store") as at:
        await at.image.make_layers(fastoci.Layers("erofs"))
        found = sorted((place / "store" / ("images" if which == "merged" else "layers")).rglob("*.erofs"))
        os.chown(found[0], 65534, 65534)
        with pytest.raises(StoreError, match="belongs to user 65534: it is not mounted"):
            await at.image.mount(place / "root")
    assert mounts.mounts() == ()


async def test_a_file_in_the_place_of_merged_metadata_is_not_mounted(place: Path) -> None:
    """What the record does not say is made anew by the store."""
    async with pulled(place / "store") as at:
        await at.image.make_layers(fastoci.Layers("erofs"))
        (merged,) = (place / "store" / "images").glob("*.erofs")
        other = erofs_images.write(place, 1).metadata
        os.replace(other, merged)
        assert (await at.image.mount(place / "root")).way == "file-backed"
        assert "layer-000" not in os.listdir(place / "root")
        mounts.umount(place / "root")


async def test_gc_leaves_what_is_mounted(place: Path) -> None:
    async with pulled(place / "store") as at:
        await at.image.mount(place / "root")
        await at.engine.remove(str(at.image.reference))
        await at.engine.gc()
        assert list((place / "store" / "images").glob("*.erofs"))
        mounts.umount(place / "root")


_ENTER = "import sys; from fastoci.__main__ import main; sys.argv = ['fastoci', *sys.argv[1:]]; main()"


def run(*arguments: str | Path, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-c", _ENTER, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def test_the_commands_mount_and_unmount(place: Path) -> None:
    async with pulled(place / "store") as at:
        name = str(at.image.reference)
    done = run("mount", name, place / "root", "--store", place / "store", "--progress", "none")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (place / "root" / "etc" / "conf").read_text() == "upper"
    done = run("mount", name, place / "changed", "--writable", place / "up", "--store", place / "store")
    assert done.returncode == 0, done.stderr
    assert [each.upper for each in mounts.mounts()] == ["", str(place / "up")]
    for directory in ("root", "changed"):
        mounts.umount(place / directory)


async def test_without_the_right_to_mount_root_gets_a_tree_and_is_told(place: Path) -> None:
    drop = shutil.which("setpriv")
    if drop is None:
        pytest.skip("needs setpriv")
    async with pulled(place / "store") as at:
        await at.image.unpack(place / "tree")
        name = str(at.image.reference)
    before = (drop, "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    done = run("mount", name, place / "root", "--store", place / "store", before=before)
    assert done.returncode == 0, done.stderr
    assert f"{place}/root is a tree: mounting EROFS needs CAP_SYS_ADMIN" in done.stderr
    async with fastoci.Engine(place / "store") as engine:  # which may mount, and leaves it there
        assert (await (await engine.image(name)).mount(place / "root")).way == "tree"
    assert listing(place / "root") == listing(place / "tree")
    command = ("mount", name, place / "w", "--writable", place / "up", "--store", place / "store")
    done = run(*command, before=before)
    assert done.returncode == 8
    assert "nothing can be mounted here" in done.stderr
    assert "`fastoci unpack` makes a tree" in done.stderr


def test_a_mount_that_shows_other_bytes_is_found_out(memory: Path) -> None:
    files = erofs_images.write(memory, 12)
    (memory / "root").mkdir()
    for number in range(12):
        (memory / "root" / f"layer-{number:03}").write_bytes(erofs_images.content(number))
    fds = [os.open(path, os.O_RDONLY) for path in (files.metadata, *files.layers)]
    try:
        assert mount_check.shows_layers(str(memory / "root"), fds[0], fds[1:])
        (memory / "root" / "layer-007").write_bytes(bytes(len(erofs_images.content(7))))
        assert not mount_check.shows_layers(str(memory / "root"), fds[0], fds[1:])
    finally:
        for fd in fds:
            os.close(fd)
