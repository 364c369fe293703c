"""Copies with what hangs on an image: to a layout, to the store and back, and to a registry."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import aiohttp
import pytest
from msgspec.structs import replace

from fastoci import CopyOptions, Engine
from fastoci.errors import FormatError, NotFoundError
from fastoci.events import Event, ImagePlanned, Warned
from fastoci.image import mediatype
from fastoci.image.attachments import cosign_tags
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.layout import REF_NAME
from fastoci.image.platform import Platform
from fastoci.testing.images import Artifact, Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry
from fastoci.testing.uploads import Uploads

SBOM, SIGNATURE = "application/vnd.example.sbom", "application/vnd.cncf.notary.signature"
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
T = TypeVar("T", Image, Artifact)
ALL = CopyOptions(platforms=("all",), referrers=True, signatures=True)
ARM = Platform("linux", "arm64")
KIND, OF = "vnd.docker.reference.type", "vnd.docker.reference.digest"


def image(name: str, platform: Platform) -> Image:
    return Image.build([Layer.build([Entry(name, "file", name.encode())])], platform=platform)


AMD, OTHER = image("amd", Platform("linux", "amd64")), image("arm", ARM)


class Shelf:
    """An index of two images with attestations, and what hangs on the index and on one of the images."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.name = f"docker://{registry.address}/app:1"
        self.parts: set[str] = set()
        self.attestations = [self._add(Artifact.build("in-toto", each.manifest)) for each in (AMD, OTHER)]
        rows = [each.descriptor for each in (AMD, OTHER)]
        unknown = Platform("unknown", "unknown")
        for attestation, of in zip(self.attestations, (AMD, OTHER), strict=True):
            notes = {KIND: "attestation-manifest", OF: str(of.descriptor.digest)}
            rows.append(replace(attestation.descriptor, platform=unknown, annotations=notes, artifact_type=""))
        data = json.dumps(
            {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [encode(each) for each in rows]}
        ).encode()
        self.index = Descriptor.of(data, mediatype.OCI_INDEX)
        for each in (AMD, OTHER):
            self._add(each)
        for reference in ("1", str(self.index.digest)):
            registry.add_manifest("app", reference, self.index.media_type, data, digest=str(self.index.digest))
        self.parts.add(str(self.index.digest))
        self.sbom = self._add(Artifact.build(SBOM, b"sbom", subject=self.index))
        self.signature = self._add(Artifact.build(SIGNATURE, b"signed", subject=self.sbom.descriptor))
        self.of_arm = self._add(Artifact.build(SBOM, b"arm", subject=OTHER.descriptor))
        self.tag = cosign_tags(self.index.digest)[0]
        self.cosign = self._add(Artifact.build(SIMPLE, b"cosign"), self.tag)

    def _add(self, made: T, tag: str = "") -> T:
        self.registry.add_image("app", tag, made)
        self.parts |= {str(each.digest) for each, _ in (*made.documents(), *made.blobs())}
        return made


@pytest.fixture
async def shelf() -> AsyncIterator[Shelf]:
    async with Registry() as registry:
        yield Shelf(registry)


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
async def engine(tmp_path: Path, events: list[Event]) -> AsyncIterator[Engine]:
    async with Engine(tmp_path / "store", observer=events.append) as engine:
        yield engine


def entries(layout: Path) -> list[tuple[str, Digest]]:
    rows = json.loads((layout / "index.json").read_bytes())["manifests"]
    return [(row.get("annotations", {}).get(REF_NAME, ""), Digest.parse(row["digest"])) for row in rows]


def blobs(layout: Path) -> set[str]:
    found = {f"sha256:{path.name}": path.read_bytes() for path in (layout / "blobs/sha256").iterdir()}
    assert {str(Digest.of(data)) for data in found.values()} == set(found)
    return set(found)


def hanging(shelf: Shelf, name: str) -> list[tuple[str, Digest]]:
    return [
        (name, shelf.index.digest),
        ("", shelf.sbom.descriptor.digest),
        (shelf.tag, shelf.cosign.descriptor.digest),
        ("", shelf.of_arm.descriptor.digest),
        ("", shelf.signature.descriptor.digest),
    ]


