"""What is packed and unpacked again is what it was; packed twice, it is the same image.

Covers: jobs/pack.py, transfer/packer.py.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import pytest

import fastoci
from fastoci.errors import BlobNotFoundError, FormatError, PackError, ReferenceSyntaxError
from fastoci.events import BlobStarted, Event, Warned
from fastoci.image.convert import Recompression
from fastoci.image.digest import Digest
from fastoci.testing.layers import Entry, directory, from_seed, hardlink, symlink, tar
from fastoci.testing.trees import differences, listing
from support.packing import TIME_NS, put

ROOT_USER = os.geteuid() == 0
SECOND = 10**9
ODD = [
    directory("etc", mode=0o750, mtime_ns=-1_500_000_000),
    Entry("etc/not-utf-8-\udcff", data=b"x", mode=0o4755, mtime_ns=TIME_NS + 123_456_789),
    Entry("etc/empty", mtime_ns=1),
    Entry("etc/attributes", data=b"y", xattrs=(("user.a", b"\0\xff"), ("user.b", b"1"))),
    Entry("/".join(["long"] * 60), data=b"deep"),
    symlink("etc/link", "../" * 50 + "nowhere"),
    Entry("pipe", "fifo", mode=0o600),
    Entry("a file", data=bytes(3_000_000)),
    hardlink("z/again", "a file"),
]
OF_ROOT = [
    Entry("dev/null", "character", device=(1, 3), mode=0o666),
    Entry("dev/disk", "block", device=(8, 1), uid=0, gid=6),
    Entry("bin/ping", data=b"p", xattrs=(("security.capability", bytes.fromhex("0100000200200000") + bytes(12)),)),
    Entry("home/user", data=b"u", uid=3_000_000_000, gid=2_999_999_999, mode=0o2755),
    Entry("trusted", data=b"t", xattrs=(("trusted.mine", b"1"),)),
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with one of everything."""
    entries = [*from_seed(5, files=20, size=100_000), *ODD, *(OF_ROOT if ROOT_USER else [])]
    (tmp_path / "layer.tar").write_bytes(b"".join(tar(entries)))
    root = tmp_path / "tree"
    root.mkdir()
    root.chmod(0o755)
    asyncio.run(fastoci.apply(root, [tmp_path / "layer.tar"]))
    return root


@pytest.fixture
async def engine(tmp_path: Path, events: list[Event]) -> AsyncIterator[fastoci.Engine]:
    async with fastoci.Engine(tmp_path / "store", observer=events.append) as engine:
        yield engine


@pytest.fixture
def events() -> list[Event]:
    return []


def unpacked(image: fastoci.Image, tmp_path: Path) -> Path:
    return tmp_path / f"unpacked-{image.manifest_descriptor.digest.hex[:8]}"


async def config_of(engine: fastoci.Engine, image: fastoci.Image) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await engine.read(image.manifest.config.digest))
    return found


@pytest.mark.parametrize("compression", get_args(Recompression))
async def test_what_is_packed_and_unpacked_is_what_it_was(
    engine: fastoci.Engine, tree: Path, tmp_path: Path, compression: Recompression
) -> None:
    image = await engine.pack(tree, "example.com/app:1", compression=compression)
    await image.unpack(target := unpacked(image, tmp_path))
    assert differences(listing(tree), listing(target)) == []
    assert [layer.media_type.rpartition("+")[2] for layer in image.manifest.layers] == [compression]
    assert [stored.name for stored in await engine.images()] == ["example.com/app:1"]
    assert (await engine.verify(["example.com/app:1"])).bad == ()


@pytest.mark.parametrize("compression", get_args(Recompression))
async def test_packed_twice_it_is_the_same_image_whatever_the_threads_and_the_memory(
    tree: Path, tmp_path: Path, compression: Recompression
) -> None:
    found = set()
    for number, limits in enumerate(
        [fastoci.Limits(workers=1, memory=4 << 20), fastoci.Limits(workers=7), fastoci.Limits(workers=2)]
    ):
        async with fastoci.Engine(tmp_path / f"store{number}", limits=limits) as engine:
            image = await engine.pack(tree, f"example.com/app:{number}", compression=compression)
            found.add(image.manifest_descriptor.digest)
    assert len(found) == 1


