"""RateLimit headers as values."""

from __future__ import annotations

import pytest

from fastoci.registry.http.rate_limit_headers import Quota, quota


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
