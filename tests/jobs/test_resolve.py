"""What an index may have a pull read: each digest once, and no more documents, levels or bytes than the limits say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

import fastoci
from fastoci.errors import FormatError, PlatformError
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.platform import Platform
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve

USUAL = fastoci.Limits()


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        yield registry


class Documents:
    """Indexes of anything, served as one repository."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.name = f"{registry.address}/nested"

    def index(self, entries: Sequence[Descriptor], *, note: str = "", tag: str = "") -> Descriptor:
        """An index of these entries; ``note`` makes it another document, ``tag`` gives it a name."""
        form = {"schemaVersion": 2, "manifests": [encode(entry) for entry in entries], "annotations": {"note": note}}
        data = json.dumps(form).encode()
        made = Descriptor.of(data, mediatype.OCI_INDEX)
        for reference in (str(made.digest), *([tag] if tag else [])):
            self._registry.add_manifest("nested", reference, made.media_type, data, digest=str(made.digest))
        return made

    def image(self, platform: str) -> Descriptor:
        image = Image.build([Layer.build([Entry("file", "file", b"")])], platform=Platform.parse(platform))
        self._registry.add_image("nested", platform.replace("/", "-"), image)
        return image.descriptor

    @property
    def asked(self) -> list[str]:
        return [record.path.rpartition("/")[2] for record in self._registry.log if "/manifests/" in record.path]


@pytest.fixture
def documents(registry: Registry) -> Documents:
    return Documents(registry)


async def pull(documents: Documents, store: Path, limits: fastoci.Limits = USUAL) -> fastoci.Image:
    async with fastoci.Engine(store, limits=limits) as engine:
        return await engine.pull(documents.name, platform="linux/amd64")


@pytest.mark.attack
async def test_a_document_that_an_index_names_a_thousand_times_is_asked_for_once(
    documents: Documents, tmp_path: Path
) -> None:
    level = documents.index([])
    below = [level]
    for tag in ("", "", "latest"):
        level = documents.index([level] * 1000, tag=tag)
        below.append(level)
    with pytest.raises(PlatformError, match="it has none"):
        await pull(documents, tmp_path)
    assert documents.asked == ["latest", *(str(each.digest) for each in reversed(below[:-1]))]


@pytest.mark.attack
async def test_an_index_that_leads_to_more_documents_than_the_limit_is_refused(
    documents: Documents, tmp_path: Path
) -> None:
    documents.index([documents.index([], note=str(number)) for number in range(1000)], tag="latest")
    with pytest.raises(FormatError, match=f"more than {USUAL.documents} documents"):
        await pull(documents, tmp_path)
    assert len(documents.asked) == USUAL.documents


@pytest.mark.attack
async def test_an_index_that_leads_to_more_bytes_than_the_limit_is_refused(
    documents: Documents, tmp_path: Path
) -> None:
    documents.index([documents.index([], note=str(number) * 1_000_000) for number in range(9)], tag="latest")
    with pytest.raises(FormatError, match="more than 4194304 bytes of documents"):
        await pull(documents, tmp_path, msgspec.structs.replace(USUAL, documents_size=4 << 20))
    assert len(documents.asked) == 5  # the top and four of the nine


@pytest.mark.attack
async def test_an_index_of_more_entries_than_the_limit_is_refused(documents: Documents, tmp_path: Path) -> None:
    image = documents.image("linux/amd64")
    limits = msgspec.structs.replace(USUAL, index_entries=10)
    documents.index([image] * 10, tag="latest")
    assert (await pull(documents, tmp_path, limits)).manifest_descriptor.digest == image.digest
    documents.index([image] * 11, tag="latest")
    with pytest.raises(FormatError, match="an index of 11 entries, more than 10"):
        await pull(documents, tmp_path, limits)


@pytest.mark.parametrize(("levels", "refused"), [(4, False), (5, True)])
async def test_indexes_are_followed_as_deep_as_the_limit_and_no_deeper(
    documents: Documents, tmp_path: Path, levels: int, refused: bool
) -> None:
    image = documents.image("linux/amd64")
    level = image
    for left in range(levels, 0, -1):
        level = documents.index([level], note=str(left), tag="latest" if left == 1 else "")
    if refused:
        with pytest.raises(FormatError, match="nested more than 4 deep"):
            await pull(documents, tmp_path)
    else:
        assert (await pull(documents, tmp_path)).manifest_descriptor.digest == image.digest


async def test_the_first_index_that_has_the_platform_holds(documents: Documents, tmp_path: Path) -> None:
    wanted = documents.image("linux/amd64")
    other = documents.index([documents.image("linux/arm64")])
    deeper = documents.index([documents.index([], note="empty"), documents.index([wanted], note="wanted")])
    documents.index([other, deeper, documents.index([wanted], note="later")], tag="latest")
    async with fastoci.Engine(tmp_path) as engine:
        image = await engine.pull(documents.name, platform="linux/amd64")
        assert image.manifest_descriptor.digest == wanted.digest
        (ref,) = await engine.images()
        assert list(ref.images) == ["linux/amd64"]
        assert (await engine.plan_gc()).items == ()
    assert len(documents.asked) == 6


async def test_of_very_many_platforms_the_message_names_some(documents: Documents, tmp_path: Path) -> None:
    image = documents.image("linux/arm64")
    entries = [replace(image, platform=Platform(f"system{number}", "x" * 1000)) for number in range(1000)]
    documents.index(entries, tag="latest")
    with pytest.raises(PlatformError, match="and 968 more") as caught:
        await pull(documents, tmp_path)
    assert len(str(caught.value)) < 5_000
    assert len(caught.value.available) == 1000


async def test_a_manifest_that_an_index_gives_dockers_type_is_pulled_as_what_it_says(
    documents: Documents, tmp_path: Path
) -> None:
    image = documents.image("linux/amd64")
    documents.index([replace(image, media_type=mediatype.DOCKER_MANIFEST)], tag="latest")
    async with fastoci.Engine(tmp_path / "store") as engine:
        pulled = await engine.pull(documents.name, platform="linux/amd64")
        assert await engine.gc() == ()
        await (await engine.image(documents.name)).unpack(tmp_path / "root")
        assert pulled.manifest_descriptor.digest == image.digest
    assert (tmp_path / "root" / "file").is_file()


async def test_a_broken_entry_of_an_index_is_named_only_when_nothing_else_is_found(
    documents: Documents, tmp_path: Path, registry: Registry
) -> None:
    image = documents.image("linux/amd64")
    broken = {"mediaType": mediatype.OCI_MANIFEST, "digest": "blake3:" + "0" * 64, "size": 1}
    data = json.dumps({"schemaVersion": 2, "manifests": [broken, encode(image)]}).encode()
    registry.add_manifest("nested", "latest", mediatype.OCI_INDEX, data)
    pulled = await pull(documents, tmp_path)
    assert pulled.manifest_descriptor.digest == image.digest
    async with fastoci.Engine(tmp_path) as engine:
        assert await engine.gc() == ()
        with pytest.raises(PlatformError, match=r"linux/arm64; it has linux/amd64; .*manifests\[0\]: .*'blake3'"):
            await engine.pull(documents.name, platform="linux/arm64")