async def test_its_diff_id_is_that_of_the_tar_which_is_the_same_for_each_compression(
    engine: fastoci.Engine, tree: Path
) -> None:
    images = [await engine.pack(tree, f"a:{each}", compression=each) for each in get_args(Recompression)]
    first, second = [image.config and image.config.diff_ids for image in images]
    assert first == second


async def test_what_differs_from_another_directory_goes_on_top_of_a_base(
    engine: fastoci.Engine, tree: Path, tmp_path: Path
) -> None:
    base = await engine.pack(tree, "example.com/base:1")
    await base.unpack(before := unpacked(base, tmp_path))
    (tree / "etc/empty").unlink()
    shutil.rmtree(tree / "data/0000")
    put(tree / "etc/new", "new")
    (tree / "a file").chmod(0o600)
    image = await engine.pack(tree, "example.com/app:1", base="example.com/base:1", against=before)
    assert image.manifest.layers[:-1] == base.manifest.layers
    assert image.manifest.layers[-1].size < 20_000
    await image.unpack(target := unpacked(image, tmp_path))
    assert differences(listing(tree), listing(target)) == []
    config = await config_of(engine, image)
    assert len(config["history"]) == len(config["rootfs"]["diff_ids"]) == 2


async def test_what_differs_from_an_image_goes_on_top_of_it(engine: fastoci.Engine, tree: Path, tmp_path: Path) -> None:
    base = await engine.pack(tree, "example.com/base:1", compression="zstd")
    same = await engine.pack(tree, "example.com/same:1", base="example.com/base:1")
    assert same.manifest.layers == base.manifest.layers
    (tree / "etc/empty").unlink()
    shutil.rmtree(tree / "data/0000")
    put(tree / "etc/attributes", "Y", mtime_ns=TIME_NS)  # as long and as old as before
    os.link(tree / "a file", tree / "z/third")
    image = await engine.pack(tree, "example.com/app:1", base="example.com/base:1")
    assert image.manifest.layers[:-1] == base.manifest.layers
    assert image.manifest.layers[-1].size < 20_000
    await image.unpack(target := unpacked(image, tmp_path))
    assert differences(listing(tree), listing(target)) == []
    again = await engine.pack(tree, "example.com/again:1", base="example.com/app:1")
    assert again.manifest.layers == image.manifest.layers


async def test_no_difference_is_no_layer(engine: fastoci.Engine, tree: Path, tmp_path: Path) -> None:
    base = await engine.pack(tree, "example.com/base:1")
    await base.unpack(before := unpacked(base, tmp_path))
    image = await engine.pack(tree, "example.com/app:1", base="example.com/base:1", against=before)
    assert image.manifest.layers == base.manifest.layers
    assert (await config_of(engine, image))["history"][-1]["empty_layer"] is True


