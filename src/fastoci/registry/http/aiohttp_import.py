"""Imports aiohttp without the 40 ms of CPU in which two TLS contexts of its own read the system's authorities.

No request of ours uses those contexts: ``tls`` makes ours. Whoever else does in this process finds them complete: they
read the authorities when they are first to make a connection. Before that they trust nobody. The first of this package
to be imported: docs/decisions/0014-aiohttps-own-contexts.md.
"""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Late(ssl.SSLContext):
    """A context that still has to read the system's authorities; becomes a usual one as it does."""

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection of asyncio."""
        return self._complete().wrap_bio(*arguments, **options)

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """Begin a connection on a socket."""
        return self._complete().wrap_socket(*arguments, **options)

    def _complete(self) -> ssl.SSLContext:
        ssl.SSLContext.set_default_verify_paths(self)
        self.__class__ = ssl.SSLContext  # type: ignore[assignment]
        return self


@contextmanager
def _authorities_later() -> Iterator[None]:
    """Contexts that this thread makes meanwhile read the system's authorities when they are first used."""
    reader, thread = ssl.SSLContext.set_default_verify_paths, threading.get_ident()

    def later(context: ssl.SSLContext) -> None:
        if threading.get_ident() == thread and type(context) is ssl.SSLContext:
            context.__class__ = _Late
        else:
            reader(context)

    ssl.SSLContext.set_default_verify_paths = later  # type: ignore[assignment]
    try:
        yield
    finally:
        del ssl.SSLContext.set_default_verify_paths  # what it inherits is found again


if "aiohttp" not in sys.modules and "set_default_verify_paths" not in vars(ssl.SSLContext):  # nor has anybody else
    with _authorities_later():
        import aiohttp  # noqa: F401
