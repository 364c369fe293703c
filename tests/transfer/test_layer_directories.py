"""Layer directories of whole images: made at once, merged where they only count together, mounted by their options."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import fastoci
from fastoci import Layers
from fastoci.errors import BlobNotFoundError, UnpackError
from fastoci.events import Event, UnpackSkipped, UnpackStarted
from fastoci.image.config import chain_id
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, directory, hardlink, opaque, symlink, whiteout
from fastoci.testing.registry import Registry, serve
from fastoci.testing.trees import differences, listing, overlay
from support.images import made
from support.overlays import needs_mounts

OVERLAY = Layers("overlay")
BASE = [
    directory(".", mode=0o711),
    directory("etc"),
    Entry("etc/old", data=b"old"),
    Entry("etc/kept"),
    symlink("l", "etc"),
]
UPPER = [directory("etc"), whiteout("etc/old"), Entry("etc/new", data=b"new"), directory("data"), opaque("data")]
IMPLIED = [Entry("etc/implied", data=b"x"), Entry("l/behind", data=b"y")]
LINKED = [hardlink("again", "etc/kept")]
IMAGES = {
    "plain": [BASE, UPPER, made(1, files=3, size=50_000)],
    "merged": [BASE, IMPLIED, LINKED, UPPER],
    "single": [[Entry("etc/a")]],
    "dangling": [LINKED, BASE],
    "loop": [[symlink("a", "a"), opaque("a")], [Entry("b")]],
    "loop-above": [BASE, [symlink("a", "a"), opaque("a")]],
}
LIBC = ctypes.CDLL(None, use_errno=True)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners of files and mounts need root")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        for name, layers in IMAGES.items():
            registry.add_image(name, "latest", Image.build([Layer.build(layer) for layer in layers]))
        yield registry


@contextmanager
def shown(options: Sequence[str], at: Path) -> Iterator[Path]:
    """What a mount with these options shows."""
    needs_mounts()
    at.mkdir()
    if LIBC.mount(b"overlay", os.fsencode(at), b"overlay", 0, ",".join(options).encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        yield at
    finally:
        assert LIBC.umount2(os.fsencode(at), 0) == 0


async def refusal(work: Awaitable[None]) -> str:
    """The kind of error that refuses the layers; empty: they are taken."""
    try:
        await work
    except UnpackError as error:
        return type(error).__name__
    return ""


def directories(store: Path) -> set[str]:
    return {path.name for path in (store / "layers" / "overlay").iterdir()}


@pytest.mark.parametrize("name", ["plain", "merged", "single"])
async def test_the_options_mount_the_image(registry: Registry, tmp_path: Path, name: str) -> None:
    async with fastoci.Engine(tmp_path / "s") as engine:
        image = await engine.pull(f"{registry.address}/{name}")
        with pytest.raises(BlobNotFoundError, match="lacks layer directories"):
            await image.overlay_options()
        await image.make_layers(OVERLAY)
        with shown(await image.overlay_options(), tmp_path / "at") as at:
            if name == "merged":  # the model has no links on the way
                await image.unpack(tmp_path / "tree")
                assert differences(listing(tmp_path / "tree"), listing(at)) == []
                assert (at / "etc/behind").read_bytes() == b"y"
                assert (at / "again").stat().st_ino == (at / "etc/kept").stat().st_ino
            else:
                assert differences(overlay(IMAGES[name]), listing(at)) == []
            assert at.stat().st_mode & 0o777 == (0o755 if name == "single" else 0o711)
    assert list((tmp_path / "s" / "ingest").iterdir()) == []


async def test_layers_that_only_count_together_are_one_tree_by_their_chain_id(
    registry: Registry, tmp_path: Path
) -> None:
    async with fastoci.Engine(tmp_path / "s") as engine:
        image = await engine.pull(f"{registry.address}/merged", layers=OVERLAY)
        options = await image.overlay_options()
    assert image.config is not None
    diff_ids = image.config.diff_ids
    merged = chain_id(diff_ids[:3]).hex
    assert directories(tmp_path / "s") == {*(each.hex for each in diff_ids), merged}
    trees = [f"{tmp_path}/s/layers/overlay/{name}" for name in (merged, diff_ids[3].hex)]
    assert list(options) == [f"lowerdir={trees[0]}/root:{trees[1]}/tree:{trees[0]}/tree"]


async def test_what_is_there_is_not_made_again_and_shared_layers_are_made_once(
    registry: Registry, tmp_path: Path
) -> None:
    events: list[Event] = []
    async with fastoci.Engine(tmp_path / "s", observer=events.append) as engine:
        await engine.pull(f"{registry.address}/plain", layers=OVERLAY)
        await engine.pull(f"{registry.address}/merged", layers=OVERLAY)
        await engine.pull(f"{registry.address}/merged", layers=OVERLAY)
    assert [event.layers for event in events if isinstance(event, UnpackStarted)] == [3, 2]
    assert sum(isinstance(event, UnpackSkipped) for event in events) == 1


async def test_engines_at_the_same_time_make_the_same_stack(registry: Registry, tmp_path: Path) -> None:
    async def pull(number: int) -> tuple[str, ...]:
        async with fastoci.Engine(tmp_path / "s") as engine:
            image = await engine.pull(f"{registry.address}/{('merged', 'plain')[number % 2]}", layers=OVERLAY)
            return await image.overlay_options()

    stacks = await asyncio.gather(*map(pull, range(4)))
    assert stacks[0] == stacks[2]
    assert stacks[1] == stacks[3]
    assert list((tmp_path / "s" / "ingest").iterdir()) == []


async def test_a_stack_is_refused_exactly_when_its_tree_is(registry: Registry, tmp_path: Path) -> None:
    """Two of these layers are refused alone, and the third is not, although it links to nothing."""
    async with fastoci.Engine(tmp_path / "s") as engine:
        for name in ("dangling", "loop", "loop-above"):
            image = await engine.pull(f"{registry.address}/{name}")
            outcome = [await refusal(image.unpack(tmp_path / name)), await refusal(image.make_layers(OVERLAY))]
            assert outcome[0] == outcome[1] == ("" if name == "loop" else "UnsafePathError")
            if name == "loop":
                with shown(await image.overlay_options(), tmp_path / "at") as at:
                    assert differences(listing(tmp_path / name), listing(at)) == []
            else:
                with pytest.raises(BlobNotFoundError):
                    await image.overlay_options()
    assert list((tmp_path / "s" / "ingest").iterdir()) == []


def test_a_pull_prints_the_options_behind_the_name(registry: Registry, tmp_path: Path, cli: Callable[..., Any]) -> None:
    done = cli("pull", "--store", tmp_path / "s", "--layers", "overlay", f"{registry.address}/plain")
    assert done.returncode == 0, done.stderr
    name, options = done.stdout.splitlines()
    assert name.startswith(f"{registry.address}/plain@sha256:")
    with shown([options], tmp_path / "at") as at:
        assert differences(overlay(IMAGES["plain"]), listing(at)) == []
