"""Byte ranges of HTTP: what a 206 says it holds. No I/O.

Spec: RFC 9110 section 14.4.
"""

from __future__ import annotations

import re

import msgspec

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")


class ContentRange(msgspec.Struct, frozen=True):
    """Bytes ``first`` to ``last``, both included, of ``total`` (None when the server does not know)."""

    first: int
    last: int
    total: int | None


def parse(header: str) -> ContentRange | None:
    """A ``Content-Range``; None for anything but one well-formed, possible range of bytes."""
    match = _CONTENT_RANGE.fullmatch(header)
    if match is None:
        return None
    first, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    if first > last or last >= 1 << 63 or (total is not None and last >= total):
        return None
    return ContentRange(first, last, total)
