"""The ``Link`` header of a list that comes in pages: the query of the next page. No I/O.

Its address is the server's word, and is not followed: the same list is asked again, with the query that the address
has. Most have ``last`` in it, some a token of their own. Spec: RFC 8288; distribution-spec v1.1, listing tags.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

_NEXT = re.compile(r"""<([^<>]*)>[^<>]*?;\s*rel\s*=\s*"?next\b""", re.IGNORECASE)


def next_page(header: str) -> dict[str, str] | None:
    """The query of the next page's address; None without a next page.

    Raises:
        ValueError: it is no address.
    """
    match = _NEXT.search(header)
    return None if match is None else dict(parse_qsl(urlsplit(match[1]).query, keep_blank_values=True))
