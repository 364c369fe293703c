"""eStargz and zstd:chunked: read as the gzip and the zstd that they are, kept as they are, or compressed anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastoci import CopyOptions, Engine
from fastoci.image import manifest as manifests
from fastoci.image import mediatype
from fastoci.testing.images import Image
from fastoci.testing.registry import Registry
from support.images import made, same
from support.seekable_layers import estargz, zstd_chunked

ENTRIES = made(11, files=3, size=40_000)
ESTARGZ, TABLE = estargz(ENTRIES)
CHUNKED = zstd_chunked(ENTRIES)
LAYERS = {"estargz": ESTARGZ, "zstd-chunked": CHUNKED}
TREES = {"estargz": [*ENTRIES, TABLE], "zstd-chunked": ENTRIES}

each_form = pytest.mark.parametrize("form", LAYERS)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with Registry() as registry:
        for form, layer in LAYERS.items():
            registry.add_image("app", form, Image.build([layer]))
        yield registry


def manifest_of(layout: Path, hex_digits: str) -> manifests.Manifest:
    return manifests.parse((layout / "blobs/sha256" / hex_digits).read_bytes(), mediatype.OCI_MANIFEST)


@each_form
async def test_all_its_files_are_unpacked(registry: Registry, tmp_path: Path, form: str) -> None:
    async with Engine(tmp_path / "store") as engine:
        await engine.pull(f"{registry.address}/app:{form}", rootfs=tmp_path / "root")
    assert same(tmp_path / "root", TREES[form])


@each_form
async def test_a_copy_keeps_its_bytes_and_what_is_said_of_them(registry: Registry, tmp_path: Path, form: str) -> None:
    async with Engine(tmp_path / "store") as engine:
        copied = await engine.copy(f"docker://{registry.address}/app:{form}", f"oci:{tmp_path}/out:1")
    layer = LAYERS[form]
    assert manifest_of(tmp_path / "out", copied.descriptor.digest.hex).layers == (layer.descriptor,)
    assert (tmp_path / "out/blobs/sha256" / layer.descriptor.digest.hex).read_bytes() == layer.content


@each_form
async def test_compressed_anew_it_is_the_same_tar_of_which_nothing_is_said(
    registry: Registry, tmp_path: Path, form: str
) -> None:
    async with Engine(tmp_path / "store") as engine:
        source = f"docker://{registry.address}/app:{form}"
        compress = "zstd" if form == "estargz" else "gzip"
        copied = await engine.copy(source, f"oci:{tmp_path}/out:1", CopyOptions(compress=compress))
        (layer,) = manifest_of(tmp_path / "out", copied.descriptor.digest.hex).layers
        assert layer.media_type.endswith(compress)
        assert not layer.annotations
        await engine.copy(f"oci:{tmp_path}/out:1", "store:app:1")
        await (await engine.image("app:1")).unpack(tmp_path / "root")
    assert same(tmp_path / "root", TREES[form])
