"""The hostile documents of ``shared/corpora``, and the rest of their kinds, made here."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci.errors import FastociError, FormatError, UnsupportedError
from fastoci.image import config, index, manifest, mediatype
from fastoci.image.index import select
from fastoci.image.platform import Platform

# Its only fault is its length, which the one who reads it from the network bounds.
LENGTH = {"manifests/M12-annotations-5mib.json.gz"}

DIGEST = "sha256:" + "a" * 64


def read(data: bytes, media_type: str | None, layers: int = 1) -> object:
    """Read a document as a pull does."""
    if media_type is None or media_type == "text/html":
        media_type = manifest.sniff(data)
    if media_type in mediatype.INDEXES:
        return index.parse(data, media_type)
    if media_type == mediatype.OCI_CONFIG:
        found = config.parse(data)
        found.check_layers(layers)
        return found
    return manifest.parse(data, media_type)


def test_every_hostile_document_is_accepted_or_refused_as_expected(shared: Path) -> None:
    folder = shared / "corpora/hostile"
    cases = json.loads((folder / "expected_manifests.json").read_text())["cases"]
    assert len(cases) > 40
    for case in cases:
        data = (folder / case["file"]).read_bytes()
        data = gzip.decompress(data) if case["gz"] else data
        try:
            read(data, case["content_type"])
        except (FormatError, UnsupportedError):
            outcome = "reject"
        else:
            outcome = "accept"
        if case["expect"] != "contain" and case["file"] not in LENGTH:
            assert outcome == case["expect"], case


def body(size: object = 1, **fields: object) -> bytes:
    descriptor = {"mediaType": mediatype.OCI_LAYER_GZIP, "digest": DIGEST, "size": size}
    return json.dumps({"schemaVersion": 2, "config": descriptor, "layers": [descriptor], **fields}).encode()


REFUSED: dict[str, Callable[[], object]] = {
    "a digest with an upper-case letter": lambda: read(body().replace(b"aaaa", b"aaaA"), mediatype.OCI_MANIFEST),
    "an empty digest": lambda: read(body().replace(DIGEST.encode(), b""), mediatype.OCI_MANIFEST),
    "a digest with a NUL": lambda: read(body().replace(b"aaaa", b"aa\\u0000a"), mediatype.OCI_MANIFEST),
    "a boolean size": lambda: read(body(True), mediatype.OCI_MANIFEST),
    "a size of 2^63": lambda: read(body(2**63), mediatype.OCI_MANIFEST),
    "a size of 2^64 + 1": lambda: read(body(2**64 + 1), mediatype.OCI_MANIFEST),
    "a nesting bomb in annotations": lambda: read(
        body(x=0).replace(b'"x": 0', b'"x": ' + b"[" * 100_000 + b"]" * 100_000), mediatype.OCI_MANIFEST
    ),
    "a byte order mark": lambda: read(b"\xef\xbb\xbf" + body(), mediatype.OCI_MANIFEST),
    "one digest with two sizes": lambda: read(
        body(config={"mediaType": "a/b", "digest": DIGEST, "size": 2}), mediatype.OCI_MANIFEST
    ),
    "a schema 1 manifest by its type": lambda: read(
        b'{"schemaVersion":1,"fsLayers":[]}', mediatype.DOCKER_SCHEMA1_SIGNED
    ),
    "a schema 1 manifest as another": lambda: read(b'{"schemaVersion":1,"fsLayers":[]}', mediatype.OCI_MANIFEST),
    "a schema 1 manifest by its look": lambda: read(b'{"schemaVersion":1,"fsLayers":[]}', None),
    "a path as a diff_id": lambda: read(
        b'{"rootfs":{"type":"layers","diff_ids":["sha256:../../etc/shadow"]}}', mediatype.OCI_CONFIG
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_hostile_documents_are_refused(name: str) -> None:
    with pytest.raises((FormatError, UnsupportedError)) as caught:
        REFUSED[name]()
    assert len(str(caught.value)) < 1000


def test_ten_thousand_layers_parse_for_the_engine_to_count() -> None:
    row = {"mediaType": mediatype.OCI_LAYER_GZIP, "digest": DIGEST, "size": 1}
    assert len(manifest.parse(body(layers=[row] * 10_000), mediatype.OCI_MANIFEST).layers) == 10_000


def test_an_index_of_ten_thousand_gives_the_same_choice_every_time() -> None:
    rows = [
        {"mediaType": mediatype.OCI_MANIFEST, "digest": f"sha256:{number:064x}", "size": 1, "platform": platform}
        for number in range(10_000)
        for platform in [{"os": "linux", "architecture": "arm64" if number % 3 else "amd64"}]
    ]
    attestation = {**rows[0], "digest": "sha256:" + "f" * 64, "platform": {"os": "unknown", "architecture": "unknown"}}
    data = json.dumps({"schemaVersion": 2, "manifests": [attestation, *rows]}).encode()
    found = index.parse(data, mediatype.OCI_INDEX)
    assert select(found.manifests, Platform.parse("linux/amd64")) is found.manifests[1]
    assert select(found.manifests, Platform.parse("linux/arm64")) is found.manifests[2]


@pytest.mark.parametrize("cut", range(0, 300, 7))
def test_a_document_cut_anywhere_is_a_typed_error(cut: int) -> None:
    data = body()
    with pytest.raises(FastociError):
        manifest.parse(data[: min(cut, len(data) - 1)], mediatype.OCI_MANIFEST)
