"""Pulls and applies of root below directories of another user, who swaps all that lies on their way meanwhile."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import fastoci
from fastoci.errors import FastociError
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, directory, hardlink, opaque, symlink, tar, whiteout
from fastoci.testing.registry import Registry, serve
from support.attacker import Attacker, scene
from support.scratch import scratch

_DEEP = "/".join("d" * 40)
LOWER = [
    directory("directory"),
    *(Entry(f"directory/deep/{number}", "file", b"x" * 100) for number in range(50)),
    Entry(f"{_DEEP}/file", "file", b"1"),
    hardlink("directory/again", "directory/deep/1"),
    symlink("rootfs", "directory"),
    Entry("file", "file", b"2"),
]
UPPER = [
    opaque("directory/deep"),
    Entry("directory/deep/new", "file", b"3", mode=0o4755),
    whiteout("d"),
    whiteout("file"),
    Entry("rootfs/deep/through", "file", b"4"),
]


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()
    registry.add_image("app", "latest", Image.build([Layer.build(LOWER), Layer.build(UPPER), Layer.build(LOWER)]))
    with serve(registry) as registry:
        yield registry


@pytest.mark.attack
@pytest.mark.parametrize("kind", ["sticky", "theirs"])
def test_a_pull_into_a_directory_of_another_user_touches_nothing_else(kind: str, registry: Registry) -> None:
    done = {"unpacked": 0, "exported": 0}

    async def pull(target: Path) -> None:
        async with fastoci.Engine(store) as engine:
            image = await engine.pull(f"{registry.address}/app")
            for _ in range(20):
                with suppress(FastociError):
                    await image.unpack(target)
                    done["unpacked"] += 1
                with suppress(FastociError):
                    await image.export(target.parent / "layout")
                    done["exported"] += 1

    with scene(kind) as at, scratch("store") as store:
        for _ in range(10):  # of a hundred unpacks, two to twelve get through, and once none did
            Attacker(at).beside(lambda target: asyncio.run(pull(target)), 5)
            if all(done.values()):
                break
    assert all(done.values()), done


@pytest.mark.attack
@pytest.mark.parametrize("kind", ["sticky", "theirs"])
def test_a_store_in_a_directory_of_another_user_touches_nothing_else(kind: str, registry: Registry) -> None:
    done = {"pulled": 0, "verified": 0, "removed": 0, "collected": 0}

    async def use(target: Path) -> None:
        async with fastoci.Engine(target) as engine:
            for _ in range(5):
                with suppress(FastociError):
                    await engine.pull(f"{registry.address}/app")
                    done["pulled"] += 1
                    await engine.verify()
                    done["verified"] += 1
                    await engine.remove(f"{registry.address}/app")
                    done["removed"] += 1
                    await engine.gc()
                    done["collected"] += 1

    def run(target: Path) -> None:
        if min(done.values()) < 10:  # most of the time his own is in the store's place, and it does not open
            with suppress(FastociError):
                asyncio.run(use(target))

    with scene(kind) as at:
        Attacker(at).beside(run, 500)
    assert all(done.values()), done


@pytest.mark.attack
@pytest.mark.parametrize("kind", ["sticky", "theirs"])
def test_an_apply_onto_a_directory_of_another_user_touches_nothing_else(kind: str) -> None:
    with scene(kind) as at, scratch("layers") as place:
        layers = [place / "lower.tar", place / "upper.tar"]
        for path, entries in zip(layers, (LOWER, UPPER), strict=True):
            path.write_bytes(b"".join(tar(entries)))

        done: list[Path] = []

        def apply(target: Path) -> None:
            with suppress(FastociError):
                asyncio.run(fastoci.apply(target, layers))
                done.append(target)

        Attacker(at).beside(apply, 100)
    assert done


@pytest.mark.attack
def test_what_takes_a_new_pipes_place_keeps_its_mode(tmp_path: Path) -> None:
    """Whoever owns the tree may move another's file there between two calls, and need not be able to read it."""
    private, tree, layer = tmp_path / "private", tmp_path / "tree", tmp_path / "layer"
    private.touch(0o600)
    tree.mkdir()
    layer.write_bytes(b"".join(tar(Entry("pipe", "fifo", mode=0o666) for _ in range(20_000))))
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            with suppress(FileExistsError):  # it stays when the other name is the same file
                os.link(private, tmp_path / "another")
            os.rename(tmp_path / "another", tree / "pipe")

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(3):
            with suppress(FastociError):
                asyncio.run(fastoci.apply(tree, [layer]))
    finally:
        ended.set()
        swapping.join()
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
