"""Archives that are written: the suite, what others find in them, files that take their place at once, and streams.

Covers: layouts/archive_target.py, layouts/oci_archive.py, layouts/oci_archive_source.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import CopyImage
from fastoci.errors import DigestMismatchError, StoreError, UnsupportedError
from fastoci.image import manifest as manifests
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.layout import REF_NAME
from fastoci.image_interfaces import ImageSink, WholeImage
from fastoci.layouts.archive_writer import ArchiveSink, Form
from fastoci.layouts.docker_archive import DockerForm
from fastoci.layouts.docker_archive_source import DockerArchiveSource
from fastoci.layouts.oci_archive import OciForm
from fastoci.layouts.oci_archive_source import OciArchiveSource
from fastoci.limits import Limits
from fastoci.testing.images import Artifact, Image, Index
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.memory_store import MemoryStore
from fastoci.testing.suites.image_sink import ImageSinkSuite, StoreSource, bring, contents, fill, whole
from support.archives import image_of, opened
from support.streaming import OwnStreams

IMAGE = Image.build([Layer.build([Entry("a", data=b"one" * 5000)]), Layer.build([Entry("b" * 150)])])
FORMS: dict[str, Form] = {"oci": OciForm(), "docker": DockerForm()}


class Archives(ImageSinkSuite):
    anew = True
    form: Form

    def open(self, directory: Path) -> ImageSink:
        return ArchiveSink(directory, self.form, OwnStreams())

    def names(self, directory: Path) -> Mapping[str, Descriptor]:
        with tarfile.open(directory) as tar:
            entries = json.loads(read(tar, "index.json"))["manifests"]
        said = {
            each["annotations"].get("io.containerd.image.name") or each["annotations"][REF_NAME]: each
            for each in entries
        }
        return {
            name: Descriptor(each["mediaType"], Digest.parse(each["digest"]), each["size"])
            for name, each in said.items()
        }

    def read(self, directory: Path, blob: Descriptor) -> bytes | None:
        assert not [name for name in os.listdir(directory.parent) if name.startswith(".")], "unfinished files are left"
        with tarfile.open(directory) as tar, suppress(KeyError):
            return read(tar, f"blobs/{blob.digest.algorithm}/{blob.digest.hex}")
        return None


class TestOciArchive(Archives):
    form = OciForm()


class TestDockerArchive(Archives):
    form = DockerForm()


def read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


async def write(path: Path, form: str, images: Sequence[WholeImage], *made: Image) -> None:
    store = MemoryStore()
    await fill(store, *(made or (IMAGE,)))
    await bring(ArchiveSink(path, FORMS[form], OwnStreams()), images, store)


@pytest.mark.parametrize("form", FORMS)
async def test_the_archive_has_each_blob_once_and_names_last(tmp_path: Path, form: str) -> None:
    await write(tmp_path / "a.tar", form, [whole(IMAGE, "r.test/one:1"), whole(IMAGE, "r.test/two:2")])
    with tarfile.open(tmp_path / "a.tar") as tar:
        names = tar.getnames()
        index = json.loads(read(tar, "index.json"))
        saved = json.loads(read(tar, "manifest.json")) if form == "docker" else []
    v1 = [name for name in names if name.endswith(("/VERSION", "/json", "/layer.tar"))]
    last = ["index.json"] if form == "oci" else ["index.json", *v1, "repositories", "manifest.json"]
    assert len(v1) == (0 if form == "oci" else 6)
    assert len(names) == len(set(names)) == len(contents(IMAGE)) + 1 + len(last)
    assert (names[0], names[-len(last) :]) == ("oci-layout", last)
    assert len(index["manifests"]) == 2
    assert [each["RepoTags"] for each in saved] == ([["r.test/one:1", "r.test/two:2"]] if form == "docker" else [])


@pytest.mark.parametrize("form", FORMS)
async def test_the_same_images_give_the_same_bytes(tmp_path: Path, form: str) -> None:
    for name in ("a.tar", "b.tar"):
        await write(tmp_path / name, form, [whole(IMAGE)])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


@pytest.mark.parametrize("form", FORMS)
async def test_what_is_written_is_read_with_its_digests(tmp_path: Path, form: str) -> None:
    other = Image.build([Layer.build([Entry("other")])])
    images = [whole(IMAGE, "r.test/one:1"), whole(other, "r.test/two:2")]
    await write(tmp_path / "a.tar", form, images, IMAGE, other)
    async with opened(tmp_path / "a.tar") as (archive, _):
        source = (OciArchiveSource if form == "oci" else DockerArchiveSource)(archive, Limits())
        found = {image.name: image.top.digest for image in await source.names()}
    assert found == {"r.test/one:1": IMAGE.descriptor.digest, "r.test/two:2": other.descriptor.digest}


@pytest.mark.parametrize("form", FORMS)
async def test_skopeo_reads_the_archive(tmp_path: Path, copy_image: CopyImage, form: str) -> None:
    await write(tmp_path / "a.tar", form, [whole(IMAGE, "registry.test/app:1")])
    await asyncio.to_thread(copy_image, f"{form}-archive:{tmp_path}/a.tar:registry.test/app:1", f"dir:{tmp_path}/out")
    config = json.loads((tmp_path / "out/manifest.json").read_bytes())["config"]["digest"]
    assert config == str(Digest.of(IMAGE.config))


@pytest.mark.parametrize("form", FORMS)
async def test_a_stream_has_the_bytes_of_a_file(tmp_path: Path, form: str) -> None:
    await write(tmp_path / "a.tar", form, [whole(IMAGE)])
    os.mkfifo(tmp_path / "fifo")
    writing = asyncio.create_task(write(tmp_path / "fifo", form, [whole(IMAGE)]))
    data = await asyncio.to_thread((tmp_path / "fifo").read_bytes)
    await writing
    assert data == (tmp_path / "a.tar").read_bytes()
    reader, writer = os.pipe()
    writing = asyncio.create_task(write(Path(f"/dev/fd/{writer}"), form, [whole(IMAGE)]))
    writing.add_done_callback(lambda _: os.close(writer))
    assert await asyncio.to_thread(Path(f"/dev/fd/{reader}").read_bytes) == data
    await writing
    os.close(reader)


async def test_a_pipe_that_nobody_reads_does_not_keep_the_writer(tmp_path: Path) -> None:
    large = Image.build([Layer.build([Entry("noise", data=os.urandom(300_000))])])
    reader, writer = os.pipe()
    os.mkfifo(tmp_path / "fifo")
    for path in (Path(f"/proc/self/fd/{writer}"), tmp_path / "fifo"):
        writing = asyncio.create_task(write(path, "oci", [whole(large)], large))
        await asyncio.sleep(0.1)
        assert not writing.done()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    os.close(reader)
    with pytest.raises(StoreError, match=r"cannot write /proc/self/fd/\d+: Broken pipe"):
        await write(Path(f"/proc/self/fd/{writer}"), "oci", [whole(IMAGE)])
    os.close(writer)


async def test_a_file_keeps_its_place_until_the_archive_is_whole(tmp_path: Path) -> None:
    path, store = tmp_path / "a.tar", MemoryStore()
    path.write_bytes(b"old")
    await fill(store, IMAGE)
    layer = IMAGE.layers[0].descriptor
    store.content.blobs[layer.digest] = bytes(layer.size)
    sink = ArchiveSink(path, OciForm(), OwnStreams())
    with pytest.raises(StoreError, match="a blob was not written"):
        async with sink.begin() as writer:
            with pytest.raises(DigestMismatchError):
                await writer.put_blob(layer, StoreSource(store))
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"old", ["a.tar"])
    (tmp_path / "link").symlink_to("a.tar")
    await write(tmp_path / "link", "oci", [whole(IMAGE)])
    assert (tmp_path / "link").is_symlink()
    assert tarfile.is_tarfile(path)
    before = os.umask(0)
    os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~before


async def test_where_nothing_can_be_written_that_is_said_at_once(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "a.tar"):
        with pytest.raises(StoreError, match=str(path.parent)):
            async with ArchiveSink(path, OciForm(), OwnStreams()).begin():
                pass
    await write(Path("/dev/null"), "oci", [whole(IMAGE)])


async def test_docker_takes_container_images_of_one_platform(tmp_path: Path) -> None:
    index = Index.build([IMAGE])
    artifact = Artifact.build("application/x", b"content")
    async with ArchiveSink(tmp_path / "a.tar", DockerForm(), OwnStreams()).begin() as writer:
        with pytest.raises(UnsupportedError, match="a:1 is of several platforms"):
            await writer.name(WholeImage("a:1", index.descriptor, []))
        await writer.put_document(artifact.descriptor, artifact.manifest)
        with pytest.raises(UnsupportedError, match="is an artifact and no container image"):
            await writer.name(WholeImage("", artifact.descriptor, []))


async def test_docker_before_1_10_finds_images_of_format_v1(tmp_path: Path) -> None:
    """What they read is what is left without ``manifest.json``; a layer that two images have is one of theirs."""
    one, two = image_of("base", "one"), image_of("base", "two")
    await write(tmp_path / "a.tar", "docker", [whole(one, "r.test/one:1"), whole(two, "r.test/two:2")], one, two)
    with tarfile.open(tmp_path / "a.tar") as tar, tarfile.open(tmp_path / "old.tar", "w") as old:
        for member in tar.getmembers():
            if member.name not in ("manifest.json", "index.json", "oci-layout"):
                old.addfile(member, tar.extractfile(member) if member.isreg() else None)
        assert sum(name.endswith("/json") for name in tar.getnames()) == 3
    async with opened(tmp_path / "old.tar") as (archive, _):
        source = DockerArchiveSource(archive, Limits())
        found = {image.name: image.top for image in await source.names()}
        for (name, top), image in zip(found.items(), (one, two), strict=True):
            manifest = manifests.parse(await source.manifest(top), top.media_type)
            assert [layer.digest for layer in manifest.layers] == [layer.diff_id for layer in image.layers], name
    assert list(found) == ["r.test/one:1", "r.test/two:2"]
