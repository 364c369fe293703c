"""Images that were packed, in the hands of other tools: skopeo copies them, umoci and containerd unpack them.

``FASTOCI_PACK_TREE`` is a directory that is packed in place of a small one: ``make pack-tree``.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

import fastoci
from fastoci.image.convert import Recompression
from fastoci.testing.layers import Entry, directory, from_seed, hardlink, symlink, tar
from fastoci.testing.trees import Node, differences, listing
from support.containerd import containerd
from support.scratch import scratch

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners, containerd")
NAME = "example.com/app:1"
SECOND = 10**9
ENTRIES = [
    *from_seed(3, files=30, size=60_000),
    directory("etc", mode=0o750, mtime_ns=-5 * SECOND),
    Entry("etc/nanoseconds", data=b"n", mtime_ns=1_600_000_000_123_456_789),
    Entry("etc/caf\u00e9", data=b"c", mode=0o4755),
    Entry("/".join(["long"] * 50), data=b"deep", uid=3_000_000, gid=2_100_000),
    symlink("etc/link", "../" * 40 + "x"),
    Entry("big", data=bytes(5_000_000)),
    hardlink("z/again", "big"),
    Entry("bin/ping", data=b"p", xattrs=(("security.capability", bytes.fromhex("0100000200200000") + bytes(12)),)),
]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with scratch("packed") as place:
        yield place


@pytest.fixture(scope="module")
def tree(place: Path) -> Path:
    if given := os.environ.get("FASTOCI_PACK_TREE"):
        return Path(given)
    (place / "layer.tar").write_bytes(b"".join(tar(ENTRIES)))
    (place / "tree").mkdir()
    (place / "tree").chmod(0o755)
    asyncio.run(fastoci.apply(place / "tree", [place / "layer.tar"]))
    return place / "tree"


@pytest.fixture(scope="module", params=get_args(Recompression))
def layout(request: pytest.FixtureRequest, place: Path, tree: Path) -> Iterator[Path]:
    """An OCI layout with the image, made by fastoci alone."""
    target = place / f"layout-{request.param}"

    async def make() -> None:
        async with fastoci.Engine(place / f"store-{request.param}") as engine:
            await (await engine.pack(tree, NAME, compression=request.param)).export(target)

    asyncio.run(make())
    yield target
    shutil.rmtree(target)


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def compression_of(layout: Path) -> Recompression:
    return "zstd" if layout.name.endswith("zstd") else "gzip"


def not_before_1970(nodes: list[Node]) -> list[Node]:
    """Files as containerd has them."""
    return [replace(node, mtime_ns=max(0, node.mtime_ns or 0)) for node in nodes]


def test_fastoci_unpacks_the_same_files(layout: Path, place: Path, tree: Path) -> None:
    target = place / f"unpacked-{layout.name}"

    async def make() -> None:
        async with fastoci.Engine(place / f"store-{compression_of(layout)}") as engine:
            image = await engine.image(NAME)
            await image.unpack(target)
            again = await engine.pack(tree, "example.com/again:1", compression=compression_of(layout))
            assert again.manifest_descriptor.digest == image.manifest_descriptor.digest
            same = await engine.pack(tree, "example.com/same:1", base=NAME)
            assert same.manifest.layers == image.manifest.layers

    asyncio.run(make())
    assert differences(listing(tree), listing(target)) == []
    shutil.rmtree(target)


def test_skopeo_copies_it_and_finds_it_whole(layout: Path, place: Path, peer: Callable[[str], str]) -> None:
    run(peer("skopeo"), "copy", "--quiet", f"oci:{layout}:{NAME}", f"dir:{place}/dir")
    assert "fastoci pack" in run(peer("skopeo"), "inspect", "--config", f"oci:{layout}:{NAME}")
    shutil.rmtree(place / "dir")


@needs_root
def test_umoci_unpacks_the_same_files(layout: Path, place: Path, tree: Path, peer: Callable[[str], str]) -> None:
    umoci, short = peer("umoci"), place / "short"
    run(peer("skopeo"), "copy", "--quiet", f"oci:{layout}:{NAME}", f"oci:{short}:app")
    try:
        if layout.name.endswith("zstd") and "+zstd" in run(umoci, "stat", "--image", f"{short}:app", "--json"):
            pytest.skip("umoci 0.4 takes no zstd")
        run(umoci, "unpack", "--image", f"{short}:app", place / "bundle")
        assert differences(listing(tree), listing(place / "bundle/rootfs")) == []
    finally:
        for path in (short, place / "bundle"):
            shutil.rmtree(path, ignore_errors=True)


@needs_root
def test_containerd_unpacks_the_same_files(layout: Path, place: Path, tree: Path, peer: Callable[[str], str]) -> None:
    home = place / f"containerd-{layout.name}"
    home.mkdir()
    (place / "layout.tar").unlink(missing_ok=True)
    run("tar", "-C", layout, "-cf", place / "layout.tar", ".")
    with containerd(peer("containerd"), peer("ctr"), home) as ctr:
        local = ["--local"] if "--local" in ctr("images", "import", "--help") else []  # 2.x: native is unknown else
        said = ctr("images", "import", *local, "--snapshotter", "native", str(place / "layout.tar"))
        snapshots = home / "root/io.containerd.snapshotter.v1.native/snapshots"
        found = list(snapshots.iterdir())
        assert len(found) == 1, said
        assert differences(not_before_1970(listing(tree)), listing(found[0])) == []
