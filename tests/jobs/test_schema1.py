"""Images of Docker's schema 1, pulled and prefetched: from the loopback registry, and as skopeo pushes them."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import pytest

from fastoci import Engine, PrefetchRequest
from fastoci.errors import (
    DigestMismatchError,
    FormatError,
    NotFoundError,
    PlatformError,
    SizeMismatchError,
)
from fastoci.events import Event, Warned
from fastoci.image import mediatype
from fastoci.image.digest import Digest
from fastoci.image.stored_image import origin
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry
from support.schema1_images import payload_of, signed


class Running(Protocol):
    """The fixtures' registry, as far as it matters here."""

    address: str


LAYERS = [Layer.build([Entry("low", data=b"1" * 3_000_000)]), Layer.build([Entry("high", data=b"2")])]
PAYLOAD = payload_of([LAYERS[0].descriptor.digest, None, LAYERS[1].descriptor.digest, LAYERS[0].descriptor.digest])


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with Registry() as registry:
        serve(registry, PAYLOAD)
        for layer in LAYERS:
            registry.add_blob(str(layer.descriptor.digest), layer.content)
        yield registry


def serve(registry: Registry, payload: bytes) -> None:
    digest = str(Digest.of(payload))
    for name in ("1", digest):
        kind = mediatype.DOCKER_SCHEMA1_SIGNED
        registry.add_manifest("app", name, kind, signed(payload), digest=digest)


def bodies(registry: Registry) -> list[str]:
    """What was asked for with a body, but for its digest or tag."""
    return [record.path.rpartition("/")[0].rpartition("/")[2] for record in registry.log if record.method == "GET"]


async def test_a_pull_brings_it_as_schema_2_with_each_layer_fetched_once(registry: Registry, tmp_path: Path) -> None:
    events: list[Event] = []
    async with Engine(tmp_path / "store", observer=events.append) as engine:
        image = await engine.pull(f"{registry.address}/app:1", rootfs=tmp_path / "root")
        assert image.descriptor.media_type == mediatype.DOCKER_MANIFEST
        assert [layer.digest for layer in image.manifest.layers] == [
            LAYERS[0].descriptor.digest,
            LAYERS[1].descriptor.digest,
            LAYERS[0].descriptor.digest,
        ]
        config = json.loads(await engine.read(image.manifest.config.digest))
    assert config["rootfs"]["diff_ids"] == [str(LAYERS[each].diff_id) for each in (0, 1, 0)]
    assert (tmp_path / "root/high").read_bytes() == b"2"
    assert sorted(bodies(registry)) == ["blobs", "blobs", "manifests"]
    [warning] = [event for event in events if isinstance(event, Warned)]
    assert str(Digest.of(PAYLOAD)) in warning.message and str(image.descriptor.digest) in warning.message


@pytest.mark.parametrize("named", [":1", f"@{Digest.of(PAYLOAD)}"])
async def test_what_it_became_is_pulled_again_without_a_body(registry: Registry, tmp_path: Path, named: str) -> None:
    async with Engine(tmp_path / "store") as engine:
        first = await engine.pull(f"{registry.address}/app{named}")
        registry.log.clear()
        again = await engine.pull(f"{registry.address}/app{named}")
        assert again.descriptor.digest == first.descriptor.digest
        assert origin(first.descriptor) == Digest.of(PAYLOAD)
    assert bodies(registry) == []


async def test_a_pull_mends_a_config_that_only_the_store_had(registry: Registry, tmp_path: Path) -> None:
    async with Engine(tmp_path / "store") as engine:
        image = await engine.pull(f"{registry.address}/app:1")
        (await engine.path(image.manifest.config.digest)).unlink()
        again = await engine.pull(f"{registry.address}/app:1")
        assert again.manifest.config == image.manifest.config
        assert await engine.read(image.manifest.config.digest)


async def test_a_dry_run_says_what_would_come_and_brings_nothing(registry: Registry, tmp_path: Path) -> None:
    async with Engine(tmp_path / "store") as engine:
        resolved = await engine.resolve(f"{registry.address}/app:1")
        assert resolved.is_outline
        assert [blob.size for blob in resolved.blobs] == [layer.descriptor.size for layer in LAYERS]
        plan = await engine.plan_prefetch([PrefetchRequest(f"{registry.address}/app:1")])
        assert {blob.digest for blob in plan.missing} == {layer.descriptor.digest for layer in LAYERS}
        assert await engine.images() == ()
    assert set(bodies(registry)) == {"manifests"}


