"""The names in a store: what stands in one is what the format page lists, with its mode, whatever the umask."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fastoci import Engine, Limits, PrefetchRequest, WantedState
from fastoci.events import Event
from fastoci.image.digest import Digest
from fastoci.limits import Level
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve
from support.layer_files import put, put_merged, put_tree, tar_of
from support.stores import on_disk

PAGE = Path(__file__).resolve().parents[2] / "docs" / "store-format.md"
WORDS = {
    "<alg>": "sha(256|512)",
    "<hex>": "([0-9a-f]{64}|[0-9a-f]{128})",
    "<boot_id>": "(?!corrupt)[0-9a-f-]{36}",
    "<hh>": "[0-9a-f]{2}",
    "<xx>": "[0-9a-f]{2}",
    "<key>": "[0-9a-f]{64}",
    "<32 hex>": "[0-9a-f]{32}",
}
ABOVE = {"blobs", "refs", "unsynced", "unsynced/corrupt", "layers/sha256"}  # which hold nothing but what is listed
TREE = re.compile("(layers|ingest)/.*/tree(/.*)?")  # what is in a layer is the layer's
LAYERS = [Layer.build([Entry("one", data=b"1" * 100_000)]), Layer.build([Entry("two", data=b"2")])]


def rows() -> Iterator[tuple[re.Pattern[str], int]]:
    """Of each path on the page: its pattern and its mode."""
    table = re.findall(r"^\| (`.+?) \| (0\d{3}) \|", PAGE.read_text(), re.MULTILINE)
    for paths, mode in table:
        for path in re.findall(r"`([^`]+)`", paths):
            pattern = re.escape(path.rstrip("/"))
            for word, expression in WORDS.items():
                pattern = pattern.replace(re.escape(word), expression)
            yield re.compile(pattern), int(mode, 8)


def names(store: Path) -> Iterator[tuple[str, int]]:
    """What is in the store now, and its mode."""
    for folder, folders, files in os.walk(store):  # a job goes on: it passes over what is gone by then
        for path in (Path(folder, name) for name in (*folders, *files)):
            with suppress(FileNotFoundError):
                yield str(path.relative_to(store)), stat.S_IMODE(path.lstat().st_mode)


async def pull(store: Path, reference: str, durability: Level, seen: set[tuple[str, int]]) -> None:
    """Pull twice, with a damaged blob in between, and watch the store meanwhile."""

    def look(event: Event) -> None:
        seen.update(names(store))

    async with Engine(store, limits=Limits(durability=durability), observer=look) as engine:
        await engine.pull(reference, rootfs=store.parent / "root")
        damaged = store / "blobs" / "sha256" / LAYERS[0].descriptor.digest.hex
        damaged.chmod(0o644)
        damaged.write_bytes(bytes(LAYERS[0].descriptor.size))
        damaged.chmod(0o444)
        await engine.pull(reference, rootfs=store.parent / "again")
        await engine.prefetch([PrefetchRequest(reference)], WantedState(list_name="prod", prune=True))


async def unpack(path: Path, durability: Level, seen: set[tuple[str, int]]) -> None:
    """Make all that a store has of unpacked layers, and watch it meanwhile."""
    tars = [tar_of(seed) for seed in range(4)]
    digests = [Digest.of(tar) for tar in tars]
    async with on_disk(path, durability) as store:
        begun = [await store.layers.begin(digests[3]), await store.layers.begin_directory(digests[3], owners=True)]
        await put(store.layers, tars[0])
        await put(store.layers, tars[1], reasons=["opaque root"])
        await put_tree(store.layers, tars[2])
        await put_merged(store.layers, digests[2], digests[:2])
        seen.update(names(path))
        for each in begun:
            assert each is not None
            await each.abort()


@pytest.mark.parametrize("durability", ["commit", "batch", "none"])
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_store_holds_what_the_format_page_lists(tmp_path: Path, durability: Level, umask: int) -> None:
    store, seen = tmp_path / "store", set[tuple[str, int]]()
    before = os.umask(umask)
    try:
        with serve(Registry()) as registry:
            registry.add_image("app", "1", Image.build(LAYERS))
            asyncio.run(pull(store, f"{registry.address}/app:1", durability, seen))
        asyncio.run(unpack(store, durability, seen))
        for command in ("verify", "gc"):
            subprocess.run([sys.executable, "-m", "fastoci", command, "--store", store], check=True)
            seen.update(names(store))
    finally:
        os.umask(before)
    written = list(rows())
    looked_at = {(name, mode) for name, mode in seen if not (name in ABOVE or TREE.fullmatch(name))}
    strange = {
        (name, oct(mode))
        for name, mode in looked_at
        if not any(pattern.fullmatch(name) and mode == listed for pattern, listed in written)
    }
    assert strange == set()
    kinds = {pattern.pattern for pattern, _ in written if any(pattern.fullmatch(name) for name, _ in seen)}
    assert len(kinds) >= 28, kinds


async def test_gc_leaves_alone_what_it_does_not_know(tmp_path: Path) -> None:
    store = tmp_path / "store"
    async with Engine(store) as engine:
        kept = [store / "layers" / ("0" * 64) / "done", store / "ingest" / "layer" / "done"]
        for file in kept:
            file.parent.mkdir(parents=True, mode=0o700)
            file.write_bytes(b"{}")
            os.utime(file.parent, (0, 0))
        assert await engine.gc() == ()
        assert all(file.exists() for file in kept)
