"""Digests: the published table, and what must never become a path."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastoci.errors import FastociError, ReferenceSyntaxError, UnsupportedError
from fastoci.image.digest import Digest

A = "a" * 64


def test_every_row_of_the_digest_table_is_read_as_published(shared: Path) -> None:
    for row in json.loads((shared / "corpora/tables/digest_parse.json").read_text())["cases"]:
        if "Err" not in row:
            digest = Digest.parse(row["Input"])
            assert (digest.algorithm, digest.hex, str(digest)) == (row["Algorithm"], row["Encoded"], row["Input"])
            continue
        expected = UnsupportedError if "Unsupported" in row["Err"] else FastociError
        with pytest.raises(expected):
            Digest.parse(row["Input"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        A,
        f"sha256:{A[1:]}",
        f"sha256:{A}a",
        f"sha256:{A}\n",
        f"sha256:{A.upper()}",
        f"SHA256:{A}",
        f" sha256:{A}",
        f"sha256:{'.' * 64}",
        f"sha256:{'/' * 64}",
        f"sha256:{'٣' * 64}",
        f"sha512:{A}",
        f"sha256::{A}",
        f"sha256:{A}:",
    ],
)
def test_what_is_not_exactly_a_digest_raises_reference_syntax_error(text: str) -> None:
    with pytest.raises(ReferenceSyntaxError):
        Digest.parse(text)


@pytest.mark.parametrize("text", [f"blake3:{A}", f"md5:{A}", "sha256+b64:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564"])
def test_another_algorithm_raises_unsupported_error(text: str) -> None:
    with pytest.raises(UnsupportedError, match="not supported"):
        Digest.parse(text)


def test_a_digest_cannot_be_made_of_bad_parts() -> None:
    with pytest.raises(ReferenceSyntaxError):
        Digest("sha256", "../../etc/passwd")
    with pytest.raises(UnsupportedError):
        Digest.of(b"", "md5")


def test_a_long_bad_digest_is_cut_in_the_message() -> None:
    with pytest.raises(ReferenceSyntaxError) as caught:
        Digest.parse("sha256:" + "/" * 100_000)
    assert len(str(caught.value)) < 400


@settings(database=None)
@given(st.binary(max_size=200), st.sampled_from(["sha256", "sha512"]))
def test_a_digest_round_trips(data: bytes, algorithm: str) -> None:
    digest = Digest.of(data, algorithm)
    assert digest.hex == hashlib.new(algorithm, data).hexdigest()
    assert Digest.parse(str(digest)) == digest
    assert hash(Digest.parse(str(digest))) == hash(digest)


@settings(database=None)
@given(st.text(max_size=80) | st.from_regex(r"[a-z0-9+._-]{0,8}:[a-fA-F0-9]{0,65}\n?"))
def test_any_text_is_a_digest_or_a_typed_error(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except FastociError:
        return
    assert str(digest) == text
    assert set(digest.hex) <= set("0123456789abcdef")
