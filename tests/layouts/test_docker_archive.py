"""Every form of ``docker save``, read as manifests and blobs.

Covers: image/docker_save.py, layouts/docker_archive_source.py.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from pathlib import Path

import msgspec
import pytest

from fastoci.errors import BlobNotFoundError, DigestMismatchError, FastociError, FormatError, UnsupportedError
from fastoci.image import config as configs
from fastoci.image import manifest as manifests
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.layout import REF_NAME
from fastoci.layouts.docker_archive_source import DockerArchiveSource
from fastoci.limits import Limits
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.suites.filling import collect
from support.archives import Members, hybrid, image_of, layout, opened, saved, saved_v1, tar_bytes, write_tar

ONE, TWO = image_of("base", "one"), image_of("base", "two")


async def read(path: Path, limits: Limits | None = None) -> dict[str, tuple[Descriptor, manifests.Manifest]]:
    """The images of an archive by their names; each blob is what its descriptor says."""
    found: dict[str, tuple[Descriptor, manifests.Manifest]] = {}
    async with opened(path) as (archive, buffers):
        source = DockerArchiveSource(archive, limits or Limits())
        for image in await source.names():
            data = await source.manifest(image.top)
            assert Descriptor.of(data, image.top.media_type).digest == image.top.digest
            manifest = manifests.parse(data, image.top.media_type)
            for blob in (manifest.config, *manifest.layers):
                content = await collect(source.fetch(blob, 0, buffers))
                assert Digest.of(content, blob.digest.algorithm) == blob.digest
                assert len(content) == blob.size
            found |= dict.fromkeys((image.name, *image.also), (image.top, manifest))
    return found


def is_of(manifest: manifests.Manifest, image: Image) -> None:
    assert manifest.config.digest == Digest.of(image.config)
    assert [layer.digest for layer in manifest.layers] == [layer.descriptor.digest for layer in image.layers]


@pytest.mark.parametrize("first", [True, False], ids=["manifest last", "manifest first"])
@pytest.mark.parametrize("compressed", [False, True], ids=["file", "stream"])
async def test_images_share_a_layer_that_is_a_link_in_one_of_them(
    tmp_path: Path, *, first: bool, compressed: bool
) -> None:
    data = tar_bytes(saved({"one:1": ONE, "registry.test/two": TWO}, layers_first=first))
    (tmp_path / "a.tar").write_bytes(gzip.compress(data) if compressed else data)
    images = await read(tmp_path / "a.tar")
    assert list(images) == ["docker.io/library/one:1", "registry.test/two:latest"]
    for (top, manifest), image in zip(images.values(), (ONE, TWO), strict=True):
        is_of(manifest, image)
        assert top.media_type == mediatype.DOCKER_MANIFEST
        assert manifest.config.media_type == mediatype.DOCKER_CONFIG
        assert {layer.media_type for layer in manifest.layers} == {mediatype.DOCKER_LAYER}


async def test_nothing_but_documents_is_read_before_a_layer_is_wanted(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", saved({"one:1": ONE}))
    async with opened(path) as (archive, _):
        await DockerArchiveSource(archive, Limits()).names()
        assert all(member.digest is None for member in archive.members.files.values())


async def test_an_image_has_all_its_names_or_none(tmp_path: Path) -> None:
    members = dict(saved({"one:1": ONE, "": TWO}))
    entries = json.loads(members["manifest.json"])
    entries[0]["RepoTags"] = ["one:1", "uno:1", "Not/A:Name"]
    images = await read(
        write_tar(tmp_path / "a.tar", [*{**members, "manifest.json": json.dumps(entries).encode()}.items()])
    )
    assert list(images) == ["docker.io/library/one:1", "docker.io/library/uno:1", "Not/A:Name", ""]
    assert len({top.digest for top, _ in images.values()}) == 2


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
async def test_layers_that_are_compressed_stay_as_they_are(tmp_path: Path, compression: str) -> None:
    image = image_of("one", "two", compression=compression)
    _, manifest = (await read(write_tar(tmp_path / "a.tar", saved({"a:1": image}))))["docker.io/library/a:1"]
    is_of(manifest, image)
    assert {layer.media_type for layer in manifest.layers} == {f"{mediatype.DOCKER_LAYER}.{compression}"}


@pytest.mark.parametrize("nested", [False, True], ids=["manifests", "index"])
async def test_docker_25_gives_the_manifest_that_was_pulled(tmp_path: Path, *, nested: bool) -> None:
    image = Image.build([Layer.build([Entry("a", data=b"one")])])
    other = Image.build([Layer.build([Entry("b", data=b"two")])])
    members = hybrid({"a:1": image}, Index.build([image, other]) if nested else None)
    gone = other.layers[0].descriptor.digest.hex, other.descriptor.digest.hex
    members = [each for each in members if not str(each[0]).endswith(gone)]  # a platform that was not saved
    top, manifest = (await read(write_tar(tmp_path / "a.tar", members)))["docker.io/library/a:1"]
    assert (top.digest, top.media_type) == (image.descriptor.digest, mediatype.OCI_MANIFEST)
    assert manifest.raw == image.manifest


async def test_docker_25_without_manifests_gives_one_of_schema_2(tmp_path: Path) -> None:
    members = [each for each in hybrid({"a:1": ONE}) if each[0] != "index.json"]
    members.append(("index.json", b'{"schemaVersion":2,"manifests":null}'))
    top, manifest = (await read(write_tar(tmp_path / "a.tar", members)))["docker.io/library/a:1"]
    assert top.media_type == mediatype.DOCKER_MANIFEST
    is_of(manifest, ONE)


async def test_image_format_v1_becomes_one_config(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", saved_v1("old/app:1", ["one", "two", "three"]))
    ((name, (top, manifest)),) = (await read(path)).items()
    assert (name, top.media_type) == ("docker.io/old/app:1", mediatype.DOCKER_MANIFEST)
    async with opened(path) as (archive, buffers):
        source = DockerArchiveSource(archive, Limits())
        await source.names()
        config = json.loads(await collect(source.fetch(manifest.config, 0, buffers)))
    assert config["rootfs"]["diff_ids"] == [str(layer.digest) for layer in manifest.layers]
    assert [step["created_by"] for step in config["history"]] == [
        f"/bin/sh -c #(nop) ADD {text}" for text in ("one", "two", "three")
    ]
    assert config["config"] == {"Cmd": ["/bin/sh"]}
    assert not {"id", "parent"} & config.keys()
    assert configs.parse(json.dumps(config).encode()).os == "linux"


def changed(name: str, data: bytes, of: Members | None = None) -> Members:
    """The archive of one image with another file."""
    members = saved({"a:1": ONE}) if of is None else of
    return [(each, data if each == name else content) for each, content in members]


def manifest_with(**fields: object) -> Members:
    members = saved({"a:1": ONE})
    entry = json.loads(members[-1][1])[0] | fields
    return [*members[:-1], ("manifest.json", json.dumps([entry]).encode())]


LAYER = next(str(name) for name, _ in saved({"a:1": ONE}) if str(name).endswith("layer.tar"))
CONFIG = f"{hashlib.sha256(ONE.config).hexdigest()}.json"
V1 = saved_v1("a:1", ["one"])
ID = str(V1[0][0]).partition("/")[0]
CYCLE = json.dumps({"id": ID, "parent": ID, "os": "linux"}).encode()

BAD: dict[str, tuple[Members, type[FastociError], str]] = {
    "nothing": ([("a", b"1")], FormatError, "neither manifest.json nor repositories"),
    "a layout": (layout({"a:1": ONE}), FormatError, "but an OCI layout, which oci-archive: reads"),
    "null": ([("manifest.json", b"null")], FormatError, "manifest.json"),
    "no config": (manifest_with(Config="no"), FormatError, "has no member 'no'"),
    "config out": (manifest_with(Config="../../etc/passwd"), FormatError, "has no member '../../etc/passwd'"),
    "empty config": (manifest_with(Config=""), FormatError, "has no member ''"),
    "layer out": (manifest_with(Layers=["/etc/passwd", "../x"]), FormatError, "has no member '/etc/passwd'"),
    "fewer layers": (manifest_with(Layers=[LAYER]), FormatError, "1 layers, of which the config has 2 diff_ids"),
    "bzip2 layer": (changed(LAYER, b"BZh91AY&SY"), UnsupportedError, "layer.tar': the layer is a bzip2 file"),
    "config": (changed(CONFIG, b"{"), FormatError, "config: "),
    "digest with a path": (
        changed(CONFIG, ONE.config.replace(b"sha256:", b"sha256:../")),
        FormatError,
        r"diff_ids\[0\]: not a digest|diff_ids\[0\]: sha256 has 64",
    ),
    "id with a path": ([("repositories", b'{"a":{"1":"../../etc"}}')], FormatError, "the id of an image is 64 hex"),
    "v1 without layer": ([each for each in V1 if "layer.tar" not in str(each[0])], FormatError, "has no member"),
    "v1 in a circle": (changed(f"{ID}/json", CYCLE, V1), FormatError, "more than 512 layers below it"),
    "v1 compressed": (
        changed(f"{ID}/layer.tar", gzip.compress(b"1"), V1),
        UnsupportedError,
        "layer.tar is compressed, in an archive of v1 images",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_archive_is_refused_and_the_member_is_named(tmp_path: Path, name: str) -> None:
    members, kind, text = BAD[name]
    with pytest.raises(kind, match=text):
        await read(write_tar(tmp_path / "a.tar", members))


@pytest.mark.parametrize("compressed", [False, True], ids=["file", "stream"])
async def test_a_layer_that_is_not_what_its_config_says_is_found(tmp_path: Path, *, compressed: bool) -> None:
    data = tar_bytes(changed(LAYER, bytes(1024)))
    (tmp_path / "a.tar").write_bytes(gzip.compress(data) if compressed else data)
    if compressed:  # it was hashed while it passed
        with pytest.raises(DigestMismatchError, match=r"layer\.tar' are sha256:5f70bf18"):
            await read(tmp_path / "a.tar")
    else:  # whoever fetches it hashes it
        with pytest.raises(AssertionError):
            await read(tmp_path / "a.tar")


async def test_a_config_that_is_not_what_its_path_says_is_found(tmp_path: Path) -> None:
    path = f"blobs/sha256/{Digest.of(ONE.config).hex}"
    members = changed(path, ONE.config + b" ", hybrid({"a:1": ONE}))
    with pytest.raises(DigestMismatchError, match=path):
        await read(write_tar(tmp_path / "a.tar", members))


async def test_limits_hold_for_what_an_archive_says(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", saved({"one:1": ONE, "two:1": TWO}))
    for limits, text in (
        ({"index_entries": 1}, "has 2 images, more than 1"),
        ({"documents_size": 600}, "its manifests have more than 600 bytes"),
        ({"manifest_size": 100}, "manifest.json' has"),
        ({"layers": 1}, "1 are the most"),
    ):
        with pytest.raises(FormatError, match=text):
            await read(path, msgspec.structs.replace(Limits(), **limits))


async def test_a_blob_that_no_image_has_is_not_found(tmp_path: Path) -> None:
    async with opened(write_tar(tmp_path / "a.tar", saved({"one:1": ONE}))) as (archive, buffers):
        source = DockerArchiveSource(archive, Limits())
        await source.names()
        with pytest.raises(BlobNotFoundError, match="has no blob sha256:"):
            await collect(source.fetch(Descriptor.of(b"other", mediatype.DOCKER_LAYER), 0, buffers))


def test_a_hybrid_is_a_tar_of_a_layout(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", hybrid({"a:1": ONE}))
    with tarfile.open(path) as tar:
        index = json.load(tar.extractfile("index.json") or pytest.fail("no index"))
    assert index["manifests"][0]["annotations"] == {REF_NAME: "a:1"}
