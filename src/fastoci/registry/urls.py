"""URLs as requests need them: parsed byte for byte, shown without secrets, and what trust belongs to. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from yarl import URL


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what credentials and trust belong to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: URL) -> Origin:
        return cls(url.scheme, (url.raw_host or "").lower(), url.port or 0)


def redact(url: URL) -> str:
    """A URL as it may be shown: without user, query and fragment, where secrets are."""
    return str(url.with_user(None).with_query(None).with_fragment(None))


def parse_url(text: str, *, base: URL | None = None) -> URL:
    """An absolute http(s) URL without user and fragment, kept byte for byte: a signed query stays valid.

    Raises:
        ValueError: it is not one, or has characters that no URL has.
    """
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError("not a URL")
    url = URL(text, encoded=True)
    if url.scheme and not url.raw_host:
        raise ValueError("no host")
    if base is not None:
        url = base.join(url)
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise ValueError("not http or https")
    return url.with_user(None).with_fragment(None)
