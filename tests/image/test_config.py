"""Image configs: the platform and the diff_ids."""

from __future__ import annotations

import json

import pytest

from fastoci.errors import FormatError, UnsupportedError
from fastoci.image import config
from fastoci.image.digest import Digest
from fastoci.image.platform import Platform

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def body(**fields: object) -> bytes:
    form = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [A, B]}, **fields}
    return json.dumps({key: value for key, value in form.items() if value != "absent"}).encode()


def test_a_config_of_the_specification_is_read() -> None:
    data = body(
        created="2015-10-31T22:22:56.015925234Z",
        variant="v3",
        config={"User": "alice", "Env": ["PATH=/bin"], "Volumes": None, "Labels": {"os": "x", "OS": "y"}},
        history=[{"created_by": "/bin/sh", "empty_layer": True}],
    )
    found = config.parse(data)
    assert found.diff_ids == (Digest.parse(A), Digest.parse(B))
    assert (found.os, found.architecture, found.variant) == ("linux", "amd64", "v3")
    assert found.created == "2015-10-31T22:22:56.015925234Z"
    assert found.raw is data


def test_the_platform_is_normalised() -> None:
    assert config.parse(body(architecture="aarch64", variant="v8")).platform == Platform("linux", "arm64")


def test_what_a_pull_does_not_depend_on_may_be_absent_or_null() -> None:
    found = config.parse(b'{"rootfs":{"type":"layers","diff_ids":null},"created":null}')
    assert (found.os, found.architecture, found.created, found.diff_ids) == ("", "", "", ())


@pytest.mark.parametrize("data", [b"{}", b'{"rootfs":null}'])
def test_an_empty_config_is_read_and_fits_no_layer(data: bytes) -> None:
    found = config.parse(data)
    assert (found.os, found.diff_ids) == ("", ())
    with pytest.raises(FormatError, match="1 layers, the config 0 diff_ids"):
        found.check_layers(1)


def test_the_number_of_layers_is_held_against_the_diff_ids() -> None:
    found = config.parse(body())
    found.check_layers(2)
    with pytest.raises(FormatError, match="3 layers, the config 2 diff_ids"):
        found.check_layers(3)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"rootfs": {"type": "magic", "diff_ids": []}}, "rootfs.type"),
        ({"rootfs": {"diff_ids": [A, "sha256:../../x"]}}, r"diff_ids\[1\]"),
        ({"rootfs": {"diff_ids": [A + "\n"]}}, r"diff_ids\[0\]"),
        ({"rootfs": {"diff_ids": [1]}}, r"diff_ids\[0\]"),
        ({"rootfs": {"diff_ids": A}}, "diff_ids"),
        ({"rootfs": {"diff_ids": [A], "Diff_IDs": [B]}}, "letter case"),
        ({"Rootfs": {}}, "letter case"),
        ({"os": 1}, "os"),
    ],
)
def test_a_config_that_is_not_one_raises_format_error(fields: dict[str, object], wrong: str) -> None:
    with pytest.raises(FormatError, match=wrong):
        config.parse(body(**fields))


def test_a_diff_id_of_another_algorithm_raises_unsupported_error() -> None:
    with pytest.raises(UnsupportedError, match=r"diff_ids\[0\].*md5"):
        config.parse(body(rootfs={"diff_ids": [f"md5:{'a' * 32}"]}))
