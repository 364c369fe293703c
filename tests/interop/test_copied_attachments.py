"""What hangs on an image, in a registry without lists (docker-registry), as other programs find it there."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import DockerRegistry
from fastoci import CopyOptions, Engine
from fastoci.image.attachments import cosign_tags, referrers_tag
from fastoci.testing.images import Artifact, Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry

ALL = CopyOptions(platforms=("all",), referrers=True, signatures=True)
IMAGE = Image.build([Layer.build([Entry("file", "file", b"content")])])
SBOM = Artifact.build("application/vnd.example.sbom", b"sbom", subject=IMAGE.descriptor)
SIGNATURE = Artifact.build("application/vnd.cncf.notary.signature", b"signed", subject=SBOM.descriptor)
COSIGN = Artifact.build("application/vnd.dev.cosign.simplesigning.v1+json", b"cosign")
TAG = cosign_tags(IMAGE.descriptor.digest)[0]

Peer = Callable[[str], str]


@pytest.fixture
async def copied(docker_registry: DockerRegistry, tmp_path: Path) -> str:
    """A repository of docker-registry that has all of it, from a registry that lists referrers."""
    name = f"{docker_registry.address}/attached/{tmp_path.name.lower()}"
    async with Registry() as registry, Engine(tmp_path / "store") as engine:
        registry.add_image("app", "1", IMAGE)
        registry.add_image("app", TAG, COSIGN)
        for each in (SBOM, SIGNATURE):
            registry.add_image("app", "", each)
        await engine.copy(f"docker://{registry.address}/app:1", f"docker://{name}:1", ALL)
    return name


def on_path(name: str) -> str:
    """A program that no package of Debian has."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not on PATH")
    return path


def out_of(*command: str) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_all_of_it_comes_back_from_docker_registry(copied: str, tmp_path: Path) -> None:
    async with Engine(tmp_path / "store") as engine:
        await engine.copy(f"docker://{copied}:1", f"oci:{tmp_path}/layout:app", ALL)
    rows = json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"]
    assert [row["digest"] for row in rows] == [str(each.descriptor.digest) for each in (IMAGE, SBOM, COSIGN, SIGNATURE)]


def test_skopeo_finds_the_list_and_cosigns_signature_under_their_tags(copied: str, peer: Peer) -> None:
    inspect = (peer("skopeo"), "inspect", "--raw", "--tls-verify=false")
    listed = json.loads(out_of(*inspect, f"docker://{copied}:{referrers_tag(IMAGE.descriptor.digest)}"))
    assert [(row["digest"], row["artifactType"]) for row in listed["manifests"]] == [
        (str(SBOM.descriptor.digest), "application/vnd.example.sbom")
    ]
    assert out_of(*inspect, f"docker://{copied}:{TAG}").encode() == COSIGN.manifest


def test_crane_pulls_the_artifacts_by_digest(copied: str) -> None:
    for each in (SBOM, SIGNATURE):
        found = out_of(on_path("crane"), "manifest", "--insecure", f"{copied}@{each.descriptor.digest}")
        assert found.encode().rstrip(b"\n") == each.manifest


def test_oras_discovers_them(copied: str) -> None:
    command = (on_path("oras"), "discover", "--plain-http", "--format", "json", f"{copied}:1")
    assert str(SBOM.descriptor.digest) in out_of(*command)


def test_regctl_lists_them(copied: str) -> None:
    host = copied.partition("/")[0]
    command = (on_path("regctl"), "--host", f"reg={host},tls=disabled", "artifact", "tree", f"{copied}:1")
    found = out_of(*command)
    assert str(SBOM.descriptor.digest) in found
    assert str(SIGNATURE.descriptor.digest) in found


async def attached_by_others(name: str, directory: Path) -> list[str]:
    """The types of what hangs on an image, as a copy brings it into a layout."""
    layout = directory / "others"
    async with Engine(directory / "store") as engine:
        await engine.copy(f"docker://{name}:1", f"oci:{layout}:app", ALL)
    rows = json.loads((layout / "index.json").read_bytes())["manifests"]
    return [row.get("artifactType", "") for row in rows]


async def test_what_oras_attaches_is_copied(copied: str, tmp_path: Path) -> None:
    (tmp_path / "sbom").write_text("theirs")
    attach = (on_path("oras"), "attach", "--plain-http", "--disable-path-validation")
    out_of(*attach, "--artifact-type", "application/vnd.example.oras", f"{copied}:1", str(tmp_path / "sbom"))
    assert "application/vnd.example.oras" in await attached_by_others(copied, tmp_path)


async def test_what_regctl_attaches_is_copied(copied: str, tmp_path: Path) -> None:
    (tmp_path / "sbom").write_text("theirs")
    put = (on_path("regctl"), "--host", f"reg={copied.partition('/')[0]},tls=disabled", "artifact", "put")
    kind = ("--artifact-type", "application/vnd.example.regctl", "--file", str(tmp_path / "sbom"))
    out_of(*put, *kind, "--subject", f"{copied}:1")
    assert "application/vnd.example.regctl" in await attached_by_others(copied, tmp_path)


async def test_a_layout_with_all_of_it_is_read_by_skopeo(copied: str, tmp_path: Path, peer: Peer) -> None:
    async with Engine(tmp_path / "store") as engine:
        await engine.copy(f"docker://{copied}:1", f"oci:{tmp_path}/layout:app", ALL)
    for name, each in (("app", IMAGE), (TAG, COSIGN)):
        raw = out_of(peer("skopeo"), "inspect", "--raw", f"oci:{tmp_path}/layout:{name}")
        assert raw.encode() == each.manifest
