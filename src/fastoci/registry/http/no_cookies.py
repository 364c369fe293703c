"""The cookies of a session that has none: registries are asked without, and what they set is not read.

aiohttp has such a jar beside one that keeps cookies in files, which takes 2 ms to import.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from http.cookies import BaseCookie, Morsel, SimpleCookie
from types import MappingProxyType
from typing import Any

from aiohttp.abc import AbstractCookieJar
from yarl import URL

_NONE: Any = MappingProxyType({})


class NoCookies(AbstractCookieJar):
    """Keeps nothing, and gives nothing."""

    unsafe = False
    quote_cookie = True
    cookies = _NONE
    host_only_cookies: frozenset[tuple[str, str, str]] = frozenset()

    def __iter__(self) -> Iterator[Morsel[str]]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def clear(self, predicate: object = None) -> None:
        """There is nothing."""

    def clear_domain(self, domain: str) -> None:
        """There is nothing."""

    def update_cookies(self, cookies: object, response_url: URL | None = None) -> None:
        """Keep nothing."""

    def update_cookies_from_headers(self, headers: Sequence[str], response_url: URL) -> None:
        """Keep nothing, and do not even read it."""

    def filter_cookies(self, request_url: URL) -> BaseCookie[str]:
        """Give nothing."""
        return SimpleCookie()
