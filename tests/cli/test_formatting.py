"""How values read on a screen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastoci.cli.formatting import duration, fraction, plain, plural, size, table


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
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (24_000_000.7, "24.0 MB"),
        (12 * 10**8, "1.2 GB"),
    ],
)
def test_a_size_is_decimal(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (45.2, "45 s"), (99.4, "99 s"), (100, "2 min"), (5900, "98 min"), (11_100, "3 h 5 min")],
)
def test_a_duration_has_one_or_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_part_names_the_unit_once_when_both_have_it() -> None:
    assert fraction(12_000_000, 40_000_000) == "12.0 of 40.0 MB"
    assert fraction(900_000, 40_000_000) == "900.0 kB of 40.0 MB"
    assert fraction(0, 40_000_000) == "0 bytes of 40.0 MB"


def test_a_table_has_its_columns_below_each_other_and_is_never_cut() -> None:
    long = "x" * 300
    rows = [("NAME", "SIZE", ""), ("[bold]a", "1 B", long), ("漢字", "22 B", ""), (":smile:", "", "")]
    assert table(rows) == [
        "NAME     SIZE",
        f"[bold]a  1 B   {long}",
        "漢字     22 B",
        ":smile:",
    ]


def test_an_amount_agrees_with_its_noun() -> None:
    assert [plural(1, "blob"), plural(2, "blob"), plural(1, "entry"), plural(0, "entry")] == [
        "1 blob",
        "2 blobs",
        "1 entry",
        "0 entries",
    ]