async def test_an_empty_directory_is_an_image_of_an_empty_layer(engine: fastoci.Engine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    image = await engine.pack(tmp_path / "empty", "example.com/empty:1", platform="linux/arm64")
    await image.unpack(target := unpacked(image, tmp_path))
    assert listing(target) == []
    assert str(image.platform) == "linux/arm64"


async def test_times_are_no_later_than_the_environment_says(
    engine: fastoci.Engine, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1600000000")
    image = await engine.pack(tree, "example.com/app:1")
    await image.unpack(target := unpacked(image, tmp_path))
    times = [node.mtime_ns or 0 for node in listing(target)]
    assert max(times) == 1_600_000_000 * SECOND
    assert min(times) == -1_500_000_000
    assert (await config_of(engine, image))["created"] == "2020-09-13T12:26:40Z"


async def test_an_environment_without_a_number_is_refused(
    engine: fastoci.Engine, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(FormatError, match="SOURCE_DATE_EPOCH"):
        await engine.pack(tree, "example.com/app:1")


async def test_without_an_epoch_the_image_is_as_old_as_its_newest_file(engine: fastoci.Engine, tree: Path) -> None:
    put(tree / "newest", mtime_ns=1_800_000_000 * SECOND)
    for path in (tree, *tree.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            os.utime(path, ns=(TIME_NS, TIME_NS))
    image = await engine.pack(tree, "example.com/app:1")
    assert (await config_of(engine, image))["created"] == "2027-01-15T08:00:00Z"


@pytest.mark.skipif(not ROOT_USER, reason="needs root: devices, trusted attributes")
async def test_an_upper_directory_goes_on_top_of_its_base(engine: fastoci.Engine, tree: Path, tmp_path: Path) -> None:
    await engine.pack(tree, "example.com/base:1")
    upper = tmp_path / "upper"
    put(upper / "etc/new", "new")
    put(upper / "z/only", "only")
    os.mknod(upper / "pipe", 0o020000, os.makedev(0, 0))
    os.setxattr(upper / "z", "trusted.overlay.opaque", b"y")
    image = await engine.pack(upper, "example.com/app:1", base="example.com/base:1", upper=True)
    await image.unpack(target := unpacked(image, tmp_path))
    assert not (target / "pipe").exists()
    assert sorted(os.listdir(target / "z")) == ["only"]
    assert {"new", "attributes"} <= set(os.listdir(target / "etc"))


async def test_what_is_wrong_is_told_and_leaves_nothing(
    engine: fastoci.Engine, tree: Path, tmp_path: Path, events: list[Event]
) -> None:
    put(tree / "zz/.wh.x")
    with pytest.raises(PackError):
        await engine.pack(tree, "example.com/app:1")
    with pytest.raises(BlobNotFoundError):
        await engine.pack(tree, "example.com/app:1", base="example.com/absent")
    with pytest.raises(ReferenceSyntaxError):
        await engine.pack(tree, f"example.com/app@{Digest.of(b'')}")
    with pytest.raises(ValueError, match="upper"):
        await engine.pack(tree, "example.com/app:1", upper=True)
    assert await engine.images() == ()
    assert os.listdir(tmp_path / "store/ingest") == []
    assert events == []


async def test_what_is_left_out_is_told(engine: fastoci.Engine, tmp_path: Path, events: list[Event]) -> None:
    os.setxattr(put(tmp_path / "tree/a"), "user.empty", b"")
    await engine.pack(tmp_path / "tree", "example.com/app:1")
    assert [event.message for event in events if isinstance(event, Warned)] == [
        f"{tmp_path}/tree/a has an attribute that no tar can carry, user.empty: it is left out"
    ]


async def test_the_layer_is_written_once(engine: fastoci.Engine, tree: Path, events: list[Event]) -> None:
    image = await engine.pack(tree, "example.com/app:1")
    layer = image.manifest.layers[0]
    begun = [event.offset for event in events if isinstance(event, BlobStarted) and event.blob == str(layer.digest)]
    assert begun == [layer.size]


async def test_where_files_cannot_get_names_the_layer_is_written_again(
    engine: fastoci.Engine, tree: Path, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(os, "link", refuse)
    image = await engine.pack(tree, "example.com/app:1")
    assert {event.offset for event in events if isinstance(event, BlobStarted)} == {0}
    assert (await engine.verify(["example.com/app:1"])).bad == ()
    await image.check()


async def test_a_cancelled_pack_ends_soon_and_leaves_what_was_finished(
    engine: fastoci.Engine, tree: Path, tmp_path: Path
) -> None:
    for turns in range(0, 200, 5):
        task = asyncio.create_task(engine.pack(tree, "example.com/app:1"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
            break
    assert len(os.listdir(tmp_path / "store/ingest")) <= 1  # the layer, when it was whole: the next has it again
    image = await engine.pack(tree, "example.com/app:2")
    await image.check()


async def test_packs_side_by_side_do_not_wait_for_each_other(tree: Path, tmp_path: Path) -> None:
    limits = fastoci.Limits(workers=2, memory=4 << 20)
    async with fastoci.Engine(tmp_path / "store", limits=limits) as engine:
        images = await asyncio.gather(*(engine.pack(tree, f"example.com/app:{number}") for number in range(6)))
    assert len({image.manifest_descriptor.digest for image in images}) == 1
