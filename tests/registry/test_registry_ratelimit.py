from __future__ import annotations

import pytest

from fastoci.registry.http.rate_limit_headers import Quota, quota, told_in_words_s


@pytest.mark.parametrize(
    ("limit", "remaining", "expected"),
    [
        ("100;w=21600", "76;w=21600", Quota(76, 100, 21600)),
        ("100;w=21600", "0", Quota(0, 100, 21600)),
        ("", "5", Quota(5, None, None)),
        ("100", " 7 ; w=60 ", Quota(7, 100, 60)),
        ("100;w=21600", "", None),
        ("100", "-1", None),
        ("100", "many", None),
        ("100", "1" * 400, None),
    ],
)
def test_a_quota_is_read_or_not_there(limit: str, remaining: str, expected: Quota | None) -> None:
    assert quota(limit, remaining) == expected


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
def test_a_wait_that_is_told_in_words_is_understood(text: str, expected: float | None) -> None:
    assert told_in_words_s(text) == (None if expected is None else pytest.approx(expected))
