"""Durations as Go writes them, and what HTTP says of waiting."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fastoci.durations import LONG, duration_s, retry_after_in_message_s, retry_after_s

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("12h", 43200),
        ("1h30m", 5400),
        ("12h0m0s", 43200),
        ("1.5m", 90),
        (".5s", 0.5),
        ("1.s", 1),
        ("100ms", 0.1),
        ("880µs", 880e-6),
    ],
)
def test_a_duration_is_read_as_go_reads_it(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "5", "-5m", "+5m", "5d", "5 m", "m", ".s", "1h-5m", "1h 5m", "1hm", "1e3s", "5S", "1:30", "\uff11s"],
)
def test_what_go_does_not_read_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration_s(text)


def test_days_and_weeks_are_read_where_they_are_asked_for() -> None:
    assert duration_s("30d", LONG) == 30 * 86400
    assert duration_s("1w2d", LONG) == 9 * 86400


def test_a_duration_without_end_is_some_thirty_years() -> None:
    assert duration_s("9" * 400 + "h") == 1e9


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("2", 2.0),
        ("0", 0.0),
        ("31536000", 31536000.0),
        ("Fri, 02 Jan 2026 03:04:15 GMT", 10.0),
        ("Friday, 02-Jan-26 03:04:15 GMT", 10.0),
        ("Fri, 02 Jan 2026 03:04:15", 10.0),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("1e3", None),
        ("9" * 30, 1e9),
        ("Fri, 99 Jan 2026 03:04:15 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, expected: float | None) -> None:
    assert retry_after_s(header, now=NOW) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("retry-after: 880µs, allowed: 44000/minute", 880e-6),
        ("retry-after: 1m30.5s, allowed: 1/hour", 90.5),
        ("retry-after: 2h", 7200.0),
        ("retry-after: 15ms", 0.015),
        ("retry-after: 999999999h", 1e9),
        ("retry-after: soon", None),
        ("too many requests", None),
    ],
)
def test_a_wait_in_the_text_of_an_error_is_read(text: str, expected: float | None) -> None:
    assert retry_after_in_message_s(text) == (None if expected is None else pytest.approx(expected))
