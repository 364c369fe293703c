"""Built images, read by skopeo and umoci: the builder, the registry and the model of a tree against other tools."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci.image.platform import Platform
from fastoci.testing.auth import Basic, Bearer
from fastoci.testing.images import Image, Index, write_layout
from fastoci.testing.layers import Compression, Entry, Layer, directory, from_seed, hardlink, opaque, symlink, whiteout
from fastoci.testing.registry import Registry, serve
from fastoci.testing.trees import differences, listing, overlay

CHANGES: list[list[Entry]] = [
    [*from_seed(1, files=40, size=2000), directory("etc"), Entry("etc/a", data=b"a"), directory("opt"), Entry("opt/x")],
    [whiteout("data/0000/000003"), Entry("etc/b", data=b"b", uid=7, gid=8), hardlink("etc/c", "etc/b")],
    [directory("opt"), opaque("opt"), symlink("opt/y", "../etc/b"), whiteout("etc/a"), Entry("pipe", "fifo")],
]


def build(compression: Compression = "gzip", *, docker: bool = False, seed: int = 0) -> Image:
    extra = [[Entry("seed", data=str(seed).encode())]] if seed else []
    layers = [Layer.build(entries, compression, docker=docker) for entries in [*CHANGES, *extra]]
    return Image.build(layers, docker=docker, command=["/bin/true"])


@pytest.mark.skipif(os.geteuid() != 0, reason="umoci keeps owners as root only")
@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_umoci_unpacks_what_the_model_says(
    tmp_path: Path, peer: Callable[[str], str], compression: Compression
) -> None:
    write_layout({"t": build(compression)}, tmp_path / "layout")
    command = [peer("umoci"), "raw", "unpack", "--image", f"{tmp_path}/layout:t", str(tmp_path / "tree")]
    subprocess.run(command, check=True, capture_output=True)
    assert differences(overlay(CHANGES), listing(tmp_path / "tree")) == []


@pytest.mark.parametrize("docker", [False, True])
def test_skopeo_copies_an_image_with_its_digests(tmp_path: Path, copy_image: Callable[..., None], docker: bool) -> None:
    image = build(docker=docker)
    with serve(Registry()) as registry:
        registry.add_image("lib/app", "v1", image)
        copy_image(f"docker://{registry.address}/lib/app:v1", f"dir:{tmp_path}")
    assert (tmp_path / "manifest.json").read_bytes() == image.manifest
    for blob, _ in image.blobs():
        assert (tmp_path / blob.digest.hex).stat().st_size == blob.size


@pytest.mark.parametrize("docker", [False, True])
def test_skopeo_copies_all_platforms_of_an_index(tmp_path: Path, copy_image: Callable[..., None], docker: bool) -> None:
    platforms = [Platform("linux", "amd64"), Platform("linux", "arm", "v7")]
    images = [
        Image.build([Layer.build([Entry("f", data=str(p).encode())], docker=docker)], platform=p, docker=docker)
        for p in platforms
    ]
    index = Index.build(images, docker=docker)
    with serve(Registry()) as registry:
        registry.add_image("multi", "latest", index)
        copy_image(f"docker://{registry.address}/multi", f"dir:{tmp_path}", "--all")
    assert (tmp_path / "manifest.json").read_bytes() == index.index
    rows = json.loads(index.index)["manifests"]
    assert [row["platform"].get("variant") for row in rows] == [None, "v7"]


@pytest.mark.parametrize("auth", [Basic("me", "pass word"), Bearer("me", "pass word"), Bearer()])
def test_skopeo_authenticates(tmp_path: Path, copy_image: Callable[..., None], auth: Basic | Bearer) -> None:
    credentials = ["--src-creds", "me:pass word"] if auth.user else []
    with serve(Registry(auth)) as registry:
        registry.add_image("app", "v1", build("zstd"))
        copy_image(f"docker://{registry.address}/app:v1", f"dir:{tmp_path}", *credentials)
    fetched = [record for record in registry.log if "/blobs/" in record.path]
    assert {record.status for record in fetched} == {200}
    assert {record.authorization for record in fetched} == {type(auth).__name__}


def test_a_layout_holds_images_that_share_blobs_once(tmp_path: Path) -> None:
    one, two = build(), build(seed=2)
    write_layout({"one": one, "two": two}, tmp_path)
    held = os.listdir(tmp_path / "blobs" / "sha256")
    assert len(held) == len(CHANGES) + 1 + 2 + 2  # layers, configs, manifests
    names = [row["annotations"] for row in json.loads((tmp_path / "index.json").read_bytes())["manifests"]]
    assert [name["org.opencontainers.image.ref.name"] for name in names] == ["one", "two"]


def test_layers_in_files_are_linked_into_a_layout(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    layer = Layer.build(from_seed(1, files=2, size=100), into=tmp_path / "made")
    write_layout({"t": Image.build([layer])}, tmp_path / "layout")
    assert isinstance(layer.content, Path)
    assert os.path.samefile(layer.content, tmp_path / "layout" / "blobs" / "sha256" / layer.descriptor.digest.hex)


def test_the_same_layers_give_the_same_image() -> None:
    assert build() == build()
    assert build().descriptor.digest != build(docker=True).descriptor.digest