async def test_all_that_hangs_on_an_image_comes_to_a_layout(shelf: Shelf, engine: Engine, tmp_path: Path) -> None:
    copied = await engine.copy(shelf.name, f"oci:{tmp_path}/layout:app", ALL)
    assert copied.descriptor.digest == shelf.index.digest
    assert entries(tmp_path / "layout") == hanging(shelf, "app")
    assert blobs(tmp_path / "layout") == shelf.parts


async def test_from_layout_to_layout_all_of_it_stays(shelf: Shelf, engine: Engine, tmp_path: Path) -> None:
    await engine.copy(shelf.name, f"oci:{tmp_path}/first:app", ALL)
    await engine.copy(f"oci:{tmp_path}/first:app", f"oci:{tmp_path}/second:again", ALL)
    assert entries(tmp_path / "second") == hanging(shelf, "again")
    assert blobs(tmp_path / "second") == shelf.parts


async def test_the_store_keeps_what_hangs_on_an_image_by_name_and_gives_it_back(
    shelf: Shelf, engine: Engine, tmp_path: Path
) -> None:
    await engine.copy(shelf.name, "store:registry.test/app:1", ALL)
    names = {image.name for image in await engine.images()}
    digests = [each.descriptor.digest for each in (shelf.sbom, shelf.signature, shelf.of_arm)]
    assert names == {
        "registry.test/app:1",
        f"registry.test/app:{shelf.tag}",
        *(f"registry.test/app@{digest}" for digest in digests),
    }
    assert await engine.gc() == ()
    await engine.copy("store:registry.test/app:1", f"oci:{tmp_path}/layout:app", ALL)
    assert set(entries(tmp_path / "layout")) == set(hanging(shelf, "app"))
    assert blobs(tmp_path / "layout") == shelf.parts