async def test_a_prefetch_brings_it_beside_others(registry: Registry, tmp_path: Path) -> None:
    names = [f"{registry.address}/app:1", f"{registry.address}/app@{Digest.of(PAYLOAD)}"]
    async with Engine(tmp_path / "store") as engine:
        for outcome in ("fetched", "present"):
            result = await engine.prefetch([PrefetchRequest(name) for name in names])
            assert [image.outcome for image in result.images] == [outcome] * 2
        images = [await engine.image(name) for name in names]
        assert images[0].descriptor.digest == images[1].descriptor.digest
        assert {str(image.descriptor.digest) for image in images} == {image.digest for image in result.images}
    assert bodies(registry).count("blobs") == 2


@pytest.mark.attack
async def test_what_is_no_layer_becomes_no_image(registry: Registry, tmp_path: Path) -> None:
    plain = Layer.build([Entry("low")]).content
    assert isinstance(plain, bytes)
    cut = plain[:-8]
    serve(registry, payload_of([Digest.of(cut)]))
    registry.add_blob(str(Digest.of(cut)), cut)
    async with Engine(tmp_path / "store") as engine:
        with pytest.raises(FormatError):
            await engine.pull(f"{registry.address}/app:1")
        assert await engine.images() == ()


@pytest.mark.attack
async def test_other_bytes_than_a_layers_are_not_read(registry: Registry, tmp_path: Path) -> None:
    registry.add_blob(str(LAYERS[1].descriptor.digest), b"\0" * LAYERS[1].descriptor.size)
    async with Engine(tmp_path / "store") as engine:
        with pytest.raises((DigestMismatchError, SizeMismatchError)):
            await engine.pull(f"{registry.address}/app:1")
        assert await engine.images() == ()


async def test_another_platform_than_its_own_is_refused_before_a_layer_comes(
    registry: Registry, tmp_path: Path
) -> None:
    async with Engine(tmp_path / "store") as engine:
        with pytest.raises(PlatformError, match="linux/amd64"):
            await engine.pull(f"{registry.address}/app:1", platform="linux/arm64")
    assert bodies(registry) == ["manifests"]


async def test_a_layer_that_the_registry_lost_is_not_found(registry: Registry, tmp_path: Path) -> None:
    registry.remove_blob(str(LAYERS[0].descriptor.digest))
    async with Engine(tmp_path / "store") as engine:
        with pytest.raises(NotFoundError):
            await engine.pull(f"{registry.address}/app:1")


async def test_a_pull_that_is_cancelled_leaves_nothing_open(registry: Registry, tmp_path: Path) -> None:
    started = asyncio.Event()
    async with Engine(tmp_path / "store", observer=lambda event: started.set()) as engine:
        pulling = asyncio.create_task(engine.pull(f"{registry.address}/app:1"))
        await started.wait()
        pulling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pulling


def test_it_becomes_what_skopeo_makes_of_it(
    docker_registry: Running,
    copy_image: Callable[..., None],
    peer: Callable[[str], str],
    shared: Path,
    tmp_path: Path,
) -> None:
    name = f"{docker_registry.address}/schema1/image:1"
    copy_image(f"oci:{shared}/images/oci:alpine", f"docker://{name}", "--format", "v2s1")
    copy_image(f"docker://{name}", f"dir:{tmp_path}/theirs", "--format", "v2s2")

    async def pull() -> bytes:
        async with Engine(tmp_path / "store") as engine:
            image = await engine.pull(name)
            await image.export(tmp_path / "ours")
            return await engine.read(image.descriptor.digest)

    assert asyncio.run(pull()) == (tmp_path / "theirs/manifest.json").read_bytes()
    inspected = subprocess.run([peer("skopeo"), "inspect", f"oci:{tmp_path}/ours"], capture_output=True)
    assert json.loads(inspected.stdout)["Architecture"] == "amd64"
