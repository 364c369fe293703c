"""What a server says of the requests that are left in a window. No I/O.

Spec: draft-ietf-httpapi-ratelimit-headers, as Docker Hub sends it.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_QUOTA: Final = re.compile(r"\s*([0-9]{1,12})(?:\s*;\s*w=([0-9]{1,9}))?\s*")


class Quota(msgspec.Struct, frozen=True):
    """``remaining`` of ``limit`` requests in ``window_s`` seconds; None where the server does not say."""

    remaining: int
    limit: int | None
    window_s: int | None


def quota(limit: str, remaining: str) -> Quota | None:
    """The quota of ``RateLimit-Limit`` and ``RateLimit-Remaining``; None when they say nothing."""
    left, maximum = _QUOTA.fullmatch(remaining), _QUOTA.fullmatch(limit)
    if left is None:
        return None
    window = left[2] or (maximum and maximum[2])
    return Quota(int(left[1]), int(maximum[1]) if maximum else None, int(window) if window else None)
