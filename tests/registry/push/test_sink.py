"""The suite of ``ImageSink`` over a repository of the loopback registry, whose tags are the suite's names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from fastoci.errors import UnsupportedError
from fastoci.image.descriptor import Descriptor
from fastoci.image.reference import Reference
from fastoci.image_interfaces import ImageSink, WholeImage
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.push.sink import RegistrySink, RegistryWriter
from fastoci.testing.registry import Registry as Server
from fastoci.testing.registry import serve
from fastoci.testing.suites.image_sink import ImageSinkSuite, image_of, whole
from fastoci.testing.uploads import Uploads
from support.streaming import streams

PATH = "team/app"


class _Writer(RegistryWriter):
    """Gives the suite's names, which are of many repositories, to tags of one."""

    async def name(self, image: WholeImage) -> None:
        tag = image.name.replace("/", "__").replace(":", "--")
        await super().name(msgspec.structs.replace(image, name=f"{self.repository.name}:{tag}"))


class _Sink:
    """A sink that opens its client for each time."""

    def __init__(self, address: str) -> None:
        self.name = f"{address}/{PATH}"

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[RegistryWriter]:
        async with streams() as streaming, Registry(credentials=Credentials()) as client:
            repository = client.destination(Reference.parse(self.name), streaming)
            async with RegistrySink(repository, streaming, writer=_Writer).begin() as writer:
                yield writer


class TestRegistry(ImageSinkSuite):
    uploads: dict[Path, Uploads]
    addresses: dict[Path, str]
    running: ExitStack

    @pytest.fixture(autouse=True)
    def servers(self) -> Iterator[None]:
        self.uploads, self.addresses = {}, {}
        with ExitStack() as self.running:
            yield

    def open(self, directory: Path) -> ImageSink:
        if directory not in self.uploads:
            directory.mkdir()
            self.uploads[directory] = Uploads(directory)
            server = self.running.enter_context(serve(Server(uploads=self.uploads[directory])))
            self.addresses[directory] = server.address
        return _Sink(self.addresses[directory])

    def names(self, directory: Path) -> Mapping[str, Descriptor]:
        uploads = self.uploads[directory]
        found = {}
        for tag in uploads.references(PATH):
            document = uploads.manifest(PATH, tag)
            assert document is not None
            if ":" not in tag:
                name = tag.replace("__", "/").replace("--", ":")
                found[name] = Descriptor.of(document.data, document.media_type)
        return found

    def read(self, directory: Path, blob: Descriptor) -> bytes | None:
        uploads = self.uploads[directory]
        path, document = uploads.blob(PATH, str(blob.digest)), uploads.manifest(PATH, str(blob.digest))
        if document is not None:
            return document.data
        return None if path is None else path.read_bytes()


async def test_a_name_of_another_repository_is_refused_and_one_without_a_tag_gives_none(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    image = image_of(1)
    async with Server(uploads=uploads) as server, streams() as streaming, Registry(credentials=Credentials()) as client:
        repository = client.destination(Reference.parse(f"{server.address}/{PATH}:1"), streaming)
        with pytest.raises(UnsupportedError, match="cannot be the name of an image"):
            async with RegistrySink(repository, streaming).begin() as writer:
                await writer.name(whole(image, "registry.test/other:1"))
        async with RegistrySink(repository, streaming).begin() as writer:
            await writer.name(whole(image, ""))
        assert list(uploads.references(PATH)) == []
