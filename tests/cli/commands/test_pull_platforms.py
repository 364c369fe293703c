"""Several platforms of one image: those that are named, and all that there are.

Covers: cli/commands/pull.py, jobs/resolve.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

import fastoci
from conftest import Cli
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.platform import Platform
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve

NAMES = ("linux/amd64", "linux/arm64", "linux/arm/v7")


def image(platform: str) -> Image:
    return Image.build([Layer.build([Entry(platform.replace("/", "-"))])], platform=Platform.parse(platform))


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()
    registry.add_image("app", "1", Index.build([image(name) for name in NAMES]))
    registry.add_image("alone", "1", image("linux/arm64"))
    with serve(registry) as registry:
        yield registry


def platforms(cli: Cli, store: Path) -> dict[str, list[str]]:
    listed = json.loads(cli("ls", "--format", "json", "--store", store).stdout)
    return {each["name"].rpartition("/")[2]: sorted(each["platforms"]) for each in listed["images"]}


def test_a_platform_may_be_repeated_and_a_layout_has_them_all(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    reference, layout = f"{registry.address}/app:1", tmp_path / "layout"
    wanted = ("--platform", "linux/amd64", "--platform", "arm64")
    done = cli("pull", reference, *wanted, "--store", tmp_path / "store", "--oci", layout)
    assert done.returncode == 0, done.stderr
    assert platforms(cli, tmp_path / "store") == {"app:1": ["linux/amd64", "linux/arm64"]}
    lines = [f"{registry.address}/app@{image(name).descriptor.digest}" for name in NAMES[:2]]
    assert done.stdout.splitlines() == lines
    (top,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    assert top["mediaType"] == mediatype.OCI_INDEX


def test_all_are_those_of_the_index_and_offline_those_of_the_store(
    cli: Cli, registry: Registry, tmp_path: Path
) -> None:
    names = [f"{registry.address}/{name}:1" for name in ("app", "alone")]
    done = cli("pull", *names, "--platform", "all", "--store", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert platforms(cli, tmp_path / "store") == {"alone:1": ["linux/arm64"], "app:1": sorted(NAMES)}
    done = cli("pull", names[1], "--platform", "all", "--offline", "--store", tmp_path / "store")
    assert done.returncode == 0, done.stderr


def test_one_platform_that_is_missing_fails_the_image(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    wanted = ("--platform", "linux/amd64", "--platform", "s390x")
    done = cli("pull", f"{registry.address}/app:1", *wanted, "--store", tmp_path / "store")
    assert (done.returncode, done.stdout) == (3, "")
    assert "the index has no manifest for linux/s390x" in done.stderr


@pytest.mark.parametrize(
    "wanted", [("--platform", "all"), ("--platform", "linux/amd64", "--platform", "arm64")], ids=["all", "two"]
)
def test_a_rootfs_is_of_one_platform(cli: Cli, tmp_path: Path, wanted: tuple[str, ...]) -> None:
    done = cli("pull", "localhost:1/app", *wanted, "--rootfs", tmp_path / "root", "--store", tmp_path / "store")
    assert done.returncode == 2
    assert "--rootfs takes one platform only" in done.stderr
    assert not (tmp_path / "store").exists()


async def test_the_platforms_of_a_name_are_those_of_images_in_all_its_indexes(tmp_path: Path) -> None:
    first, second, third = (image(name) for name in NAMES)
    unknown = Platform("unknown", "unknown")
    inner = Index.build([second, third])
    entries = [
        encode(first.descriptor),
        encode(replace(second.descriptor, platform=unknown)),
        encode(replace(third.descriptor, artifact_type="application/x.sbom", platform=Platform("linux", "s390x"))),
        encode(replace(third.descriptor, platform=None)),
        encode(Descriptor("application/x.other", Digest.of(b"x"), 1, platform=Platform("linux", "386"))),
        encode(inner.descriptor),
        encode(first.descriptor),
    ]
    data = json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": entries}).encode()
    registry = Registry()
    registry.add_image("app", "inner", inner)
    registry.add_image("app", "first", first)
    registry.add_manifest("app", "1", mediatype.OCI_INDEX, data, digest=str(Digest.of(data)))
    with serve(registry) as registry:
        async with fastoci.Engine(tmp_path / "store") as engine:
            assert await engine.platforms(f"{registry.address}/app:1") == NAMES
            assert await engine.platforms(f"{registry.address}/app:first") == ()
