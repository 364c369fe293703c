"""Copies from and to archives and directories, as an engine makes them; skopeo reads them, and they read skopeo's."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from conftest import CopyImage
from fastoci import CopyOptions, Engine
from fastoci.errors import (
    BlobNotFoundError,
    DigestMismatchError,
    FormatError,
    ReferenceSyntaxError,
    StoreError,
    UnsupportedError,
)
from fastoci.image import manifest as manifests
from fastoci.image import mediatype
from fastoci.image.digest import Digest
from fastoci.layouts.docker_archive_source import DockerArchiveSource
from fastoci.limits import Limits
from fastoci.testing.images import Image, Index, write_layout
from fastoci.testing.layers import Layer
from fastoci.testing.suites.filling import collect
from support.archives import image_of, opened, saved, saved_v1, tar_bytes, write_tar
from support.images import made

SHARED = Layer.build(made(1, files=2, size=2000))
IMAGE = Image.build([SHARED, Layer.build(made(2, files=1, size=1_500_000))])
OTHER = Image.build([SHARED, Layer.build(made(3, files=1, size=100))])
PLAIN = image_of("base", "x" * (2 << 20))
NAME = "registry.test/app:1"
PLACES = {
    "oci-archive": f"oci-archive:{{}}/a.tar:{NAME}",
    "docker-archive": f"docker-archive:{{}}/a.tar:{NAME}",
    "dir": "dir:{}/dir",
}


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with Engine(tmp_path / "store") as engine:
        yield engine


@pytest.fixture
def source(tmp_path: Path) -> str:
    write_layout({"app": IMAGE, "all": Index.build([IMAGE])}, tmp_path / "layout")
    return f"oci:{tmp_path}/layout:app"


def config_of(directory: Path) -> str:
    digest: str = json.loads((directory / "manifest.json").read_bytes())["config"]["digest"]
    return digest


@pytest.mark.parametrize("place", PLACES)
async def test_an_image_goes_out_and_comes_back_with_its_digest(
    tmp_path: Path, engine: Engine, source: str, place: str
) -> None:
    end = PLACES[place].format(tmp_path)
    out = await engine.copy(source, end)
    assert (out.descriptor.digest, out.brought) == (IMAGE.descriptor.digest, 3)
    back = await engine.copy(end, "store:registry.test/back:1")
    assert (back.descriptor.digest, back.brought) == (IMAGE.descriptor.digest, 3)
    again = await engine.copy("store:registry.test/back:1", f"oci:{tmp_path}/again")
    assert (again.descriptor.digest, again.linked) == (IMAGE.descriptor.digest, 3)


@pytest.mark.parametrize("place", PLACES)
async def test_skopeo_reads_what_is_written_here(
    tmp_path: Path, engine: Engine, source: str, copy_image: CopyImage, place: str
) -> None:
    end = PLACES[place].format(tmp_path)
    await engine.copy(source, end)
    await asyncio.to_thread(copy_image, end, f"dir:{tmp_path}/out")
    assert config_of(tmp_path / "out") == str(Digest.of(IMAGE.config))


@pytest.mark.parametrize("place", PLACES)
async def test_what_skopeo_writes_is_read_here(
    tmp_path: Path, engine: Engine, source: str, copy_image: CopyImage, place: str
) -> None:
    end = PLACES[place].format(tmp_path)
    await asyncio.to_thread(copy_image, source, end)
    copied = await engine.copy(end, f"dir:{tmp_path}/out")
    assert config_of(tmp_path / "out") == str(Digest.of(IMAGE.config))
    assert (copied.descriptor.digest == IMAGE.descriptor.digest) == (place != "docker-archive")


async def test_an_index_goes_through_the_forms_that_hold_one(tmp_path: Path, engine: Engine, source: str) -> None:
    source, whole = source.replace(":app", ":all"), CopyOptions(platforms=("all",))
    for end in (f"oci-archive:{tmp_path}/a.tar", f"dir:{tmp_path}/dir"):
        await engine.copy(source, end, whole)
        assert (await engine.copy(end, f"oci:{tmp_path}/out", whole)).descriptor.media_type == mediatype.OCI_INDEX
        assert (await engine.copy(end, f"oci:{tmp_path}/one")).descriptor.digest == IMAGE.descriptor.digest
    with pytest.raises(UnsupportedError, match="is of several platforms"):
        await engine.copy(source, f"docker-archive:{tmp_path}/b.tar", whole)
    assert not (tmp_path / "b.tar").exists()


@pytest.mark.parametrize(
    "members",
    [saved({"app:1": PLAIN}), saved_v1("app:1", ["one", "two"])],
    ids=["docker 1.10", "image format v1"],
)
async def test_an_image_of_docker_save_is_unpacked(
    tmp_path: Path, engine: Engine, members: Sequence[tuple[str | tarfile.TarInfo, bytes]]
) -> None:
    write_tar(tmp_path / "a.tar", members)
    copied = await engine.copy(f"docker-archive:{tmp_path}/a.tar:app:1", "store:registry.test/app:1")
    assert copied.descriptor.media_type == mediatype.DOCKER_MANIFEST
    image = await engine.image("registry.test/app:1")
    await image.unpack(tmp_path / "rootfs")
    assert os.listdir(tmp_path / "rootfs")


async def test_a_stream_goes_into_the_store_without_a_copy(tmp_path: Path, engine: Engine) -> None:
    reader, writer = os.pipe()
    data = gzip.compress(tar_bytes(saved({"app:1": PLAIN})), 1)

    def write() -> None:
        with open(writer, "wb") as pipe:
            pipe.write(data)

    writing = asyncio.create_task(asyncio.to_thread(write))
    copied = await engine.copy(f"docker-archive:/dev/fd/{reader}", "store:registry.test/app:1")
    await writing
    os.close(reader)
    assert copied.brought == 3
    large = PLAIN.layers[1].descriptor
    assert Digest.of((tmp_path / "store" / "blobs" / "sha256" / large.digest.hex).read_bytes()) == large.digest
    assert not os.listdir(tmp_path / "store" / "ingest")


async def test_an_image_is_chosen_by_name_or_number(tmp_path: Path, engine: Engine) -> None:
    members = dict(saved({"one:1": PLAIN, "two:2": image_of("other")}))
    entries = json.loads(members["manifest.json"])
    entries[0]["RepoTags"].append("uno:1")
    members["manifest.json"] = json.dumps(entries).encode()
    archive = f"docker-archive:{write_tar(tmp_path / 'a.tar', list(members.items()))}"
    digests = {}
    for name in (":one:1", ":docker.io/library/one:1", ":uno:1", ":@0", ":two:2", ":@1"):
        digests[name] = (await engine.copy(f"{archive}{name}", f"dir:{tmp_path}/out")).descriptor.digest
    assert len({digests[name] for name in (":one:1", ":docker.io/library/one:1", ":uno:1", ":@0")}) == 1
    assert len({digests[name] for name in (":two:2", ":@1")}) == 1
    assert len(set(digests.values())) == 2
    with pytest.raises(ReferenceSyntaxError, match="has 2 images: choose one by name"):
        await engine.copy(archive, f"dir:{tmp_path}/out")
    with pytest.raises(BlobNotFoundError, match=r"no image of that name; there are docker\.io/library/one:1, docker"):
        await engine.copy(f"{archive}:other", f"dir:{tmp_path}/out")
    with pytest.raises(BlobNotFoundError, match="has 2 images, and @0 is the first"):
        await engine.copy(f"{archive}:@2", f"dir:{tmp_path}/out")


async def test_an_image_of_schema_1_in_a_directory_becomes_one_of_schema_2(
    tmp_path: Path, engine: Engine, shared: Path
) -> None:
    source = f"dir:{shared}/images/busybox-schema1-dir"
    copied = await engine.copy(source, f"docker-archive:{tmp_path}/a.tar:busybox:1")
    assert copied.descriptor.media_type == mediatype.DOCKER_MANIFEST
    again = await engine.copy(f"docker-archive:{tmp_path}/a.tar", "store:busybox:1")
    assert again.descriptor.digest == copied.descriptor.digest


async def test_wrong_bytes_of_a_layer_reach_no_place(tmp_path: Path, engine: Engine) -> None:
    members = [(name, bytes(len(data)) if "layer" in str(name) else data) for name, data in saved({"a:1": PLAIN})]
    archive = f"docker-archive:{write_tar(tmp_path / 'a.tar', members)}"
    for end in ("store:registry.test/a:1", f"oci:{tmp_path}/out", f"oci-archive:{tmp_path}/b.tar", f"dir:{tmp_path}/d"):
        with pytest.raises(DigestMismatchError):
            await engine.copy(archive, end)
    left = {name for name in os.listdir(tmp_path / "d") if len(name) == 64}
    assert not left & {layer.descriptor.digest.hex for layer in PLAIN.layers}
    assert not (tmp_path / "b.tar").exists()


async def test_nothing_is_written_into_the_store_by_its_path(tmp_path: Path, engine: Engine, source: str) -> None:
    for end in (f"oci-archive:{tmp_path}/store/a.tar", f"dir:{tmp_path}/store/d"):
        with pytest.raises(StoreError, match="is in the store"):
            await engine.copy(source, end)


@pytest.mark.parametrize("name", ["docker-save-dive-14-layers.tar", "docker-archive-gz-layers.tar"])
async def test_published_archives_have_the_config_that_skopeo_finds(
    tmp_path: Path, engine: Engine, copy_image: CopyImage, shared: Path, name: str
) -> None:
    archive = f"docker-archive:{shared}/images/archives/{name}"
    await engine.copy(archive, f"dir:{tmp_path}/ours")
    await asyncio.to_thread(copy_image, archive, f"dir:{tmp_path}/theirs")
    assert config_of(tmp_path / "ours") == config_of(tmp_path / "theirs")


# What each published archive is to others: names, or what is wrong with it.
CORPORA: dict[str, list[str] | str] = {
    "images/archives/docker-save-v25-hello-world.tar": [""],
    "images/archives/docker-save-whiteout.tar": ["docker.io/library/whiteout:latest"],
    "corpora/go-containerregistry/v1/tarball/testdata/test_bundle.tar": [
        "docker.io/library/test_image_2:latest",
        "docker.io/library/test_image_1:latest",
    ],
    "corpora/go-containerregistry/v1/tarball/testdata/test_link.tar": [
        "docker.io/bazel/v1/tarball:test_image_1",
        "docker.io/bazel/v1/tarball:test_image_3",
    ],
    "corpora/go-containerregistry/v1/tarball/testdata/no_manifest.tar": ["docker.io/bazel/v1/tarball:test_image"],
    "corpora/go-containerregistry/v1/tarball/testdata/null_manifest.tar": "manifest.json: Expected `array`",
    "corpora/go-containerregistry/v1/tarball/testdata/content.tar": "neither manifest.json nor repositories",
    "corpora/borg/dotdot_path.tar": "leads out of the archive, or is too long: '../../../../etc/shadow'",
    "corpora/borg/unusual_paths.tar": "leads out of the archive, or is too long: '/foobar'",
    "images/archives/oci-archive-zstd.tar": "but an OCI layout, which oci-archive: reads",
}


async def names_of(path: Path) -> list[str]:
    async with opened(path) as (archive, buffers):
        source = DockerArchiveSource(archive, Limits())
        found = await source.names()
        for image in found:
            manifest = manifests.parse(await source.manifest(image.top), image.top.media_type)
            for blob in (manifest.config, *manifest.layers):
                assert Digest.of(await collect(source.fetch(blob, 0, buffers))) == blob.digest
        return [image.name for image in found]


@pytest.mark.parametrize("path", CORPORA)
async def test_published_archives_are_read_or_refused(shared: Path, path: str) -> None:
    expected = CORPORA[path]
    if isinstance(expected, list):
        assert await names_of(shared / path) == expected
    else:
        with pytest.raises(FormatError, match=re.escape(expected)):
            await names_of(shared / path)


def test_a_writer_that_is_killed_leaves_the_old_archive_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"old")
    code = f"""
import sys
from pathlib import Path
from fastoci.layouts.archive_target import ArchiveTarget
target = ArchiveTarget(Path({str(tmp_path / "a.tar")!r}))
target.write_at(0, bytes(100_000))
print("written", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.kill()
    assert (os.listdir(tmp_path), (tmp_path / "a.tar").read_bytes()) == (["a.tar"], b"old")
