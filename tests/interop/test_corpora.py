"""The documents and layouts of ``shared/corpora`` and ``shared/images``, through the verbs that read them.

What a document is for itself, ``tests/image/test_hostile_documents.py`` holds.
"""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Awaitable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

import fastoci
from fastoci.errors import (
    BlobNotFoundError,
    FastociError,
    FormatError,
    IntegrityError,
    NotFoundError,
    ReferenceSyntaxError,
    SizeMismatchError,
    UnsupportedError,
)
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.layout import OCI_LAYOUT
from fastoci.testing.registry import Registry

# What the table says of a Content-Type. A directory has none, and where a digest proves the bytes, Docker's type may
# stand for OCI's.
UNLIKE = {
    ("manifests/M02c-mediatype-mismatch.json", "dir"),
    *(("manifests/M02f-docker-type-oci-body.json", place) for place in ("dir", "oci", "oci-archive")),
}
ALL = fastoci.CopyOptions(platforms=("all",))
REFUSALS = (FormatError, UnsupportedError, IntegrityError)


class Case(msgspec.Struct, frozen=True):
    """A hostile document: what it comes as, and how it must end."""

    file: str
    expect: str
    content_type: str | None
    data: bytes

    @property
    def tag(self) -> str:
        return self.file.removeprefix("manifests/").partition("-")[0]

    def serve(self, registry: Registry) -> None:
        """Serve it under its tag; a config as that of an image of one layer."""
        data, media_type = self.data, self.content_type or "application/octet-stream"
        if media_type == mediatype.OCI_CONFIG:
            registry.add_blob(str(Digest.of(data)), data)
            rows = [encode(Descriptor.of(data, media_type)), encode(Descriptor.of(b"layer", mediatype.OCI_LAYER))]
            registry.add_blob(rows[1]["digest"], b"layer")  # type: ignore[arg-type]
            data = json.dumps({"schemaVersion": 2, "config": rows[0], "layers": rows[1:]}).encode()
            media_type = mediatype.OCI_MANIFEST
        registry.add_manifest("hostile", self.tag, media_type, data, digest=str(Digest.of(data)))

    def layout(self, directory: Path) -> Path:
        """A layout of it, without what it names: where it is taken, the copy ends with what is absent."""
        descriptor = Descriptor.of(self.data, self.content_type or mediatype.OCI_MANIFEST)
        path = directory / "blobs/sha256" / descriptor.digest.hex
        path.parent.mkdir(parents=True)
        path.write_bytes(self.data)
        (directory / "oci-layout").write_bytes(OCI_LAYOUT)
        index = {"schemaVersion": 2, "manifests": [encode(descriptor)]}
        (directory / "index.json").write_text(json.dumps(index))
        return directory

    def places(self, scratch: Path) -> dict[str, str]:
        """Where it can be copied from: a layout, one as an archive, a directory of skopeo's."""
        layout, archive, directory = self.layout(scratch / "layout"), scratch / "archive.tar", scratch / "directory"
        with tarfile.open(archive, "w") as tar:
            tar.add(layout, ".")
        directory.mkdir()
        (directory / "manifest.json").write_bytes(self.data)
        return {"oci": f"oci:{layout}", "oci-archive": f"oci-archive:{archive}", "dir": f"dir:{directory}"}


def hostile(shared: Path) -> Iterator[Case]:
    folder = shared / "corpora/hostile"
    rows: list[dict[str, Any]] = json.loads((folder / "expected_manifests.json").read_text())["cases"]
    for row in rows:
        data = (folder / row["file"]).read_bytes()
        yield Case(row["file"], row["expect"], row["content_type"], gzip.decompress(data) if row["gz"] else data)


async def outcome_of(ending: Awaitable[object], case: Case) -> str:
    """How a document ends what reads it."""
    try:
        await ending
    except REFUSALS:
        return "reject"
    except FastociError as error:  # all was read: what it names is nowhere, or is not for this machine
        absent = isinstance(error, NotFoundError | BlobNotFoundError)
        assert absent or case.expect == "contain", (case.file, error)
    return "accept"


