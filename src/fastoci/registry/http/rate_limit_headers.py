"""What servers say about how often they want to be asked. No I/O.

Spec: RFC 9110 section 10.2.3 (Retry-After); draft-ietf-httpapi-ratelimit-headers as Docker Hub sends it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

_QUOTA: Final = re.compile(r"\s*([0-9]{1,12})(?:\s*;\s*w=([0-9]{1,9}))?\s*")
# GitHub's registry writes it into the error's message, as Go prints a duration: "retry-after: 880µs".
_IN_WORDS: Final = re.compile(r"retry-after: ((?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ns|us|µs|μs|ms|s|m|h))+)")
_STEP: Final = re.compile(r"([0-9.]+)(ns|us|µs|μs|ms|s|m|h)")
_LONGEST_S: Final = 1e9  # some 30 years: what is longer is no other wait, and has an end to name
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Quota:
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


def retry_after_s(header: str, *, now: datetime) -> float | None:
    """Seconds to wait by a ``Retry-After``, as a number or a date; None when it says nothing."""
    header = header.strip()
    if re.fullmatch(r"[0-9]+", header):
        return min(float(header), _LONGEST_S)
    try:
        date = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return min(max(0.0, (date - now).total_seconds()), _LONGEST_S)


def told_in_words_s(message: str) -> float | None:
    """Seconds to wait by the text of an error; None when it says nothing."""
    match = _IN_WORDS.search(message)
    if match is None:
        return None
    told_s = sum(float(number) * _UNITS[unit] for number, unit in _STEP.findall(match[1]) if number.count(".") < 2)
    return min(told_s, _LONGEST_S)
