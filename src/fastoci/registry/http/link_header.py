"""The ``Link`` header of a list that comes in pages: what the next page begins after. No I/O.

Its address is the server's word, and is not followed: the same list is asked again, with what the address says of
``last``. Spec: RFC 8288; distribution-spec v1.1, listing tags.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

_NEXT = re.compile(r"""<([^<>]{1,4096})>\s*;\s*rel="?next"?\s*""", re.IGNORECASE)


def next_page(header: str) -> str | None:
    """The ``last`` of the next page's address; None without a next page."""
    match = _NEXT.search(header)
    if match is None:
        return None
    try:
        return parse_qs(urlsplit(match[1]).query).get("last", [None])[0]
    except ValueError:
        return None
