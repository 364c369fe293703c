"""What is no image, in the form of one, is pulled, copied and kept like one; to unpack it is a clear error."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastoci import CopyOptions, Engine
from fastoci.errors import UnsupportedError
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.testing.images import Artifact
from fastoci.testing.registry import Registry

ALL = CopyOptions(platforms=("all",))
ARTIFACTS = {
    "a Helm chart": Artifact.build(
        "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
        b"chart",
        config=(b'{"name":"x","version":"1.0.0"}', "application/vnd.cncf.helm.config.v1+json"),
    ),
    "a WASM component": Artifact.build(
        "application/wasm", b"\0asm", config=(b'{"os":"wasip1"}', "application/vnd.wasm.config.v0+json")
    ),
    "a model": Artifact.build("application/vnd.cncf.model.weight.v1.raw", b"weights" * 1000),
}


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with Registry() as running:
        yield running


def blobs(layout: Path) -> set[str]:
    return {f"sha256:{path.name}" for path in (layout / "blobs/sha256").iterdir()}


@pytest.mark.parametrize("name", ARTIFACTS)
async def test_an_artifact_goes_from_a_registry_to_layout_store_and_layout(
    registry: Registry, tmp_path: Path, name: str
) -> None:
    artifact = ARTIFACTS[name]
    registry.add_image("app", "1", artifact)
    parts = {str(blob.digest) for blob, _ in (*artifact.documents(), *artifact.blobs())}
    async with Engine(tmp_path / "store") as engine:
        await engine.copy(f"docker://{registry.address}/app:1", f"oci:{tmp_path}/first:app")
        await engine.copy(f"oci:{tmp_path}/first:app", "store:registry.test/app:1")
        await engine.copy("store:registry.test/app:1", f"oci:{tmp_path}/second:app")
        assert [each.name for each in await engine.images()] == ["registry.test/app:1"]
        assert await engine.gc() == ()
    assert blobs(tmp_path / "first") == blobs(tmp_path / "second") == parts


@pytest.mark.parametrize("name", ARTIFACTS)
async def test_an_artifact_is_pulled_but_not_unpacked(registry: Registry, tmp_path: Path, name: str) -> None:
    registry.add_image("app", "1", ARTIFACTS[name])
    async with Engine(tmp_path / "store") as engine:
        image = await engine.pull(f"{registry.address}/app:1")
        assert (image.manifest_descriptor.digest, image.config) == (ARTIFACTS[name].descriptor.digest, None)
        with pytest.raises(UnsupportedError, match="not a container image"):
            await engine.pull(f"{registry.address}/app:1", rootfs=tmp_path / "rootfs")
        assert not (tmp_path / "rootfs").exists()


async def test_content_that_a_descriptor_carries_is_asked_of_nobody(registry: Registry, tmp_path: Path) -> None:
    """A manifest whose config and layer are in it: they are nowhere else."""
    config, layer = Descriptor.of(b"{}", "a/config"), Descriptor.of(b"layer", "a/layer")
    form = {
        "schemaVersion": 2,
        "config": {**encode(config), "data": "e30="},
        "layers": [{**encode(layer), "data": "bGF5ZXI="}],
    }
    data = json.dumps(form).encode()
    registry.add_manifest("app", "1", mediatype.OCI_MANIFEST, data, digest=str(Digest.of(data)))
    parts = {str(each) for each in (config.digest, layer.digest, Digest.of(data))}
    async with Engine(tmp_path / "store") as engine:
        await engine.copy(f"docker://{registry.address}/app:1", f"oci:{tmp_path}/first:app")
        assert blobs(tmp_path / "first") == parts
        for digest in (config.digest, layer.digest):
            (tmp_path / "first/blobs/sha256" / digest.hex).unlink()
        await engine.copy(f"oci:{tmp_path}/first:app", f"oci:{tmp_path}/second:app", ALL)
        await engine.copy(f"oci:{tmp_path}/first:app", "store:registry.test/app", ALL)
    assert blobs(tmp_path / "second") == parts
    assert not any("/blobs/" in record.path for record in registry.log)
