"""An image by merged metadata: its documents are read as those of other images, and taken by nobody by mistake."""

from __future__ import annotations

import json

import msgspec
import pytest
from msgspec.structs import replace

from fastoci.errors import UnsupportedError
from fastoci.image import config as config_document
from fastoci.image import index, manifest
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.erofs_image import METADATA, ErofsImage, erofs_image
from fastoci.image.mediatype import DOCKER_LAYER_GZIP, OCI_FOREIGN_GZIP, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from fastoci.image.platform import Platform
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer

IMAGE = Image.build([Layer.build([Entry("one")]), Layer.build([Entry("two")])], command=["run"])
ORDINARY = manifest.parse(IMAGE.manifest, IMAGE.media_type)
CONFIG = config_document.parse(IMAGE.config)
BLOB = Descriptor.of(b"compressed", METADATA)
INSIDE = Digest.of(b"metadata")


def made(described: Descriptor = IMAGE.descriptor) -> ErofsImage:
    return erofs_image(described, ORDINARY, CONFIG, BLOB, INSIDE)


def test_the_ordinary_manifest_comes_first_and_is_what_everybody_selects() -> None:
    descriptor, data = made().index
    entries = index.parse(data, descriptor.media_type).manifests
    assert [entry.digest for entry in entries] == [IMAGE.descriptor.digest, made().manifest[0].digest]
    for order in (entries, entries[::-1]):
        chosen = index.select(order, IMAGE.platform)
        assert chosen is not None
        assert chosen.digest == IMAGE.descriptor.digest
    able = Platform(IMAGE.platform.os, IMAGE.platform.architecture, os_features=("erofs",))
    assert {entry.digest for entry in index.ranked(entries, able)} == {entry.digest for entry in entries}


def test_layers_are_devices_as_they_are_and_the_metadata_is_the_last() -> None:
    found = manifest.parse(made().manifest[1], OCI_MANIFEST)
    *devices, last = found.layers
    assert [(each.digest, each.media_type, each.size) for each in devices] == [
        (layer.digest, layer.media_type, layer.size) for layer in ORDINARY.layers
    ]
    assert {each.annotations["org.erofs.role"] for each in devices} == {"device"}
    assert (last.digest, last.media_type) == (BLOB.digest, "application/vnd.erofs+zstd")
    assert last.annotations == {"org.erofs.uncompressed-digest": str(INSIDE)}


def of_type(media_type: str) -> ErofsImage:
    changed = msgspec.structs.replace(ORDINARY, layers=(replace(ORDINARY.layers[0], media_type=media_type),))
    return erofs_image(IMAGE.descriptor, changed, CONFIG, BLOB, INSIDE)


def test_a_device_s_type_says_how_it_is_compressed() -> None:
    found = manifest.parse(of_type(DOCKER_LAYER_GZIP).manifest[1], OCI_MANIFEST)
    assert found.layers[0].media_type == OCI_LAYER_GZIP
    for media_type in ("application/octet-stream", OCI_FOREIGN_GZIP):
        with pytest.raises(UnsupportedError, match="cannot be a device"):
            of_type(media_type)


def test_the_config_is_the_image_s_with_one_more_layer_and_the_feature() -> None:
    descriptor, data = made().config
    assert manifest.parse(made().manifest[1], OCI_MANIFEST).config == descriptor
    assert config_document.parse(data).diff_ids == (*CONFIG.diff_ids, INSIDE)
    document, before = json.loads(data), json.loads(IMAGE.config)
    assert document["os.features"] == ["erofs"]
    assert len(document["history"]) == len(before["history"]) + 1
    assert document["config"] == before["config"]
    config_document.parse(data).check_layers(len(manifest.parse(made().manifest[1], OCI_MANIFEST).layers))


def test_features_of_the_platform_stay_and_the_same_image_gives_the_same_bytes() -> None:
    platform = Platform("linux", "amd64", os_features=("sse4",))
    entries = index.parse(made(replace(IMAGE.descriptor, platform=platform)).index[1], OCI_INDEX).manifests
    assert [entry.platform and entry.platform.os_features for entry in entries] == [("sse4",), ("sse4", "erofs")]
    assert made() == made()
