"""Layers whose gzip data ends where a buffer does are unpacked, out of files and while they arrive."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from isal import igzip

import fastoci
from fastoci import _inflate
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, tar
from fastoci.testing.registry import Registry, serve
from support.images import same

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
FRAMING = 512 + 1024  # the header of one file, and the end of the tar
SIZES = [_inflate.WINDOW_SIZE * windows - less for windows in (1, 2, 4, 8, 16, 40) for less in (0, FRAMING)]
COMPRESSORS = {
    **{f"zlib-{level}": partial(gzip.compress, compresslevel=level, mtime=0) for level in (1, 6, 9)},
    **{f"igzip-{level}": partial(igzip.compress, compresslevel=level, mtime=0) for level in (0, 1)},
}


def zeros(size: int) -> list[Entry]:
    return [Entry(f"zeros{size}", data=bytes(size), uid=os.geteuid(), gid=os.getegid())]


def layer(entries: list[Entry], compress: Callable[[bytes], bytes]) -> Layer:
    content = b"".join(tar(entries))
    packed = compress(content)
    return Layer(Descriptor.of(packed, MEDIA_TYPE), Digest.of(content), packed)


@pytest.mark.attack
@pytest.mark.parametrize("compress", COMPRESSORS.values(), ids=COMPRESSORS)
async def test_layers_that_end_in_zeros_are_applied(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    files = []
    for size in SIZES:
        files.append(tmp_path / f"{size}.tar.gz")
        content = layer(zeros(size), compress).content
        assert isinstance(content, bytes)
        files[-1].write_bytes(content)
    (tmp_path / "root").mkdir()
    await fastoci.apply(tmp_path / "root", files)
    assert same(tmp_path / "root", *map(zeros, SIZES))


@pytest.mark.attack
@pytest.mark.parametrize("compress", COMPRESSORS.values(), ids=COMPRESSORS)
async def test_layers_that_end_in_zeros_are_unpacked_while_they_arrive(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    with serve(Registry()) as registry:
        async with fastoci.Engine(tmp_path / "store") as engine:
            for size in SIZES:
                name, root = f"zeros{size}", tmp_path / f"root{size}"
                registry.add_image(
                    name, "latest", Image.build([layer(zeros(size), compress), layer(zeros(1), compress)])
                )
                await engine.pull(f"{registry.address}/{name}", rootfs=root)
                assert same(root, zeros(size), zeros(1))


@pytest.mark.attack
@pytest.mark.parametrize("position", range(3))
async def test_a_layer_of_no_bytes_adds_nothing(tmp_path: Path, position: int) -> None:
    entries = [Entry("below", uid=os.geteuid(), gid=os.getegid()), Entry("above", uid=os.geteuid(), gid=os.getegid())]
    layers = [layer([entry], gzip.compress) for entry in entries]
    layers.insert(position, Layer(Descriptor.of(b"", MEDIA_TYPE), Digest.of(b""), b""))
    registry = Registry()
    registry.add_image("app", "1", Image.build(layers))
    with serve(registry):
        async with fastoci.Engine(tmp_path / "store") as engine:
            await engine.pull(f"{registry.address}/app:1", rootfs=tmp_path / "root")
    assert same(tmp_path / "root", entries)
