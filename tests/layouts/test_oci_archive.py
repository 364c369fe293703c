"""Archives that are written once: what readers find in them, and what ends a writer.

Covers: layouts/archive_stream.py, layouts/docker_archive.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import tarfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import CopyImage
from fastoci.errors import BlobNotFoundError, IntegrityError, StoreError, UnsupportedError
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.mediatype import OCI_INDEX
from fastoci.image_interfaces import WholeImage
from fastoci.layouts.docker_archive import DockerArchive
from fastoci.layouts.oci_archive import OciArchive
from fastoci.store.store import Store
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.suites.filling import put
from fastoci.testing.suites.image_sink import contents, whole

IMAGE = Image.build([Layer.build([Entry("a", data=b"one" * 5000)]), Layer.build([Entry("b" * 150)])])
FORMS: dict[str, type[OciArchive] | type[DockerArchive]] = {"oci": OciArchive, "docker": DockerArchive}


class Hashing:
    """Runs work on a thread, with what hashes there; ``stop`` ends it."""

    def __init__(self) -> None:
        self.stopped = threading.Event()

    async def run(self, work: Callable[[Any, Callable[[], None]], None]) -> None:
        await asyncio.to_thread(work, self._find, self._check)

    def _check(self) -> None:
        if self.stopped.is_set():
            raise InterruptedError

    @staticmethod
    def _find(sources: Sequence[tuple[Descriptor, int]]) -> list[IntegrityError]:
        found = []
        for blob, fd in sources:
            data = os.pread(fd, blob.size, 0)
            if Digest.of(data) != blob.digest:
                subject = str(blob.digest)
                found.append(IntegrityError("is damaged", subject=subject, expected=subject, actual=""))
        return found


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    found = Store.at(tmp_path / "store")
    await put(found, contents(IMAGE))
    yield found
    found.close()


async def written(path: Path, form: str, store: Store, images: Sequence[WholeImage] | None = None) -> None:
    with path.open("wb") as file:
        sink = FORMS[form](file.fileno(), Hashing().run)
        await sink.put([whole(IMAGE)] if images is None else images, store)


@pytest.mark.parametrize("form", FORMS)
async def test_the_archive_has_each_blob_once_and_names_last(tmp_path: Path, store: Store, form: str) -> None:
    await written(tmp_path / "a.tar", form, store, [whole(IMAGE, "one:1"), whole(IMAGE, "two:2")])
    with tarfile.open(tmp_path / "a.tar") as tar:
        names = tar.getnames()
        blobs = {name: tar.extractfile(name) for name in names if name.startswith("blobs/")}
        assert all(Digest.of(file.read()).hex == name[-64:] for name, file in blobs.items() if file)
        index = json.loads(file.read()) if (file := tar.extractfile("index.json")) else {}
    assert len(names) == len(set(names)) == len(contents(IMAGE)) + (2 if form == "oci" else 3)
    assert names[-1] == ("index.json" if form == "oci" else "manifest.json")
    assert [each["annotations"]["org.opencontainers.image.ref.name"] for each in index["manifests"]] == [
        "one:1",
        "two:2",
    ]


@pytest.mark.parametrize("form", FORMS)
async def test_skopeo_reads_the_archive(tmp_path: Path, store: Store, copy_image: CopyImage, form: str) -> None:
    name = "registry.test/app:1"
    await written(tmp_path / "a.tar", form, store)
    await asyncio.to_thread(copy_image, f"{form}-archive:{tmp_path}/a.tar:{name}", f"dir:{tmp_path}/out")
    config = json.loads((tmp_path / "out/manifest.json").read_bytes())["config"]["digest"]
    assert config == str(Digest.of(IMAGE.config))


async def test_a_pipe_that_nobody_reads_does_not_keep_the_writer(store: Store) -> None:
    reader, writer = os.pipe()
    hashing = Hashing()
    try:
        large = Image.build([Layer.build([Entry("noise", data=os.urandom(300_000))])])
        await put(store, contents(large))
        writing = asyncio.create_task(OciArchive(writer, hashing.run).put([whole(large)], store))
        await asyncio.to_thread(select.select, [reader], [], [])
        hashing.stopped.set()
        with pytest.raises(InterruptedError):
            await writing
    finally:
        os.close(reader)
        os.close(writer)


async def test_a_reader_that_goes_away_is_told(store: Store) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(StoreError, match="cannot write the archive: Broken pipe"):
        await OciArchive(writer, Hashing().run).put([whole(IMAGE)], store)
    os.close(writer)


@pytest.mark.parametrize("form", FORMS)
async def test_a_damaged_blob_is_not_in_the_archive(tmp_path: Path, store: Store, form: str) -> None:
    layer = IMAGE.layers[0].descriptor
    path = store.path / "blobs/sha256" / layer.digest.hex
    path.chmod(0o644)
    path.write_bytes(bytes(layer.size))
    with pytest.raises(IntegrityError):
        await written(tmp_path / "a.tar", form, store)
    assert bytes(1000) not in (tmp_path / "a.tar").read_bytes()[-1000:]
    path.unlink()
    with pytest.raises(BlobNotFoundError):
        await written(tmp_path / "a.tar", form, store)


async def test_docker_takes_one_platform_a_name(tmp_path: Path, store: Store) -> None:
    index = WholeImage("a:1", Descriptor(OCI_INDEX, Digest.of(b"{}"), 2), [])
    with pytest.raises(UnsupportedError, match="several platforms"):
        await written(tmp_path / "a.tar", "docker", store, [index])
