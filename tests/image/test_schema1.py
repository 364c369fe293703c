"""Docker's schema 1: what its digest covers, what it becomes, and what is none of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastoci.errors import FormatError, UnsupportedError
from fastoci.image import config as configs
from fastoci.image import mediatype, schema1
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.platform import Platform
from fastoci.image.stored_image import CONVERTED, origin
from support.schema1_images import payload_of, protected_of, signed, v1_id

LOW, HIGH = Digest.of(b"low"), Digest.of(b"high")
DIFF_IDS = [Digest.of(b"low tar"), Digest.of(b"high tar")]
PAYLOAD = payload_of([LOW, None, HIGH, None])
SIZES = {LOW: 10, HIGH: 20}


def changed(old: str, new: str, payload: bytes = PAYLOAD) -> bytes:
    """The manifest with another text in it."""
    assert old.encode() in payload
    return payload.replace(old.encode(), new.encode())


def test_the_digest_covers_what_was_signed_and_not_the_signatures() -> None:
    assert schema1.payload_of(signed(PAYLOAD)) == schema1.payload_of(PAYLOAD) == PAYLOAD


def test_layers_are_those_steps_that_were_not_thrown_away_the_lowest_first() -> None:
    image = schema1.parse(PAYLOAD)
    assert image.layers == (LOW, HIGH)
    assert [step.layer for step in image.steps] == [LOW, None, HIGH, None]
    assert image.platform == Platform("linux", "amd64")


def test_it_becomes_an_image_of_schema_2_with_a_config_and_a_history() -> None:
    made, raw = schema1.converted(schema1.parse(PAYLOAD), SIZES, DIFF_IDS)
    assert made.config == Descriptor.of(raw, mediatype.DOCKER_CONFIG)
    assert [(layer.digest, layer.size, layer.media_type) for layer in made.layers] == [
        (LOW, 10, mediatype.DOCKER_LAYER_GZIP),
        (HIGH, 20, mediatype.DOCKER_LAYER_GZIP),
    ]
    assert configs.parse(raw).diff_ids == tuple(DIFF_IDS)
    document = json.loads(raw)
    assert not document.keys() & {"id", "parent", "throwaway"}
    assert document["config"] == {"Cmd": ["sh"], "Healthcheck": {}}
    assert document["history"][1] == {
        "created": "2016-06-23T23:23:02.12Z",
        "created_by": "/bin/sh -c step <2>",
        "empty_layer": True,
    }
    assert b"\\u003c2\\u003e" in raw  # as Go writes it: so the id is the one that docker gives


def test_busybox_becomes_what_skopeo_makes_of_it(shared: Path) -> None:
    data = (shared / "images/busybox-schema1-dir/manifest.json").read_bytes()
    payload = schema1.payload_of(data)
    assert str(Digest.of(payload)) == "sha256:65ce39ce3eb0997074a460adfb568d0b9f0f6a4392d97b6035630c9d7bf92402"
    image = schema1.parse(payload)
    diff_id = Digest.parse("sha256:8ac8bfaff55af948c796026ee867448c5b5b5d9dd3549f4006d9759b25d4a893")
    made, _ = schema1.converted(image, {image.layers[0]: 667590}, [diff_id])
    assert str(Digest.of(made.raw)) == "sha256:b1c302ecc8e21804a288491cedfed9bd3db972ac8367ccab7340b33ecd1cb8eb"


def test_a_step_that_old_dockers_wrote_twice_counts_once() -> None:
    document = json.loads(payload_of([LOW, HIGH]))
    for name in ("history", "fsLayers"):
        document[name].insert(0, document[name][0])
    assert schema1.parse(json.dumps(document).encode()).layers == (LOW, HIGH)


def test_what_is_not_said_is_not_made_up() -> None:
    payload = payload_of([LOW], created="yesterday", author="me", comment='"', os=None, container_config={"Cmd": "sh"})
    assert schema1.parse(payload).steps == (schema1.Step("0001-01-01T00:00:00Z", "me", "sh", '"', LOW),)


def test_a_converted_manifest_has_another_digest_where_it_came_from() -> None:
    here = Descriptor.of(b"{}", mediatype.DOCKER_MANIFEST)
    there = Descriptor(here.media_type, here.digest, here.size, annotations={CONVERTED: str(LOW)})
    assert (origin(here), origin(there)) == (here.digest, LOW)


_HEAD = len(PAYLOAD) - 2
UNSIGNED = {
    "signatures that are a number": changed('"schemaVersion": 1', '"signatures": 1'),
    "no signature": changed('"schemaVersion": 1', '"signatures": []'),
    "signatures of two documents": signed(PAYLOAD, protected_of(_HEAD, b"\n}"), protected_of(_HEAD, b" }")),
    "one of more bytes than there are": signed(PAYLOAD, protected_of(1 << 62, b"\n}")),
    "one of no bytes": signed(PAYLOAD, protected_of(0, PAYLOAD)),
    "one of fewer than none": signed(PAYLOAD, protected_of(-1, b"\n}")),
    "one of half a byte": signed(PAYLOAD, protected_of(1.5, b"\n}")),
    "one that is no JSON": signed(PAYLOAD, "AAAA"),
    "one that is not in base64": signed(PAYLOAD, "!"),
    "two lists of signatures": signed(signed(PAYLOAD)),
}


@pytest.mark.attack
@pytest.mark.parametrize("name", UNSIGNED)
def test_signatures_that_do_not_say_what_they_sign_are_refused(name: str) -> None:
    with pytest.raises(FormatError):
        schema1.payload_of(UNSIGNED[name])


@pytest.mark.attack
def test_what_is_not_signed_is_not_read() -> None:
    other = signed(PAYLOAD).replace(str(HIGH).encode(), str(LOW).encode())
    assert schema1.payload_of(other) != PAYLOAD  # and so has another digest
    more = signed(PAYLOAD)[:-1] + b', "fsLayers": [], "name": "evil"}'
    assert schema1.payload_of(more) == PAYLOAD


REFUSED = {
    "one that is still signed": signed(PAYLOAD),
    "another version": changed('"schemaVersion": 1', '"schemaVersion": 2'),
    "one that is a manifest of schema 2, too": changed('"name"', '"layers": [], "name"'),
    "one that is an index, too": changed('"name"', '"manifests": [], "name"'),
    "one that says that it is something else": changed('"name"', '"mediaType": "text/plain", "name"'),
    "no steps": payload_of([LOW]).replace(b'"history"', b'"x"'),
    "more layers than steps": changed('"fsLayers": [', f'"fsLayers": [{{"blobSum": "{LOW}"}},'),
    "one key twice": changed('"name"', '"history": [], "name"'),
    "a path as a blob": changed(str(LOW), "sha256:../../etc/shadow"),
    "an id that is a path": changed(v1_id(1), "../" * 21 + "a"),
    "a parent that is not there": changed(f'\\"parent\\": \\"{v1_id(1)}', f'\\"parent\\": \\"{v1_id(9)}'),
    "a parent of the lowest": payload_of([LOW], parent=v1_id(9)),
    "an id of two steps": changed(f'\\"id\\": \\"{v1_id(4)}', f'\\"id\\": \\"{v1_id(2)}'),
    "one id of two blobs": changed(f'\\"id\\": \\"{v1_id(2)}', f'\\"id\\": \\"{v1_id(1)}'),
    "a v1 image that is no JSON": payload_of([LOW]).replace(b'"{', b'"'),
    "a v1 image in a nest": payload_of([LOW], x=0).replace(b'\\"x\\": 0', b'\\"x\\": ' + b"[" * 900 + b"]" * 900),
    "half a character": payload_of([LOW], comment="?").replace(b"?", b"\\\\ud800"),
}


@pytest.mark.attack
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_one_image_of_schema_1_is_refused(name: str) -> None:
    with pytest.raises(FormatError) as caught:
        schema1.parse(REFUSED[name])
    assert len(str(caught.value)) < 1000


@pytest.mark.attack
def test_a_blob_by_a_digest_that_cannot_be_verified_is_refused() -> None:
    with pytest.raises(UnsupportedError):
        schema1.parse(changed(str(LOW), "md5:" + "a" * 32))
