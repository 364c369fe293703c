"""What hangs on an image is found, with what hangs on that; a registry that lies about it gains nothing.

Covers: testing/referrers.py.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from fastoci.errors import FormatError
from fastoci.image import index, mediatype
from fastoci.image.attachments import Attachment, attestations, cosign_tags, referrer_of, referrers_tag
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.layout import REF_NAME
from fastoci.image.reference import Reference
from fastoci.image_interfaces import NamedImage
from fastoci.jobs.attachments import Attached, CollectionAttachments, find_attachments
from fastoci.limits import Limits
from fastoci.registry import client
from fastoci.registry.auth.credentials import Credentials
from fastoci.testing.images import Artifact, Image, write_layout
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry

SBOM, SIGNATURE = "application/vnd.example.sbom", "application/vnd.cncf.notary.signature"
ALL = Attached(referrers=True, signatures=True)


class Shelf:
    """One repository with an image, and what hangs on it."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.image = Image.build([Layer.build([Entry("file", "file", b"")])])
        self.warnings: list[str] = []
        registry.add_image("app", "latest", self.image)

    def hang(self, kind: str, on: Descriptor | None = None, *, note: bytes = b"") -> Descriptor:
        """An artifact that hangs on a document, by default the image."""
        made = Artifact.build(kind, note, subject=on or self.image.descriptor)
        self.registry.add_image("app", "", made)
        return made.descriptor

    def tag(self, tag: str, descriptor: Descriptor, data: bytes) -> None:
        self.registry.add_manifest("app", tag, descriptor.media_type, data, digest=str(descriptor.digest))

    def list_as(self, subject: Descriptor, *entries: Descriptor) -> None:
        """What the tag for registries without a list says."""
        data = json.dumps({"schemaVersion": 2, "manifests": [encode(each) for each in entries]}).encode()
        self.tag(referrers_tag(subject.digest), Descriptor.of(data, mediatype.OCI_INDEX), data)

    async def find(self, wanted: Attached = ALL, limits: Limits | None = None) -> list[Attachment]:
        async with client.Registry(credentials=Credentials()) as registry:
            repository = registry.repository(Reference.parse(f"{self.registry.address}/app"))
            subjects = [self.image.descriptor.digest]
            return [*await find_attachments(subjects, repository, wanted, limits or Limits(), self.warnings.append)]

    async def digests(self, wanted: Attached = ALL, limits: Limits | None = None) -> list[Digest]:
        return [each.descriptor.digest for each in await self.find(wanted, limits)]


@pytest.fixture(params=[True, False], ids=["by the list", "by the tag"])
async def shelf(request: pytest.FixtureRequest) -> AsyncIterator[Shelf]:
    async with Registry(referrers=request.param) as registry:
        yield Shelf(registry)


@pytest.fixture
async def old() -> AsyncIterator[Shelf]:
    """A registry where the tag is all that says what hangs on an image: whoever pushes writes it."""
    async with Registry(referrers=False) as registry:
        yield Shelf(registry)


async def test_what_hangs_on_a_referrer_is_found_behind_it(shelf: Shelf) -> None:
    sbom = shelf.hang(SBOM)
    signature = shelf.hang(SIGNATURE, sbom)
    shelf.list_as(shelf.image.descriptor, sbom)
    shelf.list_as(sbom, signature)
    found = await shelf.find()
    assert [(each.descriptor.digest, each.subject) for each in found] == [
        (sbom.digest, shelf.image.descriptor.digest),
        (signature.digest, sbom.digest),
    ]
    assert shelf.warnings == []


async def test_signatures_alone_are_found_on_request(shelf: Shelf) -> None:
    sbom, signature = shelf.hang(SBOM), shelf.hang(SIGNATURE)
    shelf.list_as(shelf.image.descriptor, sbom, signature)
    assert await shelf.digests(Attached(signatures=True)) == [signature.digest]


async def test_what_cosign_keeps_under_tags_is_found_with_the_signatures(shelf: Shelf) -> None:
    tags = cosign_tags(shelf.image.descriptor.digest)
    for tag in tags:
        made = Artifact.build("application/vnd.dev.cosign.simplesigning.v1+json", tag.encode())
        shelf.tag(tag, made.descriptor, made.manifest)
    assert [each.tag for each in await shelf.find(Attached(signatures=True))] == [*tags]
    assert await shelf.find(Attached(referrers=True)) == []


async def test_what_does_not_say_that_it_hangs_there_is_left_out_with_a_warning(old: Shelf) -> None:
    stranger, true = old.hang(SBOM, Descriptor.of(b"other", mediatype.OCI_MANIFEST)), old.hang(SBOM)
    old.list_as(old.image.descriptor, stranger, true)
    assert await old.digests() == [true.digest]
    assert len(old.warnings) == 1
    assert f"{stranger.digest} is listed as a referrer of {old.image.descriptor.digest}, and is none" in old.warnings[0]


async def test_what_is_no_manifest_is_left_out_with_a_warning(old: Shelf) -> None:
    old.list_as(old.image.descriptor, replace(Descriptor.of(b"?", "text/plain"), artifact_type=SBOM))
    assert await old.digests() == []
    assert "'text/plain': it is left out" in old.warnings[0]


