"""Image manifests: what is read, what is refused, and what a body without a media type is.

Covers: image/mediatype.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastoci.errors import FormatError, UnsupportedError
from fastoci.image import config, index, manifest, mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.links import links

CONFIG = {"mediaType": mediatype.OCI_CONFIG, "digest": "sha256:" + "c" * 64, "size": 7023}
LAYER = {"mediaType": mediatype.OCI_LAYER_GZIP, "digest": "sha256:" + "1" * 64, "size": 32654}
LAYER2 = {"mediaType": mediatype.OCI_LAYER_ZSTD, "digest": "sha256:" + "2" * 64, "size": 16724}
SUBJECT = {"mediaType": mediatype.OCI_MANIFEST, "digest": "sha256:" + "5" * 64, "size": 7682}


def body(**fields: object) -> bytes:
    form = {"schemaVersion": 2, "config": CONFIG, "layers": [LAYER, LAYER2], **fields}
    return json.dumps({key: value for key, value in form.items() if value != "absent"}).encode()


def test_a_manifest_of_the_specification_is_read_in_full() -> None:
    data = body(
        mediaType=mediatype.OCI_MANIFEST,
        subject=SUBJECT,
        artifactType="application/vnd.example+type",
        annotations={"com.example.key1": "value1"},
        unknown={"is": ["ignored"]},
    )
    found = manifest.parse(data, mediatype.OCI_MANIFEST)
    assert found.media_type == mediatype.OCI_MANIFEST
    assert found.config == Descriptor(mediatype.OCI_CONFIG, Digest("sha256", "c" * 64), 7023)
    assert [layer.size for layer in found.layers] == [32654, 16724]
    assert found.layers[1].media_type == mediatype.OCI_LAYER_ZSTD
    assert found.subject is not None and found.subject.digest == Digest("sha256", "5" * 64)
    assert found.artifact_type == "application/vnd.example+type"
    assert found.annotations == {"com.example.key1": "value1"}
    assert found.raw is data


def test_what_is_optional_may_be_absent_or_null() -> None:
    plain = manifest.parse(body(), mediatype.OCI_MANIFEST)
    nulls = body(mediaType=None, subject=None, artifactType=None, annotations=None)
    null = manifest.parse(nulls, mediatype.OCI_MANIFEST)
    assert (plain.config, plain.layers, plain.subject) == (null.config, null.layers, null.subject)
    assert plain.subject is None and plain.artifact_type == null.artifact_type == ""


def test_docker_schema_2_is_read_alike() -> None:
    data = body(mediaType=mediatype.DOCKER_MANIFEST)
    assert len(manifest.parse(data, mediatype.DOCKER_MANIFEST).layers) == 2


@pytest.mark.parametrize("layers", [[], None, "absent"])
def test_a_manifest_without_layers_has_an_empty_list_of_them(layers: object) -> None:
    data = body(layers=layers)
    assert manifest.parse(data, mediatype.OCI_MANIFEST).layers == ()
    assert [link.digest for link in links(data, mediatype.OCI_MANIFEST)] == [CONFIG["digest"]]


def test_a_manifest_without_a_version_is_read() -> None:
    assert len(manifest.parse(body(schemaVersion="absent"), mediatype.OCI_MANIFEST).layers) == 2


def test_a_docker_type_stands_for_its_kind_of_oci_and_for_no_other() -> None:
    data = body(mediaType=mediatype.OCI_MANIFEST)
    assert manifest.own_type(data, mediatype.DOCKER_MANIFEST) == mediatype.OCI_MANIFEST
    assert manifest.own_type(data, mediatype.DOCKER_LIST) == mediatype.DOCKER_LIST
    assert manifest.own_type(body(), mediatype.DOCKER_MANIFEST) == mediatype.DOCKER_MANIFEST


def test_an_annotation_that_is_null_is_an_empty_one() -> None:
    found = manifest.parse(body(annotations={"a": None, "b": "c"}), mediatype.OCI_MANIFEST)
    assert found.annotations == {"a": "", "b": "c"}


@pytest.mark.parametrize(
    ("config_type", "is_image"),
    [
        (mediatype.OCI_CONFIG, True),
        (mediatype.DOCKER_CONFIG, True),
        ("application/octet-stream", True),
        ("application/json", True),
        ("text/html", True),
        ("application/vnd.oci.empty.v1+json", False),
        ("application/vnd.cncf.helm.config.v1+json", False),
        (mediatype.OCI_LAYER_GZIP, False),
    ],
)
def test_the_type_of_the_config_tells_an_image_from_an_artifact(config_type: str, is_image: bool) -> None:
    data = body(config={**CONFIG, "mediaType": config_type})
    assert manifest.parse(data, mediatype.OCI_MANIFEST).is_image is is_image


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"layers": {}}, "layers"),
        ({"layers": [None]}, r"layers\[0\]"),
        ({"layers": [LAYER, {**LAYER2, "size": -1}]}, r"layers\[1\].size"),
        ({"layers": [LAYER, {**LAYER2, "digest": "sha256:.."}]}, r"layers\[1\]"),
        ({"config": "absent"}, "config"),
        ({"config": None}, "config"),
        ({"config": {**CONFIG, "digest": ""}}, "config"),
        ({"subject": {**SUBJECT, "size": "1"}}, "subject.size"),
        ({"schemaVersion": 1}, "schemaVersion"),
        ({"schemaVersion": 3}, "schemaVersion"),
        ({"schemaVersion": "2"}, "schemaVersion"),
        ({"schemaVersion": 2.0}, "schemaVersion"),
        ({"schemaVersion": True}, "schemaVersion"),
        ({"layers": [{**LAYER, "annotations": {}, "size": "1"}]}, "size"),
        ({"mediaType": mediatype.OCI_INDEX}, "it came as .* and says it is"),
        ({"mediaType": mediatype.DOCKER_MANIFEST}, "it came as .* and says it is"),
        ({"mediaType": 1}, "mediaType"),
        ({"manifests": []}, "manifests"),
        ({"manifests": None}, "manifests"),
        ({"fsLayers": []}, "fsLayers"),
        ({"Manifests": []}, "letter case"),
        ({"FSLayers": []}, "letter case"),
        ({"MediaType": mediatype.OCI_INDEX}, "letter case"),
        ({"Layers": []}, "letter case"),
        ({"layers": [{**LAYER, "Digest": LAYER2["digest"]}]}, "letter case"),
        ({"subject": {**SUBJECT, "Size": 1}}, "letter case"),
        ({"layers": [LAYER, {**LAYER, "size": 1}]}, "32654 and 1 bytes"),
        ({"config": {**LAYER, "size": 1}}, "1 and 32654 bytes"),
        ({"subject": {**LAYER, "size": 1}}, "32654 and 1 bytes"),
    ],
)
def test_a_manifest_that_is_not_one_raises_format_error(fields: dict[str, object], wrong: str) -> None:
    with pytest.raises(FormatError, match=wrong) as caught:
        manifest.parse(body(**fields), mediatype.OCI_MANIFEST)
    assert type(caught.value) is FormatError


@pytest.mark.parametrize(
    ("media_type", "wrong"),
    [
        (mediatype.OCI_INDEX, "index"),
        (mediatype.DOCKER_LIST, "index"),
        (mediatype.DOCKER_SCHEMA1, "schema 1"),
        (mediatype.DOCKER_SCHEMA1_SIGNED, "schema 1"),
        ("text/html", "not a type of manifest"),
        ("", "not a type of manifest"),
    ],
)
def test_another_media_type_raises_unsupported_error_that_names_it(media_type: str, wrong: str) -> None:
    with pytest.raises(UnsupportedError, match=wrong):
        manifest.parse(body(), media_type)


def test_every_row_of_the_media_type_table_is_guessed_as_published(shared: Path) -> None:
    tables = shared / "corpora/tables"
    for row in json.loads((tables / "manifest_mime.json").read_text())["cases"]:
        data = (tables / row["file"]).read_bytes()
        if row["mime"]:
            assert manifest.sniff(data) == row["mime"], row
        else:
            with pytest.raises(FormatError):
                manifest.sniff(data)


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (body(), mediatype.OCI_MANIFEST),
        (body(config={**CONFIG, "mediaType": mediatype.DOCKER_CONFIG}), mediatype.DOCKER_MANIFEST),
        (body(mediaType=mediatype.DOCKER_MANIFEST), mediatype.DOCKER_MANIFEST),
        (b'{"schemaVersion":2,"manifests":[]}', mediatype.OCI_INDEX),
        (b'{"schemaVersion":1,"fsLayers":[]}', mediatype.DOCKER_SCHEMA1),
        (b'{"schemaVersion":1,"fsLayers":[],"signatures":[]}', mediatype.DOCKER_SCHEMA1_SIGNED),
    ],
)
def test_a_body_is_told_by_its_word_or_its_fields(data: bytes, media_type: str) -> None:
    assert manifest.sniff(data) == media_type


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>",
        b"{}",
        b'{"schemaVersion":2}',
        b'{"schemaVersion":3,"config":{},"layers":[]}',
        b'{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}',
        b'{"schemaVersion":2,"config":{}}',
        b'{"schemaVersion":2,"config":null,"layers":[]}',
        b'{"schemaVersion":1,"fsLayers":[],"layers":[]}',
        b'{"schemaVersion":2,"fsLayers":[]}',
        b'{"mediaType":"a","mediaType":"b"}',
        b'{"schemaVersion":2,"manifests":[],"MediaType":"x"}',
    ],
)
def test_a_body_that_says_nothing_or_several_things_raises_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        manifest.sniff(data)


def documents_of_layouts(shared: Path) -> dict[Path, Any]:
    """Every blob of the real layouts that is a manifest, index or config."""
    found: dict[Path, Any] = {}
    for file in (shared / "images").glob("**/blobs/*/*"):
        if file.stat().st_size < 1 << 20 and file.read_bytes()[:1] == b"{":
            try:
                found[file] = json.loads(file.read_bytes())
            except ValueError:
                continue  # olareg's corrupt layout
    return found


def test_every_document_of_the_real_layouts_is_read(shared: Path) -> None:
    kinds: dict[str, Callable[[bytes, dict[str, Any]], object]] = {
        "layers": lambda data, form: manifest.parse(data, form.get("mediaType") or manifest.sniff(data)),
        "manifests": lambda data, form: index.parse(data, form.get("mediaType") or manifest.sniff(data)),
        "rootfs": lambda data, form: config.parse(data),
    }
    read = dict.fromkeys(kinds, 0)
    for file, form in documents_of_layouts(shared).items():
        kind = next((name for name in kinds if isinstance(form, dict) and name in form), None)
        if kind is not None:
            kinds[kind](file.read_bytes(), form)
            read[kind] += 1
    assert all(count > 10 for count in read.values()), read


def test_the_documents_of_other_tools_are_read_or_refused_in_their_words(shared: Path) -> None:
    folder = shared / "corpora/containers-image/internal/manifest/testdata"
    for name in ("ociv1.manifest.json", "v2s2.manifest.json", "v2s2nomime.manifest.json"):
        data = (folder / name).read_bytes()
        assert manifest.parse(data, manifest.sniff(data)).raw == data
    for name in ("ociv1.artifact.json", "ociv1nomime.artifact.json", "non-json.manifest.json"):
        with pytest.raises(FormatError):
            manifest.parse((folder / name).read_bytes(), mediatype.OCI_MANIFEST)
