"""Schema 2 and OCI, each made of the other: the same blobs, and nothing that is lost is not said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from fastoci.errors import UnsupportedError
from fastoci.image import convert, index, manifest, mediatype
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.platform import Platform

DIGEST = Digest.of(b"blob")
OTHER = Digest.of(b"other")
PAIRS = [
    (mediatype.OCI_LAYER, mediatype.DOCKER_LAYER),
    (mediatype.OCI_LAYER_GZIP, mediatype.DOCKER_LAYER_GZIP),
    (mediatype.OCI_FOREIGN, mediatype.DOCKER_FOREIGN),
    (mediatype.OCI_FOREIGN_GZIP, mediatype.DOCKER_FOREIGN_GZIP),
]
URLS = ("https://example.com/layer",)


def layer(media_type: str, **more: object) -> Descriptor:
    return replace(Descriptor(media_type, DIGEST, 10, urls=URLS), **more)


def oci(*layers: Descriptor, config: str = mediatype.OCI_CONFIG, **more: object) -> manifest.Manifest:
    form = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": encode(Descriptor(config, OTHER, 7)),
        "layers": [encode(each) for each in layers],
    }
    return manifest.parse(json.dumps(form | more).encode(), mediatype.OCI_MANIFEST)


def parsed(made: convert.Converted) -> manifest.Manifest:
    return manifest.parse(made.data, made.media_type)


def test_each_layer_has_a_type_in_the_other_form_and_stays_what_it_is() -> None:
    image = oci(*(layer(media_type) for media_type, _ in PAIRS))
    made = convert.manifest_as(image, "v2s2")
    docker = parsed(made)
    assert made.descriptor == Descriptor.of(docker.raw, mediatype.DOCKER_MANIFEST)
    assert docker.config == Descriptor(mediatype.DOCKER_CONFIG, OTHER, 7)
    assert docker.layers == tuple(layer(media_type) for _, media_type in PAIRS)
    back = convert.manifest_as(docker, "oci")
    assert parsed(back).layers == image.layers
    assert parsed(back).config == image.config
    assert (made.lost, back.lost) == ((), ())


def test_a_manifest_that_has_the_form_stays_byte_for_byte() -> None:
    image = oci(layer(mediatype.OCI_LAYER), later=1)
    assert convert.manifest_as(image, "oci").data is image.raw


def test_what_schema_2_has_no_field_for_is_lost_and_said() -> None:
    subject = encode(Descriptor(mediatype.OCI_MANIFEST, Digest.of(b"subject"), 1))
    image = oci(layer(mediatype.OCI_LAYER, annotations={"a": "b"}), annotations={"c": "d"}, subject=subject)
    made = convert.manifest_as(image, "v2s2")
    assert made.lost == ("its annotations", "annotations of its layers", "its subject")
    assert json.loads(made.data).keys() == {"schemaVersion", "mediaType", "config", "layers"}


def test_annotations_of_schema_2_stay_in_oci() -> None:
    form = json.loads(oci(layer(mediatype.OCI_LAYER)).raw) | {
        "mediaType": mediatype.DOCKER_MANIFEST,
        "annotations": {"a": "b"},
        "config": encode(Descriptor(mediatype.DOCKER_CONFIG, OTHER, 7)),
        "layers": [encode(layer(mediatype.DOCKER_LAYER_ZSTD, annotations={"c": "d"}))],
    }
    made = convert.manifest_as(manifest.parse(json.dumps(form).encode(), mediatype.DOCKER_MANIFEST), "oci")
    assert (parsed(made).annotations, made.lost) == ({"a": "b"}, ())
    assert parsed(made).layers == (layer(mediatype.OCI_LAYER_ZSTD, annotations={"c": "d"}),)


@pytest.mark.parametrize(
    "image",
    [
        oci(layer(mediatype.OCI_LAYER_ZSTD)),
        oci(layer(mediatype.OCI_FOREIGN_ZSTD)),
        oci(layer("application/vnd.acme.layer")),
        oci(layer("application/octet-stream")),
        oci(layer(mediatype.OCI_LAYER), config="application/vnd.oci.empty.v1+json"),
    ],
    ids=["zstd", "foreign zstd", "unknown", "untyped", "an artifact"],
)
def test_what_schema_2_cannot_hold_is_refused(image: manifest.Manifest) -> None:
    with pytest.raises(UnsupportedError):
        convert.manifest_as(image, "v2s2")


def test_an_index_becomes_a_list_and_back() -> None:
    platform = Platform("linux", "arm64", "v8")
    entry = Descriptor(mediatype.OCI_MANIFEST, DIGEST, 10, platform=platform, annotations={"a": "b"})
    form = {"schemaVersion": 2, "manifests": [encode(entry)], "annotations": {"c": "d"}}
    whole = index.parse(json.dumps(form).encode(), mediatype.OCI_INDEX)
    made = convert.index_as(whole, "v2s2", [Descriptor(mediatype.DOCKER_MANIFEST, OTHER, 9, platform=platform)])
    assert made.lost == ("its annotations", "annotations of its entries")
    docker = index.parse(made.data, mediatype.DOCKER_LIST)
    assert docker.manifests == (Descriptor(mediatype.DOCKER_MANIFEST, OTHER, 9, platform=platform),)
    back = convert.index_as(docker, "oci", [replace(entry, annotations={})])
    assert index.parse(back.data, mediatype.OCI_INDEX).manifests == (replace(entry, annotations={}),)
    assert convert.index_as(whole, "oci", whole.manifests).data is whole.raw
    assert json.loads(convert.index_as(whole, "oci", [entry, entry]).data)["annotations"] == {"c": "d"}


@pytest.mark.parametrize(
    "entry",
    [
        Descriptor(mediatype.DOCKER_MANIFEST, DIGEST, 1),
        Descriptor(mediatype.OCI_INDEX, DIGEST, 1, platform=Platform("linux", "amd64")),
    ],
    ids=["no platform", "an index"],
)
def test_a_list_has_images_for_platforms_alone(entry: Descriptor) -> None:
    whole = index.parse(b'{"schemaVersion":2,"manifests":[]}', mediatype.OCI_INDEX)
    with pytest.raises(UnsupportedError):
        convert.index_as(whole, "v2s2", [entry])


def test_a_layer_compressed_anew_has_the_type_of_what_it_is_now() -> None:
    told = {"kept": "yes", "io.github.containers.zstd-chunked.manifest-position": "1:2:3:1"}
    image = oci(layer(mediatype.OCI_LAYER_GZIP, annotations=told))
    blob = Descriptor(mediatype.OCI_LAYER_ZSTD, Digest.of(b"new"), 5)
    assert convert.with_blobs(image, {DIGEST: blob}).layers == (replace(blob, annotations={"kept": "yes"}),)
    docker = parsed(convert.manifest_as(oci(layer(mediatype.OCI_FOREIGN_GZIP)), "v2s2"))
    with pytest.raises(UnsupportedError, match="zstd"):
        convert.with_blobs(docker, {DIGEST: blob})


def test_of_schema_2_skopeo_makes_the_same_manifest_but_for_the_config_that_it_writes_anew(
    shared: Path, tmp_path: Path, copy_image: Callable[..., None]
) -> None:
    layout, compared = shared / "images/docker-schema2", 0
    for row in json.loads((layout / "index.json").read_bytes())["manifests"]:
        data = (layout / "blobs/sha256" / row["digest"].partition(":")[2]).read_bytes()
        if json.loads(data).get("mediaType") != mediatype.DOCKER_MANIFEST:  # one does not say it, which skopeo refuses
            continue
        parsed_image = manifest.parse(data, mediatype.DOCKER_MANIFEST)
        if sum(blob.size for blob in parsed_image.layers) > 3_000_000:
            continue
        compared += 1
        source, made = tmp_path / row["digest"][7:], tmp_path / f"made-{row['digest'][7:]}"
        source.mkdir()
        (source / "manifest.json").write_bytes(data)
        for blob in (parsed_image.config, *parsed_image.layers):
            (source / blob.digest.hex).symlink_to(layout / "blobs/sha256" / blob.digest.hex)
        copy_image(f"dir:{source}", f"oci:{made}:one")
        (its,) = json.loads((made / "index.json").read_bytes())["manifests"]
        theirs = json.loads((made / "blobs/sha256" / its["digest"][7:]).read_bytes())
        ours = json.loads(convert.manifest_as(parsed_image, "oci").data)
        assert (list(ours), list(ours["config"])) == (list(theirs), list(theirs["config"]))
        config = theirs["config"]
        theirs["config"] = ours["config"]
        assert ours == theirs
        before, after = (
            json.loads(path.read_bytes())
            for path in (source / parsed_image.config.digest.hex, made / "blobs/sha256" / config["digest"][7:])
        )
        assert set(after) <= {"created", "author", "architecture", "os", "variant", "config", "rootfs", "history"}
        assert after["rootfs"] == {name: before["rootfs"][name] for name in ("type", "diff_ids")}
    assert compared


def test_skopeo_makes_the_same_manifests(
    shared: Path, tmp_path: Path, peer: Callable[[str], str], copy_image: Callable[..., None]
) -> None:
    copy_image(f"oci:{shared}/images/oci:debian-slim", f"dir:{tmp_path}/oci")
    copy_image(f"dir:{tmp_path}/oci", f"dir:{tmp_path}/docker", "--format", "v2s2")
    image, docker = ((tmp_path / each / "manifest.json").read_bytes() for each in ("oci", "docker"))
    assert convert.manifest_as(manifest.parse(image, mediatype.OCI_MANIFEST), "v2s2").data == docker
    assert convert.manifest_as(manifest.parse(docker, mediatype.DOCKER_MANIFEST), "oci").data == image
