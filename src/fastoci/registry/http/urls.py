"""URLs as requests need them: parsed byte for byte, shown without secrets, and what trust belongs to. No I/O."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Final
from urllib.parse import unquote_plus

import msgspec
from yarl import URL

_MIN_SECRET: Final = 4  # characters of a secret: less says nothing, and would be found in any word
_UNQUOTED: Final = re.compile(rb"[ \x80-\xff]")
_OPEN: Final = frozenset({"account", "client_id", "grant_type", "ns", "scope", "service"})  # fields that are not secret


class Origin(msgspec.Struct, frozen=True):
    """Scheme, host and port: what credentials and trust belong to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: URL) -> Origin:
        """The origin of a URL."""
        return cls(url.scheme, (url.raw_host or "").lower(), url.port or 0)

    @classmethod
    def named(cls, text: str) -> Origin | None:
        """The origin of an absolute URL in text; None when it is none."""
        try:
            return cls.of(parse_url(text))
        except ValueError:
            return None


def redact(url: URL) -> str:
    """A URL as it may be shown: without user, query and fragment, where secrets are."""
    return str(url.with_user(None).with_query(None).with_fragment(None))


def secrets_of(url: URL, values: Iterable[str], body: bytes = b"") -> frozenset[str]:
    """What of a request must not be shown, in the forms in which a server could repeat it.

    Args:
        values: of headers that hold secrets; ``Basic`` ones are also taken apart.
        body: an urlencoded form.
    """
    found: set[str] = set()
    for field in (*url.raw_query_string.split("&"), *body.decode("latin-1").split("&")):
        name, _, value = field.partition("=")
        if name not in _OPEN:
            found |= {value, unquote_plus(value)}
    for value in values:
        words = value.split(" ")
        found |= {value, words[-1]}
        if words[0].lower() == "basic":
            with suppress(ValueError):
                pair = base64.b64decode(words[-1]).decode()
                found |= {pair, pair.partition(":")[2]}
    return frozenset(each for each in found if len(each) >= _MIN_SECRET)


def quoted(text: str) -> str:
    """A URL as servers write it, in the characters that one may have: the others come as bytes of UTF-8."""
    raw = text.strip(" \t").encode("utf-8", "surrogateescape")
    return _UNQUOTED.sub(lambda match: b"%%%02X" % match[0][0], raw).decode("ascii")


def parse_url(text: str, *, base: URL | None = None) -> URL:
    """An absolute http(s) URL without user and fragment, kept byte for byte: a signed query stays valid.

    Raises:
        ValueError: it is not one, or has characters that no URL has.
    """
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError("not a URL")
    try:
        url = URL(text, encoded=True)
        if url.scheme and not url.raw_host:
            raise ValueError("no host")
        if base is not None:
            url = base.join(url)
        if url.scheme not in ("http", "https") or not url.host:  # yarl decodes host and port on their first use
            raise ValueError("not http or https")
        Origin.of(url)
        if "%" in (url.raw_host or "").partition("%25")[0]:  # of a zone
            raise ValueError("not a host")
        return url.with_user(None).with_fragment(None)
    except ValueError:
        raise
    except Exception as error:  # "http://[::1]@" is an IndexError of yarl's
        raise ValueError("not a URL") from error
