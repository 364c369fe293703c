"""Images in directories of skopeo's ``dir:``: the suite, and what becomes of what was there.

Covers: layouts/blob_files.py.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import CopyImage
from fastoci.errors import StoreError, UnsupportedError
from fastoci.image.descriptor import Descriptor
from fastoci.image.mediatype import OCI_MANIFEST
from fastoci.image_interfaces import ImageSink, WholeImage
from fastoci.layouts.directory import VERSION_1_1, Directory
from fastoci.testing.images import Image, Index
from fastoci.testing.memory_store import MemoryStore
from fastoci.testing.suites.image_sink import NAME, ImageSinkSuite, bring, fill, image_of, whole
from support.streaming import OwnStreams, run_hashing


def sink(directory: Path) -> ImageSink:
    return Directory(directory, run_hashing, OwnStreams())


class TestDirectory(ImageSinkSuite):
    one = True

    def open(self, directory: Path) -> ImageSink:
        return sink(directory)

    def names(self, directory: Path) -> Mapping[str, Descriptor]:
        return {NAME: Descriptor.of((directory / "manifest.json").read_bytes(), OCI_MANIFEST)}

    def read(self, directory: Path, blob: Descriptor) -> bytes | None:
        hidden = [name for name in os.listdir(directory) if name.startswith(".")]
        assert not hidden, f"unfinished files are left: {hidden}"
        if blob.media_type == OCI_MANIFEST:
            return (directory / "manifest.json").read_bytes()
        with suppress(FileNotFoundError):
            return (directory / blob.digest.hex).read_bytes()
        return None


async def write(directory: Path, *images: Image, of: WholeImage | None = None) -> None:
    store = MemoryStore()
    await fill(store, *images)
    await bring(sink(directory), [of or whole(image) for image in images[:1]], store)


async def test_what_another_image_had_goes_and_what_is_no_part_of_one_stays(tmp_path: Path) -> None:
    one, two = image_of(1), image_of(2)
    await write(tmp_path / "d", one)
    (tmp_path / "d" / "signature-1").write_bytes(b"of one")
    (tmp_path / "d" / "notes").write_bytes(b"of the user")
    await write(tmp_path / "d", two)
    blobs = {descriptor.digest.hex for descriptor, _ in two.blobs()}
    assert set(os.listdir(tmp_path / "d")) == {"manifest.json", "version", "notes", *blobs}
    assert (tmp_path / "d" / "version").read_bytes() == VERSION_1_1


async def test_what_is_no_such_directory_is_left_alone(tmp_path: Path) -> None:
    for name, data in (("file", b""), ("version", b"1.0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(data)
        with pytest.raises(StoreError, match="neither empty nor a directory of dir:"):
            await write(tmp_path / name, image_of(1))
        assert os.listdir(tmp_path / name) == [name]


async def test_a_directory_takes_one_image(tmp_path: Path) -> None:
    one, two, store = image_of(1), image_of(2), MemoryStore()
    await fill(store, one, two)
    await bring(sink(tmp_path / "d"), [whole(one), whole(one, "a:2")], store)
    with pytest.raises(UnsupportedError, match="takes one image: dir: has no names"):
        await bring(sink(tmp_path / "d"), [whole(one), whole(two)], store)
    assert (tmp_path / "d" / "manifest.json").read_bytes() == one.manifest


async def test_skopeo_reads_an_index_with_its_manifests(tmp_path: Path, copy_image: CopyImage) -> None:
    images = image_of(1), image_of(2)
    index = Index.build(images)
    parts = [descriptor for image in images for descriptor in whole(image).blobs]
    async with sink(tmp_path / "d").begin() as writer:
        for image in images:
            for descriptor, data in (*image.blobs(), *image.documents()):
                assert isinstance(data, bytes)
                await writer.put_document(descriptor, data)
        await writer.put_document(index.descriptor, index.index)
        await writer.name(WholeImage("", index.descriptor, [*parts, index.descriptor]))
    await asyncio.to_thread(copy_image, f"dir:{tmp_path}/d", f"oci:{tmp_path}/out:all", "--all")
    entries = json.loads((tmp_path / "out" / "index.json").read_bytes())["manifests"]
    assert [each["digest"] for each in entries] == [str(index.descriptor.digest)]
