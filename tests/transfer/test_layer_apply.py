"""One layer into a snapshot is what the same layer is in a tree, in whatever form the snapshot is.

Covers: transfer/layer_reading.py, unpack/snapshot.py.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastoci._core import Buffer
from fastoci.containerd.mounts import Target
from fastoci.errors import FormatError, StoreError, StoreFullError, UnpackError, UnsafePathError
from fastoci.image.digest import Digest
from fastoci.limits import Limits
from fastoci.mount import overlay
from fastoci.testing.layers import Entry, directory, hardlink, opaque, symlink, tar, whiteout
from fastoci.testing.trees import differences, listing
from support import disks
from support.erofs_listing import erofs_listing
from support.layer_stacks import LAYERS, modelled
from support.overlays import mounted, needs_mounts
from support.scratch import opened, scratch
from support.snapshots import applier, snapshot, stack, stacked

STACKS = int(os.environ.get("FASTOCI_STACKS", "400")) // 10

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners of files and mounts need root")


def archive(*entries: Entry) -> bytes:
    return b"".join(tar(entries))


BASE = [
    directory("root", mode=0o700, mtime_ns=10**18),
    directory("tmp", mode=0o1777, mtime_ns=2 * 10**18),
    directory("usr"),
    directory("usr/lib"),
    symlink("lib", "usr/lib"),
    Entry("usr/lib/old", data=b"old"),
]


@given(layers=st.lists(LAYERS, min_size=1, max_size=3), user_xattrs=st.booleans())
@example(layers=[BASE, [Entry("root/.profile"), Entry("tmp/x"), Entry("lib/new")]], user_xattrs=False)
@example(layers=[BASE, [hardlink("again", "usr/lib/old")], [whiteout("lib/old")]], user_xattrs=True)
@example(layers=[BASE, [opaque("."), Entry("a")]], user_xattrs=False)
@example(layers=[BASE, [hardlink("lib/new", "lib")]], user_xattrs=False)  # alone, "lib" is a directory
@settings(max_examples=STACKS, deadline=None)
def test_snapshots_on_top_of_one_another_show_the_tree_of_the_model(
    layers: list[list[Entry]], user_xattrs: bool
) -> None:
    needs_mounts()
    taken, _, expected = modelled(layers, keep=False)
    with scratch("snapshots") as work:
        made = stacked(work, [archive(*layer) for layer in taken], user_xattrs=user_xattrs)
        with mounted(made, work / "at", user_xattrs=user_xattrs) as at:
            assert differences(expected, listing(at)) == []


@given(layers=st.lists(LAYERS, min_size=1, max_size=3))
@settings(max_examples=STACKS, deadline=None)
def test_layers_onto_one_merged_view_give_the_tree_of_the_model(layers: list[list[Entry]]) -> None:
    taken, _, expected = modelled(layers, keep=False)
    with scratch("merged") as work:
        target = snapshot(work, 0, [])

        async def apply() -> None:
            async with applier() as each:
                for layer in taken:
                    await each.put(archive(*layer), target)

        asyncio.run(apply())
        assert differences(expected, listing(Path(target.directory))) == []


async def test_a_layer_is_read_twice_only_when_lower_layers_say_what_it_means(tmp_path: Path) -> None:
    needs_mounts()
    made, each = await stack(tmp_path, [archive(*BASE), archive(directory("tmp"), Entry("tmp/x"))])
    assert each.reads == 2
    target = snapshot(tmp_path, 2, made)
    async with applier() as each:
        await each.put(archive(Entry("root/x"), Entry("tmp/y"), Entry("new/z")), target)
        assert each.reads == 1  # what it does not name is mended
    root, tmp = (Path(target.directory, name).stat() for name in ("root", "tmp"))
    assert (stat.S_IMODE(root.st_mode), root.st_mtime_ns) == (0o700, 10**18)
    assert stat.S_IMODE(tmp.st_mode) == 0o755  # as the layer below says
    async with applier() as each:
        await each.put(archive(Entry("lib/x"), Entry("root/x")), snapshot(tmp_path, 3, made))
        assert each.reads == 2  # a lower layer says that the first is a link
    assert [Path(target.directory).parent.joinpath(name).exists() for name in ("fs", "work")] == [True, True]


NULL = Entry("hidden", "character")
HIDDEN = [Entry("hidden", data=b"below"), Entry("kept")]


@pytest.mark.parametrize("layer", [[NULL], [Entry("hidden"), NULL], [whiteout("hidden"), NULL], [NULL, Entry("a/b")]])
@pytest.mark.parametrize("is_merged", [False, True])
async def test_a_device_that_overlayfs_reads_as_a_whiteout_hides_its_name_in_every_form(
    tmp_path: Path, layer: list[Entry], is_merged: bool
) -> None:
    needs_mounts()
    made, _ = await stack(tmp_path, [archive(*HIDDEN)])
    target = Target("merged", str(made[0])) if is_merged else snapshot(tmp_path, 1, made)
    async with applier() as each:
        await each.put(archive(*layer), target)
    with mounted([*made, *([] if is_merged else [Path(target.directory)])], tmp_path / "at") as at:
        assert not (at / "hidden").exists()
        assert (at / "kept").exists()


@pytest.mark.parametrize("number", [0, 1])
async def test_the_root_of_a_snapshot_stays_as_its_maker_left_it(tmp_path: Path, number: int) -> None:
    made, _ = await stack(tmp_path, [archive(Entry("a"))][:number])
    target = snapshot(tmp_path, number, made)
    os.chmod(target.directory, 0o711)
    async with applier() as each:
        await each.put(archive(Entry("./", "directory", mode=0o777, uid=7), Entry("x")), target)
    info = os.stat(target.directory)
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o711, 0, 0)


async def test_where_lower_layers_are_not_known_a_layer_is_taken_as_far_as_it_says_itself(tmp_path: Path) -> None:
    target = Target("upper", snapshot(tmp_path, 0, []).directory)
    async with applier() as each:
        await each.put(archive(Entry("root/x"), whiteout("a/b"), opaque(".")), target)
        assert each.reads == 1
        assert stat.S_IMODE(Path(target.directory, "root").stat().st_mode) == 0o755
        with pytest.raises(UnsafePathError, match="lower layers are not known"):
            await each.put(archive(hardlink("b", "below")), Target("upper", snapshot(tmp_path, 1, []).directory))


async def test_a_snapshot_with_the_marker_gets_an_erofs_file_in_the_place_of_what_was_left(tmp_path: Path) -> None:
    layer = archive(directory("d"), Entry("d/f", data=b"x" * 5000), whiteout("gone"), opaque("d"))
    for number, kind in enumerate(("merged", "upper", "erofs")):
        place = Path(snapshot(tmp_path, number, []).directory)
        (place.parent / ".erofslayer").touch()
        (place.parent / "layer.erofs").symlink_to(tmp_path / "victim")
        target = Target("erofs", str(place.parent)) if kind == "erofs" else Target(kind, str(place))  # type: ignore[arg-type]
        async with applier() as each:
            proof = await each.put(layer, target)
        assert (str(proof.digest), proof.size) == (str(Digest.of(layer)), len(layer))
        assert list(place.iterdir()) == []
        with (place.parent / "layer.erofs").open("rb") as file:
            assert [(node.path, node.kind) for node in erofs_listing(file.fileno())] == [
                ("d", "directory"),
                ("d/f", "file"),
                ("gone", "character"),
            ]
            assert os.fstat(file.fileno()).st_size % 4096 == 0
    assert not (tmp_path / "victim").exists()


async def test_an_erofs_file_refuses_a_hard_link_to_what_only_lower_layers_have(tmp_path: Path) -> None:
    place = Path(snapshot(tmp_path, 0, []).directory).parent
    (place / ".erofslayer").touch()
    async with applier() as each:
        with pytest.raises(UnsafePathError, match="EROFS"):
            await each.put(archive(hardlink("b", "below")), Target("erofs", str(place)))


async def test_nothing_is_written_where_links_of_lower_layers_lead(tmp_path: Path) -> None:
    needs_mounts()
    victim = tmp_path / "victim"
    victim.mkdir()
    links = [
        symlink("out", str(victim)),
        symlink("up", "../../../../.."),
        directory("d"),
        symlink("d/out", str(victim)),
    ]
    writes = [Entry("out/a"), Entry(f"up{victim}/b"), Entry("d/out/c"), hardlink("e", "out/f"), whiteout("out/g")]
    made, _ = await stack(tmp_path, [archive(*links)])
    (victim / "g").touch()
    for number, entry in enumerate(writes, 1):
        async with applier() as each:
            try:
                await each.put(archive(entry), snapshot(tmp_path, number, made))
            except UnpackError:
                assert entry.link == "out/f"
    assert [path.name for path in victim.iterdir()] == ["g"]


async def test_what_follows_the_archive_counts_for_its_digest(tmp_path: Path) -> None:
    layer = archive(Entry("a")) + b"more" * 1000
    async with applier() as each:
        proof = await each.put(layer, snapshot(tmp_path, 0, []))
    assert (str(proof.digest), proof.size) == (str(Digest.of(layer)), len(layer))


async def test_a_snapshot_that_is_gone_or_full_says_so(tmp_path: Path) -> None:
    gone = snapshot(tmp_path, 0, [])
    Path(gone.directory).rmdir()
    (tmp_path / "small").mkdir()
    async with applier() as each:
        with pytest.raises(StoreError, match="0/fs: No such file"):
            await each.put(archive(Entry("a")), gone)
        with disks.mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
            made: list[Path] = []
            for number in range(2):
                target = snapshot(tmp_path / "small", number, made)
                made = [Path(target.directory)]
                with pytest.raises(StoreFullError):
                    await each.put(archive(Entry("a", data=b"x" * 100_000)), target)


async def test_limits_and_damage_are_said_with_the_layer_in_every_form(tmp_path: Path) -> None:
    needs_mounts()
    made, _ = await stack(tmp_path, [archive(*BASE)])
    (tmp_path / "8/fs").mkdir(parents=True)
    (tmp_path / "8/.erofslayer").touch()
    targets = [snapshot(tmp_path, 1, []), snapshot(tmp_path, 2, made), Target("erofs", str(tmp_path / "8"))]
    async with applier(Limits(workers=1, memory=32 << 20, unpacked_entries=2)) as each:
        for target in targets:
            with pytest.raises(UnpackError, match="layer"):
                await each.put(archive(Entry("a"), Entry("b"), Entry("c")), target)
            with pytest.raises(FormatError, match="layer"):
                await each.put(b"\0" * 100 + b"no tar" * 1000, target)


async def test_who_is_cancelled_while_a_sink_is_closed_hears_of_it() -> None:
    class Sink:
        """Its end takes until it is let go."""

        name = "slow"
        ending, let_go = threading.Event(), threading.Event()

        def feed(self, buffer: Buffer) -> None:
            raise AssertionError

        def finish(self) -> None:
            raise AssertionError

        def stop(self) -> None:
            raise AssertionError

        def abort(self) -> None:
            self.ending.set()
            assert self.let_go.wait(20)

    async def use() -> None:
        async with each.reader.sink(Sink):
            pass
        await asyncio.Event().wait()  # for another task, which never comes

    async with applier() as each:
        task = asyncio.create_task(use())
        assert await asyncio.to_thread(Sink.ending.wait, 20)
        task.cancel()
        await asyncio.sleep(0)
        Sink.let_go.set()
        done, _ = await asyncio.wait([task], timeout=20)
        assert done and task.cancelled()


@pytest.mark.parametrize("make", [overlay.make, overlay.make_by_text], ids=["descriptors", "text"])
def test_an_overlay_that_is_nowhere_is_written_to_and_gone(
    tmp_path: Path, make: Callable[[overlay.Overlay], int]
) -> None:
    needs_mounts()
    for name in ("upper", "work", "lower"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower/below").touch()
    before = Path("/proc/self/mounts").read_text()
    with opened(tmp_path / "upper") as upper, opened(tmp_path / "work") as work, opened(tmp_path / "lower") as lower:
        mount = make(overlay.Overlay(lowers=[lower], source="test", upper=upper, work=work))
    try:
        root = os.open(".", os.O_RDONLY, dir_fd=mount)
        assert os.listdir(root) == ["below"]
        os.mkdir("made", dir_fd=root)
        os.close(root)
    finally:
        os.close(mount)
    assert Path("/proc/self/mounts").read_text() == before
    assert (tmp_path / "upper/made").is_dir()
