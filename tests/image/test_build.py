"""A new image says what it must, keeps what it does not change, and is the same each time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastoci.image import config as config_document
from fastoci.image import manifest as manifest_document
from fastoci.image import mediatype
from fastoci.image.build import BuiltImage, NewLayer, image_of, image_on
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.platform import Platform

BLOB = Descriptor(mediatype.OCI_LAYER_GZIP, Digest.of(b"blob"), 4)
LAYER = NewLayer(BLOB, Digest.of(b"tar"), 1_700_000_000)


def base(config: dict[str, Any], *, docker: bool = False, annotations: dict[str, str] | None = None) -> BuiltImage:
    """An image of one layer, with ``config`` beside what each has; and ``LAYER`` on top of it."""
    raw = json.dumps({"rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"below"))]}, **config}).encode()
    below = mediatype.DOCKER_LAYER_GZIP if docker else mediatype.OCI_LAYER_ZSTD
    media_type = mediatype.DOCKER_MANIFEST if docker else mediatype.OCI_MANIFEST
    config_type = mediatype.DOCKER_CONFIG if docker else mediatype.OCI_CONFIG
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": encode(Descriptor.of(raw, config_type)),
        "layers": [encode(Descriptor(below, Digest.of(b"below"), 5))],
        "annotations": annotations or {},
    }
    manifest = manifest_document.parse(json.dumps(document).encode(), media_type)
    return image_on(LAYER, manifest, config_document.parse(raw))


def config_of(built: BuiltImage) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(built.config)
    return found


def test_an_image_of_one_layer_says_what_it_is_for() -> None:
    built = image_of(LAYER, Platform("linux", "arm", "v7"))
    manifest = manifest_document.parse(built.manifest, mediatype.OCI_MANIFEST)
    assert (manifest.layers, manifest.config) == ((BLOB,), built.config_descriptor)
    assert config_of(built) == {
        "architecture": "arm",
        "variant": "v7",
        "os": "linux",
        "created": "2023-11-14T22:13:20Z",
        "rootfs": {"type": "layers", "diff_ids": [str(LAYER.diff_id)]},
        "history": [{"created": "2023-11-14T22:13:20Z", "created_by": "fastoci pack"}],
    }


def test_an_image_on_another_keeps_what_it_does_not_change() -> None:
    config = {"config": {"Env": ["A=1"], "Labels": {"b": "2"}}, "history": [{"created_by": "made"}], "x-odd": [1]}
    built = base(config, annotations={"org.example": "kept"})
    manifest = manifest_document.parse(built.manifest, mediatype.OCI_MANIFEST)
    found = config_of(built)
    assert (found["config"], found["x-odd"]) == (config["config"], [1])
    assert [step["created_by"] for step in found["history"]] == ["made", "fastoci pack"]
    assert found["rootfs"]["diff_ids"] == [str(Digest.of(b"below")), str(LAYER.diff_id)]
    assert [layer.digest for layer in manifest.layers] == [Digest.of(b"below"), BLOB.digest]
    assert manifest.annotations == {"org.example": "kept"}


def test_types_of_docker_become_those_of_oci() -> None:
    built = base({}, docker=True)
    manifest = manifest_document.parse(built.manifest, mediatype.OCI_MANIFEST)
    assert [layer.media_type for layer in manifest.layers] == [mediatype.OCI_LAYER_GZIP] * 2
    assert manifest.config.media_type == mediatype.OCI_CONFIG


@pytest.mark.parametrize(
    "history",
    [None, [], [{"created_by": "a"}, {"created_by": "b"}], [{"empty_layer": True}]],
    ids=["absent", "empty", "too-long", "of-no-layer"],
)
def test_a_history_that_is_not_of_the_layers_is_made_anew(history: object) -> None:
    steps = config_of(base({"history": history}))["history"]
    assert [step.get("created_by") for step in steps] == [None, "fastoci pack"]


def test_a_change_of_nothing_is_a_step_without_a_layer() -> None:
    raw = b'{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}'
    document = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": encode(Descriptor.of(raw, mediatype.OCI_CONFIG)),
        "layers": [],
    }
    manifest = manifest_document.parse(json.dumps(document).encode(), mediatype.OCI_MANIFEST)
    built = image_on(NewLayer(None, LAYER.diff_id, 0), manifest, config_document.parse(raw))
    assert built.layers == ()
    assert config_of(built)["history"] == [
        {"created": "1970-01-01T00:00:00Z", "created_by": "fastoci pack", "empty_layer": True}
    ]


@pytest.mark.parametrize(("created", "year"), [(-5, 1970), (1 << 60, 9999)], ids=["before-1970", "beyond-9999"])
def test_times_that_a_document_cannot_have_are_the_nearest_that_it_can(created: int, year: int) -> None:
    built = image_of(NewLayer(BLOB, LAYER.diff_id, created), Platform("linux", "amd64"))
    assert config_of(built)["created"].startswith(str(year))
