"""How values read on a screen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastoci.cli.formatting import fraction, plain, plural, size


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\nb\r", "a\\nb\\r"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202egpj", "abc\\u202egpj"),
        ("caf\u00e9 \u2603", "caf\u00e9 \u2603"),
        ("\udcff", "\\udcff"),
    ],
)
def test_characters_that_do_not_print_become_escapes(hostile: str, harmless: str) -> None:
    assert plain(hostile) == harmless


@given(st.text())
def test_any_text_becomes_printable(text: str) -> None:
    assert plain(text).isprintable()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.7, "1.0 kB"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_950, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (24_000_000, "24 MB"),
        (1_240_000_000, "1.2 GB"),
        (5 * 10**18, "5000 PB"),
    ],
)
def test_a_size_has_two_or_three_digits(count: float, text: str) -> None:
    assert size(count) == text


def test_a_part_names_the_unit_once_when_both_have_it() -> None:
    assert fraction(12_000_000, 40_000_000) == "12 of 40 MB"
    assert fraction(900_000, 40_000_000) == "900 kB of 40 MB"
    assert fraction(0, 40_000_000) == "0 B of 40 MB"


def test_an_amount_agrees_with_its_noun() -> None:
    assert [plural(1, "blob"), plural(2, "blob"), plural(1, "entry"), plural(0, "entry")] == [
        "1 blob",
        "2 blobs",
        "1 entry",
        "0 entries",
    ]