async def test_an_image_that_is_listed_as_hanging_on_itself_ends_the_search(old: Shelf) -> None:
    old.list_as(old.image.descriptor, old.image.descriptor, sbom := old.hang(SBOM))
    old.list_as(sbom, sbom, old.image.descriptor)
    assert await old.digests() == [sbom.digest]


async def test_what_hangs_deeper_than_the_limit_is_an_error(shelf: Shelf) -> None:
    on = shelf.image.descriptor
    for _ in range(3):
        below, on = on, shelf.hang(SBOM, on)
        shelf.list_as(below, on)
    assert len(await shelf.digests(limits=msgspec.structs.replace(Limits(), index_depth=3))) == 3
    with pytest.raises(FormatError, match="more than 2 deep"):
        await shelf.digests(limits=msgspec.structs.replace(Limits(), index_depth=2))


async def test_more_documents_or_bytes_than_the_limit_are_an_error(shelf: Shelf) -> None:
    hung = [shelf.hang(SBOM, note=str(number).encode()) for number in range(3)]
    shelf.list_as(shelf.image.descriptor, *hung)
    size = sum(each.size for each in hung)
    assert len(await shelf.digests(limits=msgspec.structs.replace(Limits(), attachments=3, documents_size=size))) == 3
    for limits, text in (
        (msgspec.structs.replace(Limits(), attachments=2), "more than 2 documents hang on the image"),
        (msgspec.structs.replace(Limits(), documents_size=size - 1), "bytes of documents hang on the image"),
    ):
        with pytest.raises(FormatError, match=text):
            await shelf.digests(limits=limits)


def test_attestations_are_the_entries_that_name_the_image() -> None:
    image, other = Descriptor.of(b"1", mediatype.OCI_MANIFEST), Descriptor.of(b"2", mediatype.OCI_MANIFEST)
    kind, of = "vnd.docker.reference.type", "vnd.docker.reference.digest"
    notes = {kind: "attestation-manifest", of: str(image.digest)}
    its, others = replace(other, annotations=notes), replace(other, annotations={**notes, of: str(other.digest)})
    assert attestations([image, its, others, replace(its, annotations={of: str(image.digest)})], image.digest) == [its]


class Layout:
    """An ``ImageCollection`` of a layout's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.read: list[Digest] = []

    async def names(self) -> tuple[NamedImage, ...]:
        entries = index.parse((self.directory / "index.json").read_bytes(), mediatype.OCI_INDEX).manifests
        return tuple(NamedImage(entry.annotations.get(REF_NAME, ""), entry) for entry in entries)

    async def manifest(self, descriptor: Descriptor) -> bytes:
        self.read.append(descriptor.digest)
        return (self.directory / "blobs" / descriptor.digest.algorithm / descriptor.digest.hex).read_bytes()


async def of_layout(directory: Path, name: str) -> list[str]:
    """What hangs on an image of a layout and on its manifests, as types and tags."""
    layout = Layout(directory)
    top = next(image.top for image in await layout.names() if image.name == name)
    subjects = [top.digest]
    if top.media_type in mediatype.INDEXES:
        below = index.parse(await layout.manifest(top), top.media_type).manifests
        subjects += [entry.digest for entry in below]
    source = CollectionAttachments(layout, Limits())
    found = await find_attachments(subjects, source, ALL, Limits(), lambda text: pytest.fail(text))
    return [each.tag or referrer_of(each.descriptor, each.data).artifact_type for each in found]


async def test_referrers_of_a_layout_are_found_by_their_subject_and_by_the_tag(shared: Path) -> None:
    layout = shared / "images/layouts/regclient-testrepo"
    arms = ["application/example.arms"] * 3  # named by their tags alone, one for each platform
    assert await of_layout(layout, "v2") == ["application/example.sbom", "application/example.signature", *arms]
    assert await of_layout(layout, "v3") == ["application/example.sbom"] * 2
    assert await of_layout(layout, "b1") == []


async def test_an_index_that_hangs_on_its_own_manifest_ends_the_search(shared: Path) -> None:
    for layout in ("regclient-testrepo", "olareg-testrepo"):
        assert await of_layout(shared / "images/layouts" / layout, "child") == ["application/example.loop"]
        assert await of_layout(shared / "images/layouts" / layout, "loop") == []


async def test_an_image_whose_tag_is_that_of_its_own_referrers_has_none(shared: Path) -> None:
    assert await of_layout(shared / "images/layouts/olareg-testrepo", "mirror") == []


async def test_cosigns_tags_are_found_in_a_layout_alone_or_behind_a_repository(tmp_path: Path) -> None:
    image = Image.build([Layer.build([Entry("file", "file", b"")])])
    tags = cosign_tags(image.descriptor.digest)
    signature, sbom = Artifact.build("a/b", b"1"), Artifact.build("a/b", b"2")
    write_layout({"app": image, tags[0]: signature, f"registry.test/app:{tags[2]}": sbom}, tmp_path)
    assert await of_layout(tmp_path, "app") == [tags[0], tags[2]]
