"""Files are not made in a store, where they would be taken for its own: whatever way leads there.

Covers: jobs/pull.py, path_walk.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fastoci
from fastoci import path_walk
from fastoci.errors import StoreError
from fastoci.testing.registry import Registry, serve
from support.images import FIRST, image_of

if TYPE_CHECKING:
    from conftest import Cli

WAYS = {
    "the store": "store",
    "in it": "store/tree",
    "far in it": "store/blobs/sha256/deep/tree",
    "by a link": "link/tree",
    "a link to it": "link",
    "back and forth": "store/../other/../store/tree",
    "through a link and back": "link/blobs/../tree",
}


@pytest.fixture
def name() -> Iterator[str]:
    registry = Registry()
    registry.add_image("team/app", "v1", image_of(FIRST))
    with serve(registry):
        yield f"{registry.address}/team/app:v1"


def found(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("store")
    return tmp_path


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_an_engine_makes_no_files_in_its_store(place: Path, name: str, way: str) -> None:
    async with fastoci.Engine(place / "store") as engine:
        with pytest.raises(StoreError, match="is in the store"):
            await engine.pull(name, rootfs=place / way)
        image = await engine.pull(name)
        before = found(place)
        for make in (image.unpack, image.export, engine.export):
            with pytest.raises(StoreError, match="is in the store"):
                await make(place / way)
        assert found(place) == before
        await image.unpack(place / "store2")
        await engine.export(place / "other")
        assert (await engine.verify()).bad == ()


@pytest.mark.parametrize("option", ["--rootfs", "--oci"])
def test_a_pull_into_the_store_is_wrong_usage_and_makes_nothing(cli: Cli, place: Path, option: str) -> None:
    before = found(place)
    for way in ("store/tree", "link/tree", "other/../store"):
        done = cli("pull", "gone.invalid/app", option, place / way, "--store", place / "store")
        assert done.returncode == 2
        assert "is in the store" in done.stderr
    assert found(place) == before


def test_a_path_is_within_a_directory_by_any_way(place: Path) -> None:
    (place / "store").mkdir()
    for way in WAYS.values():
        assert path_walk.is_within(place / way, place / "store")
        assert path_walk.is_within(place / way, place / "link")
    assert path_walk.is_within(Path(f"/proc/self/root{place}/store/tree"), place / "store")
    for way in ("", "other", "store2", "store/..", "link/../tree", "other/store"):
        assert not path_walk.is_within(place / way, place / "store")
    os.symlink("loop", place / "loop")
    assert not path_walk.is_within(place / "loop" / "tree", place / "store")
