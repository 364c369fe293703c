"""What only reads a store works when its disk is full, of bytes or of inodes.

Covers: store/store.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastoci
from fastoci.errors import StoreFullError
from fastoci.image.digest import Digest
from fastoci.testing.registry import Registry, serve
from support import disks
from support.images import FIRST, image_of, same

if TYPE_CHECKING:
    from conftest import Cli

IMAGE = image_of(FIRST)


def fill_bytes(root: Path) -> None:
    room = os.statvfs(root)
    with (root / "filler").open("wb", buffering=0) as filler:
        os.posix_fallocate(filler.fileno(), 0, room.f_bavail * room.f_frsize)


def fill_inodes(root: Path) -> None:
    with suppress(OSError):
        for number in range(1000):
            (root / f"filler{number}").touch()


FILLS = {"bytes": fill_bytes, "inodes": fill_inodes}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "disk").mkdir()
    with disks.mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=24m,nr_inodes=200", "tmpfs") as mounted:
        yield mounted


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
async def test_what_is_on_a_full_disk_can_be_read(
    cli: Cli, disk: Path, tmp_path: Path, fill: Callable[[Path], None]
) -> None:
    registry, store = Registry(), disk / "store"
    registry.add_image("team/app", "v1", IMAGE)
    with serve(registry) as served:
        name = f"{served.address}/team/app:v1"
        async with fastoci.Engine(store) as engine:
            await engine.pull(name)
        fill(disk)
        async with fastoci.Engine(store) as engine:
            assert [each.name for each in await engine.images()] == [name]
            assert (await engine.usage()).total.size > 0
            assert (await engine.verify()).blobs == 3
            image = await engine.image(name)
            await image.check()
            await image.unpack(tmp_path / "tree")
            await image.export(tmp_path / "layout")
            assert (await engine.pull(name, policy="never")).size == image.size
            assert (await engine.plan_gc(fastoci.Retention())).items == ()
    assert same(tmp_path / "tree", FIRST)
    assert len(list((tmp_path / "layout" / "blobs" / "sha256").iterdir())) == 3
    for command in (["ls"], ["verify"], ["unpack", name, tmp_path / "again"]):
        assert cli(*command, "--store", store).returncode == 0


async def test_a_hold_is_kept_or_refused(disk: Path) -> None:
    async with fastoci.Engine(disk / "store") as engine:
        fill_inodes(disk)
        with pytest.raises(StoreFullError):
            async with engine.hold([Digest.of(b"x")]):
                pass
