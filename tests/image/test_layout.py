"""The two small documents of a layout."""

from __future__ import annotations

import json

import pytest

from fastoci.errors import FormatError, UnsupportedError
from fastoci.image import index, layout, mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.platform import Platform


def test_what_is_written_as_oci_layout_is_read() -> None:
    assert layout.parse_layout(layout.OCI_LAYOUT) == "1.0.0"
    assert layout.parse_layout(b'{"imageLayoutVersion": "1.1.0", "more": 1}\n') == "1.1.0"


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"imageLayoutVersion":1}', b'{"ImageLayoutVersion":"1.0.0"}'])
def test_a_bad_oci_layout_raises_format_error(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"^oci-layout: "):
        layout.parse_layout(data)


@pytest.mark.parametrize("version", ["2.0.0", "10.0.0", "", "1"])
def test_another_version_raises_unsupported_error(version: str) -> None:
    with pytest.raises(UnsupportedError):
        layout.parse_layout(json.dumps({"imageLayoutVersion": version}).encode())


def test_an_index_is_written_in_order_and_reads_back() -> None:
    entries = [
        Descriptor.of(b"b", mediatype.OCI_MANIFEST),
        Descriptor(
            mediatype.OCI_INDEX,
            Descriptor.of(b"a", "").digest,
            1,
            annotations={layout.REF_NAME: "docker.io/library/redis:7", "a": "é"},
            platform=Platform("linux", "arm64"),
        ),
    ]
    data = layout.encode_index(entries)
    assert index.parse(data, mediatype.OCI_INDEX).manifests == tuple(entries)
    assert data.endswith(b"}\n") and b"\n  " in data


def test_the_same_entries_give_the_same_bytes() -> None:
    one = Descriptor("a/b", Descriptor.of(b"", "").digest, 0, annotations={"a": "1", "b": "2"})
    other = Descriptor("a/b", Descriptor.of(b"", "").digest, 0, annotations={"b": "2", "a": "1"})
    assert layout.encode_index([one]) == layout.encode_index([other])


def test_an_empty_index_is_an_index() -> None:
    assert index.parse(layout.encode_index([]), mediatype.OCI_INDEX).manifests == ()
