"""What differs between two images by their documents: fields by their paths, and layers by their content."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fastoci.image import manifest
from fastoci.image.comparison import Comparison, compare_images
from fastoci.image.inspection import InspectedImage, inspect_image
from fastoci.testing.images import Artifact, Image
from fastoci.testing.layers import Entry, Layer

ONE, TWO, THREE = (Layer.build([Entry(name, data=name.encode())], "gzip") for name in ("one", "two", "three"))
ONE_ZSTD = Layer.build([Entry("one", data=b"one")], "zstd")


def inspected(image: Image) -> InspectedImage:
    return inspect_image(
        image.descriptor, manifest.parse(image.manifest, image.media_type), image.config, platform=None
    )


def compared(left: Image, right: Image) -> Comparison:
    return compare_images(inspected(left), inspected(right), (left.config, right.config))


def configured(**run: object) -> Image:
    """An image whose config says how it is run."""
    image = Image.build([ONE])
    config = json.dumps({**json.loads(image.config), "config": run}).encode()
    return replace(image, config=config)


def changes(left: Image, right: Image) -> dict[str, tuple[Any, Any]]:
    return {each.path: (each.left, each.right) for each in compared(left, right).fields}


def test_an_image_is_the_same_as_itself() -> None:
    found = compared(Image.build([ONE, TWO]), Image.build([ONE, TWO]))
    assert (found.fields, found.is_same, found.has_same_layers) == ((), True, True)


def test_fields_differ_by_their_paths() -> None:
    left = configured(Env=["A=1", "B=2"], Labels={"x": "1", "org.test/a.b": "1", "it's": "1"}, User="me")
    right = configured(Env=["A=1"], Labels={"x": "1", "org.test/a.b": "2"}, StopSignal="SIGINT")
    assert changes(left, right) == {
        "config.Env": (["A=1", "B=2"], ["A=1"]),
        "config.Labels['org.test/a.b']": ("1", "2"),
        'config.Labels["it\'s"]': ("1", None),
        "config.StopSignal": (None, "SIGINT"),
        "config.User": ("me", None),
    }


def test_what_is_absent_is_the_same_as_what_is_empty() -> None:
    assert changes(configured(Env=None, User="", Labels={}, ArgsEscaped=False), configured()) == {}
    assert changes(configured(Labels={"a": "1"}), configured(Labels=None)) == {"config.Labels.a": ("1", None)}


def test_true_is_not_one() -> None:
    assert changes(configured(ArgsEscaped=True), configured(ArgsEscaped=1)) == {"config.ArgsEscaped": (True, 1)}


def test_layers_are_of_both_or_of_one() -> None:
    found = compared(Image.build([ONE, TWO]), Image.build([ONE, THREE]))
    assert [(pair.left is not None, pair.right is not None) for pair in found.layers] == [
        (True, True),
        (True, False),
        (False, True),
    ]
    assert not found.has_same_layers
    assert not found.is_same


def test_a_layer_that_is_compressed_otherwise_is_the_same() -> None:
    found = compared(Image.build([ONE, TWO]), Image.build([ONE_ZSTD, TWO]))
    assert found.has_same_layers
    (first, _) = found.layers
    assert first.left is not None
    assert first.right is not None
    assert first.left.digest != first.right.digest


def test_layers_in_another_order_are_not_the_same() -> None:
    found = compared(Image.build([ONE, TWO]), Image.build([TWO, ONE]))
    assert (found.is_reordered, found.has_same_layers, found.is_same) == (True, False, False)
    assert all(pair.left and pair.right for pair in found.layers)


def test_a_layer_that_is_there_twice_is_matched_twice() -> None:
    found = compared(Image.build([ONE, ONE, TWO]), Image.build([ONE, TWO]))
    assert [(pair.left is not None, pair.right is not None) for pair in found.layers] == [
        (True, True),
        (True, True),
        (True, False),
    ]


def test_dockers_form_of_an_image_differs_by_its_type_alone() -> None:
    assert [*changes(Image.build([ONE]), Image.build([ONE], docker=True))] == ["manifest.media_type"]


@pytest.mark.parametrize("config", [b"no JSON", b"[]"])
def test_configs_that_cannot_be_read_are_compared_by_their_digests(config: bytes) -> None:
    broken = Image.build([ONE])
    found = compare_images(inspected(broken), inspected(broken), (config, broken.config))
    assert "config_blob" in "".join(each.path for each in found.fields)


def test_artifacts_are_compared_by_what_they_are() -> None:
    charts = [Artifact.build("application/vnd.test.chart", text) for text in (b"one", b"two")]
    left, right = (
        inspect_image(each.descriptor, manifest.parse(each.manifest, each.descriptor.media_type), b"{}", platform=None)
        for each in charts
    )
    found = compare_images(left, right, (b"{}", b"{}"))
    assert found.fields == ()
    assert not found.is_same
    assert compare_images(left, left, (b"{}", b"{}")).is_same