async def test_hostile_documents_end_a_pull_and_a_copy_as_their_table_says(shared: Path, tmp_path: Path) -> None:
    options = fastoci.RegistryOptions(retries=0)
    async with Registry() as registry, fastoci.Engine(tmp_path / "store", registry=options) as engine:
        for case in hostile(shared):
            case.serve(registry)
            name = f"{registry.address}/hostile:{case.tag}"
            pulled = engine.pull(name, platform="linux/amd64", rootfs=tmp_path / case.tag)
            outcomes = {"pull": await outcome_of(pulled, case)}
            places = {"docker": f"docker://{name}", **case.places(tmp_path / f"places-{case.tag}")}
            if case.content_type == mediatype.OCI_CONFIG:  # what a config says matters to who unpacks the image
                places = {}
            for place, end in places.items():
                copied = engine.copy(end, f"oci:{tmp_path}/copy:x", ALL)
                outcomes[place] = await outcome_of(copied, case)
            for way, outcome in outcomes.items():
                if case.expect != "contain" and (case.file, way) not in UNLIKE:
                    assert outcome == case.expect, (case.file, way, outcome)
        assert await engine.images() == ()
    assert not (tmp_path / "copy/index.json").exists()


class Layout(msgspec.Struct, frozen=True):
    """A layout of others, and how copies of its entries end that cannot be copied whole."""

    place: str
    every: type[FastociError] | None = None
    single: Mapping[int, type[FastociError]] = {}


_CONTAINERS, _GGCR = "corpora/containers-image/oci/layout/fixtures", "corpora/go-containerregistry/v1/layout/testdata"
LAYOUTS = (
    Layout(f"{_CONTAINERS}/delete_image_multiple_images", single={6: SizeMismatchError}),
    Layout(f"{_CONTAINERS}/delete_image_only_one_image", SizeMismatchError),
    Layout(f"{_CONTAINERS}/delete_image_shared_blobs_dir", BlobNotFoundError),  # all but its manifest is elsewhere
    Layout(f"{_CONTAINERS}/delete_image_two_identical_references"),
    Layout(f"{_CONTAINERS}/manifest", BlobNotFoundError),
    Layout(f"{_CONTAINERS}/name_lookups", BlobNotFoundError),
    Layout(f"{_CONTAINERS}/two_images_manifest", BlobNotFoundError),
    Layout(f"{_GGCR}/test_gc_image_unknown_mediatype", BlobNotFoundError),
    Layout(f"{_GGCR}/test_gc_index"),
    Layout(f"{_GGCR}/test_index", single={1: UnsupportedError}),
    Layout(f"{_GGCR}/test_index_media_type"),
    Layout(f"{_GGCR}/test_index_one_image"),
    Layout("corpora/olareg/corrupt", BlobNotFoundError),
    Layout("corpora/olareg/testrepo"),
    Layout("corpora/regclient/external"),
    Layout("corpora/regclient/testrepo"),
)


def test_every_layout_of_the_corpora_has_a_row(shared: Path) -> None:
    found = {path.parent for path in shared.glob("corpora/**/index.json")}
    assert found == {shared / layout.place for layout in LAYOUTS}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.place)
async def test_each_entry_of_a_layout_is_copied_with_what_hangs_on_it(
    shared: Path, tmp_path: Path, layout: Layout
) -> None:
    everything = fastoci.CopyOptions(platforms=("all",), referrers=True, signatures=True)
    source, limits = shared / layout.place, fastoci.Limits(durability="none")
    rows = json.loads((source / "index.json").read_bytes())["manifests"]
    async with fastoci.Engine(tmp_path / "store", limits=limits) as engine:
        for number, row in enumerate(rows):
            error = layout.single.get(number, layout.every)
            into = (f"oci:{tmp_path}/copy:copy{number}", f"store:registry.test/copy:{number}")[number % 2]
            if error is None:
                copied = await engine.copy(f"oci:{source}:@{number}", into, everything)
                assert str(copied.descriptor.digest) == row["digest"]
            else:
                with pytest.raises(error):
                    await engine.copy(f"oci:{source}:@{number}", into, everything)
        assert (await engine.verify()).bad == ()


