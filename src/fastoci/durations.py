"""Lengths of time as text: Go's durations, and HTTP's Retry-After. No clock, no I/O.

Spec: Go's ``time.ParseDuration``; RFC 9110 section 10.2.3 (Retry-After).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

GO: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
LONG: Final = GO | {"d": 86400.0, "w": 604800.0}
_PART: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([a-zµμ]+)")
_LONGEST_S: Final = 1e9  # some 30 years: what is longer is no other wait, and has an end to name
# GitHub's registry writes it into the error's message, as Go prints a duration: "retry-after: 880µs".
_IN_MESSAGE: Final = re.compile(r"retry-after: ([0-9.a-zµμ]{1,100})")


def duration_s(text: str, units: Mapping[str, float] = GO) -> float:
    """Seconds of a duration as ``1h30m``, ``0s`` or ``0``.

    Args:
        units: seconds of each unit; ``LONG`` has days and weeks too, which Go does not know.
    Raises:
        ValueError: it is none, or negative.
    """
    if text == "0":
        return 0.0
    parts = _PART.findall(text)
    if not parts or "".join(map("".join, parts)) != text or not all(unit in units for _, unit in parts):
        raise ValueError("not a duration")
    return min(sum(float(number) * units[unit] for number, unit in parts), _LONGEST_S)


def retry_after_s(header: str, *, now: datetime) -> float | None:
    """Seconds to wait by a ``Retry-After``, as a number or a date; None when it says nothing."""
    from datetime import UTC
    from email.utils import parsedate_to_datetime  # takes longer to import than all of a command line

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


def retry_after_in_message_s(message: str) -> float | None:
    """Seconds to wait by the text of an error; None when it says nothing."""
    match = _IN_MESSAGE.search(message)
    if match is None:
        return None
    try:
        return duration_s(match[1].rstrip("."))
    except ValueError:
        return None
