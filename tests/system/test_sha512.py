"""Images by sha512: wherever sha256 goes, sha512 goes, and wrong bytes under it go nowhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import fastoci
from fastoci.errors import IntegrityError
from fastoci.image.digest import Digest
from fastoci.testing.registry import Registry
from fastoci.testing.uploads import Uploads
from support import sha512_images as long


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with Registry() as running:
        yield running


async def test_an_image_by_sha512_is_pulled_unpacked_verified_and_exported(registry: Registry, tmp_path: Path) -> None:
    name = long.serve(registry)
    async with fastoci.Engine(tmp_path / "store") as engine:
        image = await engine.pull(name, platform="linux/amd64", rootfs=tmp_path / "rootfs")
        assert image.manifest_descriptor.digest == long.MANIFEST[1].digest
        assert (tmp_path / "rootfs/file").read_bytes() == b"content"
        asked = len(registry.log)
        await engine.pull(name, platform="linux/amd64", layers=fastoci.Layers("overlay"))
        assert len(registry.log) == asked
        checked = await engine.verify()
        assert (checked.blobs, checked.bad) == (4, ())
        assert await engine.gc() == ()
        assert await engine.export(tmp_path / "layout", [name]) == 1
    found = {f"sha512:{path.name}" for path in (tmp_path / "layout/blobs/sha512").iterdir()}
    assert found == long.DIGESTS - {str(long.INDEX[1].digest)}  # of one platform its manifest is named


async def test_a_layout_with_sha512_is_an_additional_store(registry: Registry, tmp_path: Path) -> None:
    name = long.serve(registry)
    async with fastoci.Engine(tmp_path / "first") as engine:
        await engine.pull(name, platform="linux/amd64")
        await engine.export(tmp_path / "layout", [name])
    registry.remove_blob(str(long.LAYER[1].digest))
    async with fastoci.Engine(tmp_path / "store", additional=[tmp_path / "layout"]) as engine:
        await engine.pull(name, platform="linux/amd64", rootfs=tmp_path / "rootfs")
    assert (tmp_path / "rootfs/file").read_bytes() == b"content"


@pytest.mark.parametrize("damaged", ["layer", "config", "manifest", "index"])
async def test_other_bytes_under_a_digest_of_sha512_are_refused(
    registry: Registry, tmp_path: Path, damaged: str
) -> None:
    name = long.serve(registry)
    data, descriptor = {
        "layer": long.LAYER,
        "config": long.CONFIG,
        "manifest": long.MANIFEST,
        "index": long.INDEX,
    }[damaged]
    wrong, digest = data[:-1] + b"?", str(descriptor.digest)
    if damaged in ("layer", "config"):
        registry.add_blob(digest, wrong)
    else:
        registry.add_manifest("long", digest, descriptor.media_type, wrong, digest=digest)
    options = fastoci.RegistryOptions(retries=0)
    async with fastoci.Engine(tmp_path / "store", registry=options) as engine:
        with pytest.raises(IntegrityError, match=digest):
            await engine.pull(name, platform="linux/amd64", rootfs=tmp_path / "rootfs")
        assert await engine.images() == ()
        assert not (tmp_path / "store/blobs/sha512" / Digest.parse(digest).hex).exists()


async def test_an_image_by_sha512_is_copied_through_all_places(registry: Registry, tmp_path: Path) -> None:
    everything = fastoci.CopyOptions(platforms=("all",))
    (tmp_path / "uploads").mkdir()
    async with (
        Registry(uploads=Uploads(tmp_path / "uploads")) as target,
        fastoci.Engine(tmp_path / "store") as engine,
    ):
        there = f"docker://{target.address}/app@{long.INDEX[1].digest}"
        ways = [
            (f"docker://{long.serve(registry)}", f"oci:{tmp_path}/first:app"),
            (f"oci:{tmp_path}/first:app", there),
            (there, f"oci:{tmp_path}/last:app"),
            (there, "store:registry.test/app:1"),
        ]
        for source, destination in ways:
            copied = await engine.copy(source, destination, everything)
            assert copied.descriptor.digest == long.INDEX[1].digest
        image = await engine.image("registry.test/app:1", platform="linux/amd64")
        await image.unpack(tmp_path / "rootfs")
    assert (tmp_path / "rootfs/file").read_bytes() == b"content"
    for layout in ("first", "last"):
        found = {path.name: path.read_bytes() for path in (tmp_path / layout / "blobs/sha512").iterdir()}
        assert {f"sha512:{name}" for name in found} == long.DIGESTS
        assert all(Digest.of(data, "sha512").hex == name for name, data in found.items())
