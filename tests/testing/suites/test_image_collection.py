"""The suites of ``ImageCollection`` and ``BlobSource`` over every place without a registry.

Covers: layouts/directory_source.py, layouts/files_source.py.
"""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fastoci.image.descriptor import Descriptor
from fastoci.image.layout import OCI_LAYOUT, encode_index
from fastoci.image_interfaces import ImageCollection
from fastoci.interfaces import BlobSource
from fastoci.layouts.directory_source import DirectorySource
from fastoci.layouts.docker_archive_source import DockerArchiveSource
from fastoci.layouts.oci_archive_source import OciArchiveSource
from fastoci.layouts.oci_layout_source import OciLayoutSource
from fastoci.limits import Limits
from fastoci.testing.images import Image
from fastoci.testing.suites.blob_source import BlobSourceSuite
from fastoci.testing.suites.image_collection import ImageCollectionSuite
from support.archives import Members, hybrid, layout, opened, tar_bytes

Kind = type[OciArchiveSource] | type[DockerArchiveSource]


@asynccontextmanager
async def archive(
    members: Members, kind: Kind, *, stream: bool
) -> AsyncIterator[OciArchiveSource | DockerArchiveSource]:
    with TemporaryDirectory() as directory:
        path, data = Path(directory, "a.tar"), tar_bytes(members)
        path.write_bytes(gzip.compress(data, 1) if stream else data)
        async with opened(path) as (found, _):
            yield kind(found, Limits())


@asynccontextmanager
async def files(members: Members) -> AsyncIterator[Path]:
    """The members as files of a directory."""
    with TemporaryDirectory() as directory:
        for name, data in members:
            path = Path(directory, str(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        yield Path(directory)


def as_layout(blobs: Mapping[Descriptor, bytes]) -> Members:
    named = [(f"blobs/{blob.digest.algorithm}/{blob.digest.hex}", data) for blob, data in blobs.items()]
    return [("oci-layout", OCI_LAYOUT), *named, ("index.json", encode_index([]))]


class TestOciArchive(ImageCollectionSuite):
    def open(self, images: Mapping[str, Image]) -> AbstractAsyncContextManager[ImageCollection]:
        return archive(layout(images), OciArchiveSource, stream=False)


class TestOciArchiveStream(ImageCollectionSuite):
    def open(self, images: Mapping[str, Image]) -> AbstractAsyncContextManager[ImageCollection]:
        return archive(layout(images), OciArchiveSource, stream=True)


class TestDockerArchive(ImageCollectionSuite):
    def open(self, images: Mapping[str, Image]) -> AbstractAsyncContextManager[ImageCollection]:
        return archive(hybrid(images), DockerArchiveSource, stream=False)


class TestOciLayout(ImageCollectionSuite):
    @asynccontextmanager
    async def open(self, images: Mapping[str, Image]) -> AsyncIterator[ImageCollection]:
        async with files(layout(images)) as path, OciLayoutSource.open(path, Limits()) as source:
            yield source


class TestDirectory(ImageCollectionSuite):
    one = True

    @asynccontextmanager
    async def open(self, images: Mapping[str, Image]) -> AsyncIterator[ImageCollection]:
        (image,) = images.values()
        async with files([("manifest.json", image.manifest)]) as path, DirectorySource.open(path, Limits()) as source:
            yield source


class TestBlobsOfAnArchive(BlobSourceSuite):
    def open(self, blobs: Mapping[Descriptor, bytes]) -> AbstractAsyncContextManager[BlobSource]:
        return archive(as_layout(blobs), OciArchiveSource, stream=False)


class TestBlobsOfAStream(BlobSourceSuite):
    def open(self, blobs: Mapping[Descriptor, bytes]) -> AbstractAsyncContextManager[BlobSource]:
        return archive(as_layout(blobs), DockerArchiveSource, stream=True)


class TestBlobsOfALayout(BlobSourceSuite):
    @asynccontextmanager
    async def open(self, blobs: Mapping[Descriptor, bytes]) -> AsyncIterator[BlobSource]:
        async with files(as_layout(blobs)) as path, OciLayoutSource.open(path, Limits()) as source:
            yield source


class TestBlobsOfADirectory(BlobSourceSuite):
    @asynccontextmanager
    async def open(self, blobs: Mapping[Descriptor, bytes]) -> AsyncIterator[BlobSource]:
        named: Members = [(blob.digest.hex, data) for blob, data in blobs.items()]
        async with files(named) as path, DirectorySource.open(path, Limits()) as source:
            yield source
