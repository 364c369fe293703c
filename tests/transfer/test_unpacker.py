"""Layers are unpacked side by side, and the tree, the limits and the errors are those of one after the other.

Covers: transfer/layer_reading.py.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastoci.errors import DigestMismatchError, UnpackError
from fastoci.events import Event, UnpackDone, UnpackProgress
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.jobs.outputs import Outputs
from fastoci.limits import Limits
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, directory, symlink, whiteout
from fastoci.testing.registry import Registry, serve
from support.engine_parts import open_parts
from support.images import FIRST, Slow, image_of, made, same


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        yield registry


BASE = [directory("etc"), Entry("etc/old", data=b"old"), Entry("etc/kept", data=b"kept"), symlink("lib", "etc")]
UPPER = [whiteout("etc/old"), Entry("etc/new", data=b"new"), Entry("lib/through", data=b"through the link")]


def _entries(event: Event) -> int:
    return event.entries if isinstance(event, UnpackProgress) else 0


async def test_an_upper_layer_is_unpacked_before_the_lowest_is_there(registry: Registry, tmp_path: Path) -> None:
    image = image_of(FIRST, BASE, UPPER)
    registry.add_image("image", "latest", image)
    async with open_parts(tmp_path / "store") as parts:

        async def pause(offset: int) -> None:
            """The end of the lowest comes only when all others have been read."""
            if offset == image.layers[0].descriptor.size:
                await parts.events.until(lambda: any(_entries(event) >= len(BASE + UPPER) for event in parts.events))

        reference = Reference.parse(f"{registry.address}/image")
        source = Slow(parts.client.repository(reference), image.layers[0].descriptor, pause)
        pull = parts.job.pull(reference, source, image="image", wanted=None, outputs=Outputs(tmp_path / "root"))
        await asyncio.wait_for(pull, 30)
    assert same(tmp_path / "root", FIRST, BASE, [*UPPER[:-1], replace(UPPER[-1], path="etc/through")])
    assert (tmp_path / "root/etc/through").read_bytes() == b"through the link"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    done = next(event for event in parts.events if isinstance(event, UnpackDone))
    assert done.entries == len(FIRST + BASE + UPPER)


async def test_many_layers_that_share_names_make_the_tree_of_one_after_the_other(
    registry: Registry,
    tmp_path: Path,
) -> None:
    layers = [[*made(number, files=3, size=40_000), Entry("same", data=b"%d" % number)] for number in range(20)]
    layers[7].append(whiteout("made3"))
    registry.add_image("image", "latest", image_of(*layers))
    async with open_parts(tmp_path / "store", Limits(workers=2, memory=16 << 20)) as parts:
        await parts.pull(registry.address, "image", tmp_path / "root")
    assert same(tmp_path / "root", *layers)


@pytest.mark.parametrize("wrong", [0, 1, 2])
async def test_a_layer_with_another_diff_id_fails_the_tree_whichever_it_is(
    registry: Registry,
    tmp_path: Path,
    wrong: int,
) -> None:
    layers = [Layer.build(layer) for layer in (FIRST, BASE, UPPER)]
    other = Digest.parse("sha256:" + "5" * 64)
    layers[wrong] = replace(layers[wrong], diff_id=other)
    registry.add_image("image", "latest", Image.build(layers))
    async with open_parts(tmp_path / "store") as parts:
        with pytest.raises(DigestMismatchError, match="5555"):
            await parts.pull(registry.address, "image", tmp_path / "root")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize(
    ("limits", "text"), [({"unpacked_size": 1_500_000}, "bytes"), ({"unpacked_entries": 12}, "entries")]
)
async def test_limits_hold_for_all_layers_together(
    registry: Registry,
    tmp_path: Path,
    limits: dict[str, Any],
    text: str,
) -> None:
    layers = [made(number, files=4, size=300_000) for number in range(4)]  # each is well below the limits
    registry.add_image("image", "latest", image_of(*layers))
    async with open_parts(tmp_path / "store", Limits(**limits)) as parts:
        with pytest.raises(UnpackError, match=text):
            await parts.pull(registry.address, "image", tmp_path / "root")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


async def test_tar_that_makes_no_files_counts_too(registry: Registry, tmp_path: Path) -> None:
    layer = Layer.build([Entry("a", data=b"a")], "none")
    assert isinstance(layer.content, bytes)
    tar = layer.content + bytes(80 << 20)
    content = gzip.compress(tar, 1)
    descriptor = Descriptor(mediatype.OCI_LAYER + "+gzip", Digest.of(content), len(content))
    registry.add_image("image", "latest", Image.build([Layer(descriptor, Digest.of(tar), content)]))
    async with open_parts(tmp_path / "store", Limits(unpacked_size=1 << 20)) as parts:
        with pytest.raises(UnpackError, match="bytes of tar"):
            await parts.pull(registry.address, "image", tmp_path / "root")
