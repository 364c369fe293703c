"""Ranges of versions, as skopeo reads them.

Covers: lists/version_range.py.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastoci.lists.version_range import VersionRange, parse_version


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">= 3.12.0", ["3.12", "3.12.0", "v3.13.1", "4"], ["3.11.9", "latest", "3.12.0-rc1", "4.0.0-alpha"]),
        ("1.2.3", ["1.2.3", "v1.2.3", "1.2.3+build"], ["1.2.4", "1.2.3-rc1"]),
        ("=1.2", ["1.2.0", "1.2.9"], ["1.3.0"]),
        ("1.2.x", ["1.2.0", "1.2.9"], ["1.3.0", "1.1.9"]),
        ("1.X", ["1.0.0", "1.9.9"], ["2.0.0", "0.9.0"]),
        ("*", ["0.0.1", "9"], ["1.0.0-rc1", "edge"]),
        ("^1.2.3", ["1.2.3", "1.9.0"], ["1.2.2", "2.0.0"]),
        ("^0.2.3", ["0.2.3", "0.2.9"], ["0.3.0", "1.0.0"]),
        ("^0.0.3", ["0.0.3"], ["0.0.4"]),
        ("^0.0", ["0.0.0", "0.0.9"], ["0.1.0"]),
        ("^0", ["0.0.0", "0.9.9"], ["1.0.0"]),
        ("~1.2.3", ["1.2.3", "1.2.9"], ["1.3.0", "1.2.2"]),
        ("~1.2", ["1.2.0"], ["1.3.0"]),
        ("~> 1", ["1.0.0", "1.9.0"], ["2.0.0"]),
        (">1", ["2.0.0"], ["1.0.0", "1.9.9"]),
        (">1.2", ["1.3.0", "2.0.0"], ["1.2.9"]),
        (">1.2.3", ["1.2.4"], ["1.2.3"]),
        ("<2", ["1.9.9"], ["2.0.0"]),
        ("<=1.2", ["1.2.9", "0.9.0"], ["1.3.0"]),
        ("<=1.2.3", ["1.2.3"], ["1.2.4"]),
        ("!=1.2.3", ["1.2.4"], ["1.2.3"]),
        ("!=1.2", ["1.3.0"], ["1.2.0", "1.2.9"]),
        ("=> 1.0, =< 2.0.0", ["1.0.0", "2.0.0"], ["0.9.0", "2.0.1"]),
        (">=1.2.0 <2.0.0", ["1.2.0", "1.9.0"], ["1.1.0", "2.0.0"]),
        ("1.2 - 1.4.5", ["1.2.0", "1.4.5"], ["1.1.9", "1.4.6"]),
        ("1.0.0 || >=2.1 , <3", ["1.0.0", "2.1.0"], ["1.0.1", "2.0.0", "3.0.0"]),
        ("", ["1.0.0"], ["1.0.0-rc1"]),
        ("!=4.1-alpha", ["4.1.0", "5.0.0"], ["4.1.0-alpha"]),
        (">=1.0.0 <=2.0.0-beta", ["1.0.1-beta", "2.0.0-alpha"], ["2.0.0"]),
        (">=1.2.3-0", ["1.2.3", "1.2.3-rc1", "2.0.0-beta"], ["1.2.2"]),
        (">1.0.0-alpha.1", ["1.0.0-alpha.2", "1.0.0-alpha.10", "1.0.0-beta", "1.0.0-alpha.1.1"], ["1.0.0-alpha.1"]),
        (">1.0.0-alpha.9", ["1.0.0-alpha.10", "1.0.0-alpha.x"], ["1.0.0-alpha.8", "1.0.0-1"]),
    ],
)
def test_a_range_has_the_versions_that_skopeo_takes(text: str, inside: list[str], outside: list[str]) -> None:
    found = VersionRange(text)
    assert [tag for tag in (*inside, *outside) if found.has(tag)] == inside


@pytest.mark.parametrize(
    "text", ["newest", ">=", "1.2.3.4", ">=1 and <2", "1.2,", "|| 1", "a - b", "1.0.0-01", "9" * 30, "1" * 1001]
)
def test_what_is_no_range_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        VersionRange(text)


@pytest.mark.parametrize("tag", ["latest", "1.2.3.4", "1-", "1.2.3-rc..1", "1.2.3-01", "", "v", "1.2.3_4", "9" * 30])
def test_what_is_no_version_is_in_no_range(tag: str) -> None:
    assert parse_version(tag) is None
    assert not VersionRange("*").has(tag)


@given(st.text("0123.xX*-+v<>=~^!|, ab", max_size=30), st.text("0123.-+vab", max_size=20))
def test_any_text_is_a_range_or_a_value_error(text: str, tag: str) -> None:
    try:
        found = VersionRange(text)
    except ValueError:
        return
    found.has(tag)
