"""What manifest and config say as one value: steps beside layers, artifacts, and configs that say odd things."""

from __future__ import annotations

import json

import pytest

from fastoci.image import manifest
from fastoci.image.inspection import InspectedImage, inspect_image
from fastoci.image.platform import Platform
from fastoci.testing.images import Artifact, Image
from fastoci.testing.layers import Entry, Layer, from_seed

LAYERS = [Layer.build(from_seed(seed, files=1, size=100), "gzip") for seed in (1, 2)]
IMAGE = Image.build(LAYERS, command=["sh"])


def inspected(config: bytes, *, image: Image = IMAGE, platform: Platform | None = None) -> InspectedImage:
    parsed = manifest.parse(image.manifest, image.media_type)
    return inspect_image(image.descriptor, parsed, config, platform=platform, entries={LAYERS[1].descriptor.digest: 7})


def config(**fields: object) -> bytes:
    return json.dumps({**json.loads(IMAGE.config), **fields}).encode()


def test_each_layer_has_the_step_that_made_it() -> None:
    steps = [
        {"created_by": "ADD one", "created": "2020-01-01T00:00:00Z"},
        {"created_by": "ENV a=b", "empty_layer": True},
        {"created_by": "ADD two", "comment": "by hand"},
    ]
    found = inspected(config(history=steps))
    assert [(layer.created_by, layer.comment, layer.entries) for layer in found.layers] == [
        ("ADD one", "", None),
        ("ADD two", "by hand", 7),
    ]
    assert [layer.diff_id for layer in found.layers] == [str(layer.diff_id) for layer in LAYERS]
    assert found.layers[0].created == "2020-01-01T00:00:00Z"
    assert found.history == tuple(steps)
    assert found.problems == ()
    assert (found.platform, found.config, found.created) == ("linux/amd64", {"Cmd": ["sh"]}, "2023-11-14T22:13:20Z")
    assert found.size == len(IMAGE.config) + sum(layer.descriptor.size for layer in LAYERS)


def test_the_index_says_the_platform_before_the_config() -> None:
    assert inspected(IMAGE.config, platform=Platform("linux", "arm64", "v8")).platform == "linux/arm64/v8"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"no JSON", "config: "),
        (
            config(rootfs={"type": "layers", "diff_ids": [str(LAYERS[0].diff_id)]}),
            "has 2 layers, the config 1 diff_ids",
        ),
        (config(history=[{"created_by": "once"}]), "the history has steps for 1"),
    ],
    ids=["no JSON", "too few diff_ids", "too few steps"],
)
def test_what_is_wrong_with_a_config_is_told_and_the_rest_is_shown(data: bytes, problem: str) -> None:
    found = inspected(data)
    assert len(found.problems) == 1
    assert problem in found.problems[0]
    assert [layer.digest for layer in found.layers] == [str(layer.descriptor.digest) for layer in LAYERS]


def test_fields_of_other_types_say_nothing() -> None:
    odd = config(created=5, author=[], config="sh", history={"a": 1}, os=None, architecture={}, rootfs=[])
    found = inspected(odd)
    assert (found.created, found.author, found.config, found.history, found.platform) == ("", "", {}, (), "")
    assert [layer.diff_id for layer in found.layers] == ["", ""]
    assert inspected(config(history=[1, None, "x"])).layers[0].created_by == ""


def test_an_artifact_has_its_type_and_no_config() -> None:
    artifact = Artifact.build("application/vnd.test.chart", b"chart", subject=IMAGE.descriptor)
    parsed = manifest.parse(artifact.manifest, artifact.descriptor.media_type)
    found = inspect_image(artifact.descriptor, parsed, b"{}", platform=None)
    assert (found.artifact_type, found.subject) == ("application/vnd.test.chart", str(IMAGE.descriptor.digest))
    assert (found.config, found.problems) == ({}, ())


def test_the_layers_of_an_artifact_keep_the_names_of_files() -> None:
    titled = json.loads(Artifact.build("application/vnd.test.chart", b"chart").manifest)
    titled["layers"][0]["annotations"] = {"org.opencontainers.image.title": "chart.tgz"}
    parsed = manifest.parse(json.dumps(titled).encode(), titled["mediaType"])
    (layer,) = inspect_image(IMAGE.descriptor, parsed, b"{}", platform=None).layers
    assert layer.annotations == {"org.opencontainers.image.title": "chart.tgz"}


def test_a_layer_that_is_there_twice_is_weighed_once() -> None:
    layer = Layer.build([Entry("a", data=b"a" * 1000)])
    image = Image.build([layer, layer])
    assert inspected(image.config, image=image).size == len(image.config) + layer.descriptor.size
