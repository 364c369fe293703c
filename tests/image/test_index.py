"""Indexes: manifests by platform, as strict as manifests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastoci.errors import FormatError, UnsupportedError
from fastoci.image import index, mediatype
from fastoci.image.index import select
from fastoci.image.links import links
from fastoci.image.platform import Platform

ROW = {
    "mediaType": mediatype.OCI_MANIFEST,
    "digest": "sha256:" + "e" * 64,
    "size": 7143,
    "platform": {"architecture": "ppc64le", "os": "linux"},
}


def body(**fields: object) -> bytes:
    form = {"schemaVersion": 2, "manifests": [ROW], **fields}
    return json.dumps({key: value for key, value in form.items() if value != "absent"}).encode()


def test_an_index_of_the_specification_is_read_in_full() -> None:
    second = {**ROW, "digest": "sha256:" + "5" * 64, "platform": {"architecture": "amd64", "os": "linux"}}
    data = body(mediaType=mediatype.OCI_INDEX, manifests=[ROW, second], annotations={"com.example.key1": "value1"})
    found = index.parse(data, mediatype.OCI_INDEX)
    assert [row.platform for row in found.manifests] == [Platform("linux", "ppc64le"), Platform("linux", "amd64")]
    assert found.annotations == {"com.example.key1": "value1"}
    assert found.media_type == mediatype.OCI_INDEX and found.raw is data
    assert select(found.manifests, Platform.parse("linux/amd64")) is found.manifests[1]


def test_a_docker_list_is_read_with_all_its_fields(shared: Path) -> None:
    data = (shared / "corpora/containers-image/internal/manifest/testdata/v2list.everything.json").read_bytes()
    (row,) = index.parse(data, mediatype.DOCKER_LIST).manifests
    assert row.platform == Platform("b", "a", "e", "c", ("d",))
    assert row.urls == ("https://some.example/manifest",)


@pytest.mark.parametrize("manifests", [[], None])
def test_an_empty_index_is_an_index(manifests: object) -> None:
    assert index.parse(body(manifests=manifests), mediatype.OCI_INDEX).manifests == ()


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"manifests": "absent"}, "manifests"),
        ({"manifests": {}}, "manifests"),
        ({"manifests": [{**ROW, "size": 1.5}]}, r"manifests\[0\]: .*size"),
        ({"manifests": [ROW, {**ROW, "digest": "x"}]}, r"manifests\[1\]"),
        ({"manifests": [{**ROW, "platform": []}]}, "platform"),
        ({"manifests": [{**ROW, "platform": {"OS": "linux"}}]}, "letter case"),
        ({"manifests": [ROW, {**ROW, "size": 1}]}, "7143 and 1 bytes"),
        ({"layers": []}, "layers"),
        ({"config": {}}, "config"),
        ({"config": None}, "config"),
        ({"fsLayers": []}, "fsLayers"),
        ({"Layers": []}, "letter case"),
        ({"schemaVersion": 1}, "schemaVersion"),
        ({"mediaType": mediatype.OCI_MANIFEST}, "it came as .* and says it is"),
    ],
)
def test_an_index_that_is_not_one_raises_format_error(fields: dict[str, object], wrong: str) -> None:
    with pytest.raises(FormatError, match=wrong):
        index.parse(body(**fields), mediatype.OCI_INDEX)


@pytest.mark.parametrize(
    ("broken", "wrong"),
    [
        (None, "null"),
        ({**ROW, "digest": "sha384:" + "0" * 96}, "sha384"),
        ({**ROW, "digest": "sha256:0"}, "64 lower-case hex digits"),
        ({**ROW, "size": -1}, "size"),
        ({"mediaType": ROW["mediaType"], "digest": ROW["digest"]}, "size"),
        ({"digest": ROW["digest"], "size": 7143}, "mediaType"),
        ({**ROW, "platform": {"os": 5}}, "platform.os"),
    ],
)
def test_a_broken_entry_is_left_out_where_one_of_the_others_is_wanted(broken: object, wrong: str) -> None:
    data = body(manifests=[broken, ROW])
    found = index.parse(data, mediatype.OCI_INDEX, choosing=True)
    assert [str(entry.digest) for entry in found.manifests] == [ROW["digest"]]
    assert len(found.unread) == 1 and "manifests[0]" in found.unread[0] and wrong in found.unread[0]
    assert [link.digest for link in links(data, mediatype.OCI_INDEX)][-1] == ROW["digest"]
    for strict in (data, body(manifests=[broken])):
        with pytest.raises((FormatError, UnsupportedError), match=wrong):
            index.parse(strict, mediatype.OCI_INDEX, choosing=strict is not data)


def test_an_index_without_a_version_is_read() -> None:
    assert len(index.parse(body(schemaVersion="absent"), mediatype.OCI_INDEX).manifests) == 1


@pytest.mark.parametrize("media_type", [mediatype.OCI_MANIFEST, mediatype.DOCKER_SCHEMA1, "application/json"])
def test_another_media_type_raises_unsupported_error(media_type: str) -> None:
    with pytest.raises(UnsupportedError, match="not a type of index"):
        index.parse(body(), media_type)


def test_the_index_of_every_layout_is_read(shared: Path) -> None:
    files = [file for file in shared.glob("**/index.json") if "olareg" not in str(file) or "corrupt" not in str(file)]
    assert len(files) > 10
    for file in files:
        index.parse(file.read_bytes(), mediatype.OCI_INDEX)


def test_an_entry_with_a_key_twice_and_those_of_two_sizes_are_left_out() -> None:
    row = json.dumps(ROW)
    twice = row.replace('"size"', '"digest": "sha256:' + "1" * 64 + '", "size"')
    folded = row.replace('"size": 7143', '"size": 7143, "Size": 1').replace("e" * 64, "3" * 64)
    lies = [json.dumps({**ROW, "digest": "sha256:" + "2" * 64, "size": size}) for size in (1, 2)]
    data = b'{"schemaVersion": 2, "manifests": [' + ", ".join([twice, folded, row, *lies]).encode() + b"]}"
    found = index.parse(data, mediatype.OCI_INDEX, choosing=True)
    assert [row.size for row in found.manifests] == [7143]
    for text, words in zip(found.unread, ("duplicate key 'digest'", "letter case", "1 and 2 bytes"), strict=True):
        assert words in text


def test_annotations_of_any_kind_refuse_no_entry() -> None:
    odd: list[object] = [{"a": 1, "b": None, "c": "c"}, [], "text", None]
    data = body(manifests=[{**ROW, "annotations": each} for each in odd], annotations={"x": {}, "y": "y"})
    found = index.parse(data, mediatype.OCI_INDEX)
    assert [row.annotations for row in found.manifests] == [{"b": "", "c": "c"}, {}, {}, {}]
    assert found.annotations == {"y": "y"}