_TARBALLS, _ORAS = "corpora/go-containerregistry/v1/tarball/testdata", "corpora/oras-go/content/oci/testdata"
_MUTATE, _TARFS = "corpora/go-containerregistry/v1/mutate/testdata", "corpora/oras-go/internal/fs/tarfs/testdata"
# Archives of others, and how copies of all that they name end.
ARCHIVES: Mapping[str, type[FastociError] | None] = {
    "docker-archive:corpora/containers-image/docker/archive/fixtures/almostempty.tar": None,
    f"docker-archive:{_MUTATE}/overwritten_file.tar": None,
    f"docker-archive:{_MUTATE}/source_image.tar": None,
    f"docker-archive:{_MUTATE}/source_image_with_empty_layer_history.tar": None,
    f"docker-archive:{_MUTATE}/whiteout_dir.tar": None,
    f"docker-archive:{_MUTATE}/whiteout_image.tar": None,
    f"docker-archive:{_TARBALLS}/content.tar": FormatError,
    f"docker-archive:{_TARBALLS}/hello-world-v25.tar": None,
    f"docker-archive:{_TARBALLS}/no_manifest.tar": None,  # the older form
    f"docker-archive:{_TARBALLS}/null_manifest.tar": FormatError,
    f"docker-archive:{_TARBALLS}/test_bundle.tar": ReferenceSyntaxError,
    f"docker-archive:{_TARBALLS}/test_bundle.tar:@0": None,
    f"docker-archive:{_TARBALLS}/test_bundle.tar:@1": None,
    f"docker-archive:{_TARBALLS}/test_image_1.tar": None,
    f"docker-archive:{_TARBALLS}/test_image_2.tar": None,
    f"docker-archive:{_TARBALLS}/test_link.tar:@0": None,
    f"docker-archive:{_TARBALLS}/test_link.tar:@1": None,
    f"docker-archive:{_TARBALLS}/test_load_manifest.tar": None,
    f"docker-archive:{_ORAS}/hello-world.tar": None,
    f"oci-archive:{_ORAS}/hello-world.tar": BlobNotFoundError,  # of one platform of eleven
    f"oci-archive:{_ORAS}/hello-world-prefixed-path.tar": BlobNotFoundError,
    f"oci-archive:{_TARFS}/cleaned_path.tar": FormatError,
    f"oci-archive:{_TARFS}/prefixed_path.tar": FormatError,
    f"oci-archive:{_TARBALLS}/hello-world-v25.tar": BlobNotFoundError,  # its index has no images
}


async def test_archives_of_the_corpora_are_copied_or_refused(shared: Path, tmp_path: Path) -> None:
    everything, limits = fastoci.CopyOptions(platforms=("all",)), fastoci.Limits(durability="none")
    async with fastoci.Engine(tmp_path / "store", limits=limits) as engine:
        for number, (name, error) in enumerate(ARCHIVES.items()):
            transport, _, path = name.partition(":")
            into = (f"oci:{tmp_path}/copy:copy{number}", f"store:registry.test/copy:{number}")[number % 2]
            if error is None:
                await engine.copy(f"{transport}:{shared}/{path}", into, everything)
            else:
                with pytest.raises(error):
                    await engine.copy(f"{transport}:{shared}/{path}", into, everything)
        assert (await engine.verify()).bad == ()


async def test_a_sparse_archive_gives_the_platform_that_it_has(shared: Path, tmp_path: Path) -> None:
    amd64 = fastoci.CopyOptions(platforms=("linux/amd64",), preserve_digests=True)
    async with fastoci.Engine(tmp_path / "store") as engine:
        for number, name in enumerate(("hello-world.tar", "hello-world-prefixed-path.tar")):
            copied = await engine.copy(f"oci-archive:{shared}/{_ORAS}/{name}", f"oci:{tmp_path}/{number}:x", amd64)
            assert str(copied.descriptor.digest).startswith("sha256:f54a58bc1aac5")
