"""Descriptors: values, and their JSON form."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastoci.errors import FormatError, UnsupportedError
from fastoci.image import document, mediatype
from fastoci.image.descriptor import Descriptor, DescriptorForm, check_sizes, encode
from fastoci.image.digest import Digest
from fastoci.image.platform import Platform

DIGEST = "sha256:" + "a" * 64


def decode(**fields: object) -> Descriptor:
    form = {"mediaType": "a/b", "digest": DIGEST, "size": 1, **fields}
    data = json.dumps({key: value for key, value in form.items() if value != "absent"}).encode()
    return document.decode(data, DescriptorForm, what="thing").value("thing")


def test_a_descriptor_of_bytes_has_their_digest_and_size() -> None:
    descriptor = Descriptor.of(b"{}", mediatype.OCI_CONFIG)
    assert descriptor == Descriptor(mediatype.OCI_CONFIG, Digest.of(b"{}"), 2)


def test_a_descriptor_is_frozen_and_hashable_whatever_its_annotations() -> None:
    descriptor = Descriptor("a/b", Digest.of(b""), 0, annotations={"a": "b"})
    assert {descriptor: 1}[Descriptor("a/b", Digest.of(b""), 0, annotations=MappingProxyType({"a": "b"}))] == 1
    assert descriptor != Descriptor("a/b", Digest.of(b""), 0)
    with pytest.raises(AttributeError):
        descriptor.size = 1  # type: ignore[misc]


@pytest.mark.parametrize("size", [0, 1, 2**62, 2**63 - 1])
def test_sizes_to_the_last_that_fits_are_accepted(size: int) -> None:
    assert decode(size=size).size == size


@pytest.mark.parametrize("size", [-1, 1.0, 1e3, "5", True, None, [], 2**63, 2**64, 2**100, "absent"])
def test_any_other_size_raises_format_error(size: object) -> None:
    with pytest.raises(FormatError, match="size"):
        decode(size=size)


@pytest.mark.parametrize("media_type", ["a\r\nb: c", "a/b\n", "é", "a" * 256, None, 1, "absent"])
def test_a_media_type_that_cannot_be_a_header_raises_format_error(media_type: object) -> None:
    with pytest.raises(FormatError):
        decode(mediaType=media_type)


@pytest.mark.parametrize("media_type", ["x-completely-unknown", ""])
def test_unknown_media_types_are_accepted(media_type: str) -> None:
    assert decode(mediaType=media_type).media_type == media_type


def test_empty_data_of_content_is_none() -> None:
    assert decode(data="").data is None


@pytest.mark.parametrize("digest", ["", "sha256:../x", DIGEST + "\n", DIGEST.upper(), None, 1, "absent"])
def test_a_bad_digest_raises_format_error_with_its_exit_code(digest: object) -> None:
    with pytest.raises(FormatError) as caught:
        decode(digest=digest)
    assert caught.value.exit_code == FormatError.exit_code


def test_a_digest_of_another_algorithm_raises_unsupported_error_that_says_where() -> None:
    with pytest.raises(UnsupportedError, match=r"^thing: "):
        decode(digest=f"blake3:{'a' * 64}")


def test_absent_and_null_mean_the_same() -> None:
    optional = ("urls", "annotations", "data", "platform", "artifactType")
    assert decode(**dict.fromkeys(optional)) == decode()
    platform = decode(platform={"os": "linux", "architecture": "arm", "variant": None}).platform
    assert platform == Platform("linux", "arm")


def test_a_platform_keeps_the_spelling_of_its_document() -> None:
    form = {"os": "Windows", "architecture": "x86_64", "os.version": "10.0.1", "os.features": ["win32k"]}
    assert decode(platform=form).platform == Platform("Windows", "x86_64", "", "10.0.1", ("win32k",))
    assert decode(platform={**form, "os.features": None}).platform == Platform("Windows", "x86_64", "", "10.0.1")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_data_is_held_against_digest_and_size(algorithm: str) -> None:
    digest = str(Digest.of(b"{}", algorithm))
    assert decode(digest=digest, size=2, data="e30=").data == b"{}"
    assert decode(digest=str(Digest.of(b"")), size=0, data="").data == b""
    for wrong in ({"size": 3}, {"data": "e31d"}, {"digest": DIGEST}):
        with pytest.raises(FormatError, match="bytes of data are not"):
            decode(**{"digest": digest, "size": 2, "data": "e30=", **wrong})


@pytest.mark.parametrize("data", ["***", "e30", "e3 0=", 1])
def test_data_that_is_not_base64_raises_format_error(data: object) -> None:
    with pytest.raises(FormatError, match="data"):
        decode(digest=str(Digest.of(b"{}")), size=2, data=data)


def test_one_digest_with_two_sizes_raises_format_error_with_both() -> None:
    same = Descriptor("a/b", Digest.of(b""), 5)
    check_sizes([same, same, Descriptor("c/d", Digest.of(b""), 5)], "thing")
    with pytest.raises(FormatError, match="5 and 6 bytes"):
        check_sizes([same, Descriptor("a/b", Digest.of(b""), 6)], "thing")


_TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
_DESCRIPTORS = st.builds(
    lambda data, media_type, keep, **rest: Descriptor(
        media_type, Digest.of(data), len(data), data=data if keep else None, **rest
    ),
    st.binary(max_size=8),
    st.sampled_from([mediatype.OCI_MANIFEST, mediatype.OCI_LAYER_ZSTD, "text/plain; charset=utf-8"]),
    st.booleans(),
    urls=st.lists(_TEXT, max_size=2).map(tuple),
    annotations=st.dictionaries(_TEXT, _TEXT, max_size=3),
    platform=st.none() | st.builds(Platform, _TEXT, _TEXT, _TEXT, _TEXT, st.lists(_TEXT, max_size=2).map(tuple)),
    artifact_type=_TEXT,
)


@settings(database=None)
@given(_DESCRIPTORS)
def test_the_json_form_round_trips(descriptor: Descriptor) -> None:
    data = json.dumps(encode(descriptor)).encode()
    assert document.decode(data, DescriptorForm, what="thing").value("thing") == descriptor