@pytest.fixture(params=[True, False], ids=["with lists", "with tags"])
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry to push to: it lists referrers, or has them listed under tags."""
    (tmp_path / "uploads").mkdir()
    uploads = Uploads(tmp_path / "uploads", subjects=request.param)
    async with Registry(uploads=uploads, referrers=request.param) as registry:
        yield registry


async def test_a_registry_lists_what_hangs_on_an_image_then(
    shelf: Shelf, target: Registry, engine: Engine, tmp_path: Path
) -> None:
    name = f"docker://{target.address}/mirror/app:2"
    await engine.copy(shelf.name, name, ALL)
    await engine.copy(name, f"oci:{tmp_path}/layout:app", ALL)
    assert entries(tmp_path / "layout") == hanging(shelf, "app")
    assert blobs(tmp_path / "layout") == shelf.parts
    assert (await target.manifest("mirror/app", "2")).digest == str(shelf.index.digest)  # type: ignore[union-attr]


async def test_a_referrer_that_is_there_and_not_listed_is_listed_by_the_next_copy(
    shelf: Shelf, engine: Engine, tmp_path: Path
) -> None:
    """As who was killed between the manifest and the tag left it."""
    (tmp_path / "uploads").mkdir()
    async with Registry(uploads=Uploads(tmp_path / "uploads", subjects=False), referrers=False) as target:
        name = f"docker://{target.address}/app:1"
        await engine.copy(shelf.name, name, ALL)
        tag = f"sha256-{shelf.index.digest.hex}"
        address = f"http://{target.address}/v2/app/manifests/{tag}"
        async with aiohttp.ClientSession() as client, client.delete(address) as deleted:
            assert deleted.status == 202, await deleted.text()
        await engine.copy(shelf.name, name, ALL)
        await engine.copy(name, f"oci:{tmp_path}/layout:app", ALL)
    assert entries(tmp_path / "layout") == hanging(shelf, "app")


async def test_signatures_come_without_the_rest(shelf: Shelf, engine: Engine, tmp_path: Path) -> None:
    only = CopyOptions(platforms=("all",), signatures=True)
    direct = Artifact.build(SIGNATURE, b"direct", subject=shelf.index)
    shelf.registry.add_image("app", "", direct)
    await engine.copy(shelf.name, f"oci:{tmp_path}/layout:app", only)
    assert entries(tmp_path / "layout")[1:] == [
        ("", direct.descriptor.digest),
        (shelf.tag, shelf.cosign.descriptor.digest),
    ]


async def test_without_a_request_nothing_is_looked_for(shelf: Shelf, engine: Engine, tmp_path: Path) -> None:
    await engine.copy(shelf.name, f"oci:{tmp_path}/layout:app", CopyOptions(platforms=("all",)))
    assert entries(tmp_path / "layout") == [("app", shelf.index.digest)]
    asked = [record.path for record in shelf.registry.log]
    assert not any("/referrers/" in path or "sha256-" in path for path in asked)


async def test_what_is_there_already_is_fetched_once(
    shelf: Shelf, engine: Engine, events: list[Event], tmp_path: Path
) -> None:
    await engine.copy(shelf.name, f"oci:{tmp_path}/layout:app", ALL)
    before = len(shelf.registry.log)
    copied = await engine.copy(shelf.name, f"oci:{tmp_path}/layout:app", ALL)
    assert not any("/blobs/" in record.path for record in shelf.registry.log[before:])
    assert (copied.brought, copied.sent) == (0, 0)
    assert entries(tmp_path / "layout") == hanging(shelf, "app")
    assert len([each for each in events if isinstance(each, ImagePlanned)]) == 2


async def test_one_platform_takes_what_hangs_on_its_manifest(shelf: Shelf, engine: Engine, tmp_path: Path) -> None:
    arm = CopyOptions(platforms=("linux/arm64",), referrers=True, signatures=True)
    await engine.copy(shelf.name, f"oci:{tmp_path}/layout:app", arm)
    assert entries(tmp_path / "layout") == [
        ("app", OTHER.descriptor.digest),
        ("", shelf.of_arm.descriptor.digest),
    ]


@pytest.mark.parametrize("referrers", [True, False])
async def test_several_platforms_take_their_attestations_with_the_referrers(
    shelf: Shelf, engine: Engine, tmp_path: Path, referrers: bool
) -> None:
    third = image("386", Platform("linux", "386"))
    shelf.registry.add_image("app", "", third)
    rows = json.loads((await shelf.registry.manifest("app", "1")).data)["manifests"]  # type: ignore[union-attr]
    data = json.dumps({"schemaVersion": 2, "manifests": [encode(third.descriptor), *rows]}).encode()
    shelf.registry.add_manifest("app", "3", mediatype.OCI_INDEX, data, digest=str(Digest.of(data)))
    both = CopyOptions(platforms=("linux/arm64", "linux/386"), referrers=referrers)
    await engine.copy(shelf.name[:-1] + "3", f"oci:{tmp_path}/layout:app", both)
    made = (tmp_path / "layout/blobs/sha256" / entries(tmp_path / "layout")[0][1].hex).read_bytes()
    found = [Digest.parse(row["digest"]) for row in json.loads(made)["manifests"]]
    attested = [shelf.attestations[1].descriptor.digest] if referrers else []
    assert found == [OTHER.descriptor.digest, third.descriptor.digest, *attested]


async def test_a_liar_among_the_referrers_is_left_out_with_a_warning(
    engine: Engine, events: list[Event], tmp_path: Path
) -> None:
    async with Registry(referrers=False) as registry:
        shelf = Shelf(registry)
        entry = encode(shelf.of_arm.descriptor)
        data = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
        tag = f"sha256-{shelf.index.digest.hex}"
        registry.add_manifest("app", tag, mediatype.OCI_INDEX, data, digest=str(Digest.of(data)))
        await engine.copy(shelf.name, f"oci:{tmp_path}/layout:app", CopyOptions(platforms=("all",), referrers=True))
    assert entries(tmp_path / "layout") == [("app", shelf.index.digest)]
    assert [
        f"{shelf.of_arm.descriptor.digest} is listed" in each.message for each in events if isinstance(each, Warned)
    ]


async def test_an_attachment_that_is_gone_fails_the_copy_and_names_nothing(
    shelf: Shelf, engine: Engine, tmp_path: Path
) -> None:
    shelf.registry.remove_blob(str(Digest.of(b"sbom")))
    with pytest.raises(NotFoundError):
        await engine.copy(shelf.name, f"oci:{tmp_path}/layout:app", ALL)
    assert not (tmp_path / "layout/index.json").exists() or entries(tmp_path / "layout") == []


async def test_a_confused_attachment_fails_the_copy(shelf: Shelf, engine: Engine, tmp_path: Path) -> None:
    form = json.loads(shelf.sbom.manifest) | {"manifests": []}
    data = json.dumps(form).encode()
    shelf.registry.add_manifest("app", str(Digest.of(data)), mediatype.OCI_MANIFEST, data)
    with pytest.raises(FormatError, match="as if it were of another type"):
        await engine.copy(shelf.name, f"oci:{tmp_path}/layout:app", ALL)


async def test_an_attachment_gives_itself_no_name(engine: Engine, tmp_path: Path) -> None:
    """Neither by its own annotations, nor by those of the list that has it."""
    async with Registry(referrers=False) as registry:
        shelf = Shelf(registry)
        form = json.loads(shelf.sbom.manifest) | {"annotations": {REF_NAME: "app"}}
        data = json.dumps(form).encode()
        entry = Descriptor.of(data, mediatype.OCI_MANIFEST)
        registry.add_manifest("app", str(entry.digest), entry.media_type, data)
        listed = json.dumps(
            {"schemaVersion": 2, "manifests": [encode(replace(entry, annotations={REF_NAME: "app"}))]}
        ).encode()
        tag = f"sha256-{shelf.index.digest.hex}"
        registry.add_manifest("app", tag, mediatype.OCI_INDEX, listed, digest=str(Digest.of(listed)))
        await engine.copy(shelf.name, f"oci:{tmp_path}/layout:app", CopyOptions(platforms=("all",), referrers=True))
    assert entries(tmp_path / "layout") == [("app", shelf.index.digest), ("", entry.digest)]
    rows = json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"]
    assert rows[1]["artifactType"] == SBOM


async def test_an_index_gives_its_manifests_no_name_in_a_layout(engine: Engine, tmp_path: Path) -> None:
    names = {REF_NAME: "app", "io.containerd.image.name": "docker.io/library/app:latest"}
    async with Registry() as registry:
        registry.add_image("app", "", OTHER)
        row = encode(replace(OTHER.descriptor, annotations=names))
        data = json.dumps({"schemaVersion": 2, "manifests": [row]}).encode()
        registry.add_manifest("app", "1", mediatype.OCI_INDEX, data, digest=str(Digest.of(data)))
        arm = CopyOptions(platforms=("linux/arm64",))
        await engine.copy(f"docker://{registry.address}/app:1", f"oci:{tmp_path}/layout", arm)
    rows = json.loads((tmp_path / "layout/index.json").read_bytes())["manifests"]
    assert [each.get("annotations", {}) for each in rows] == [{}]


async def test_what_hangs_on_an_image_is_listed_wherever_it_is(shelf: Shelf, engine: Engine, tmp_path: Path) -> None:
    await engine.copy(shelf.name, f"oci:{tmp_path}/layout:app", ALL)
    await engine.copy(shelf.name, "store:registry.test/app:1", ALL)
    for name in (shelf.name, f"oci:{tmp_path}/layout:app", "registry.test/app:1"):
        found = await engine.attachments(name)
        assert [(each.tag, each.descriptor.digest) for each in found] == hanging(shelf, "")[1:]
        assert [each.descriptor.artifact_type for each in found][:2] == [SBOM, SIMPLE]
