"""Imports aiohttp without what no request of ours uses. The first of this package to be imported.

Two TLS contexts of its own read the system's authorities, 40 ms of CPU: ``tls`` makes ours. Whoever else uses them in
this process finds them complete: they read the authorities when they are first to make a connection, and before that
they trust nobody. docs/decisions/0014-aiohttps-own-contexts.md

Where the process is the program alone, the parts of aiohttp for tracing, WebSockets, cookies and forms are left out,
too, and what it reads headers of e-mail with: 20 ms more. docs/decisions/0038-parts-of-aiohttp-are-left-out.md
"""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final, NoReturn

from fastoci import whole_process

_UNUSED: Final = (  # modules that aiohttp imports names of, and asks for nothing more before one of those is called
    "aiohttp._websocket.reader",
    "aiohttp.client_middleware_digest_auth",
    "aiohttp.client_ws",
    "aiohttp.cookiejar",
    "aiohttp.formdata",
    "aiohttp.http_websocket",
    "aiohttp.multipart",
    "aiohttp.payload_streamer",
    "aiohttp.tracing",
    "attr.validators",
    "email.message",
    "email.parser",
    "email.policy",
    "email.utils",
    "netrc",
    "urllib.request",
)


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


class _Unused(ModuleType):
    """In place of a module that nobody is to need: has a class of each name, and none of them can be called."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        module = self.__name__

        def refuse(*_: object, **__: object) -> NoReturn:
            raise RuntimeError(f"{module}.{name} is left out of this program")

        members = {"__module__": module, "__new__": refuse, "__class_getitem__": classmethod(lambda own, _: own)}
        return type(name, (), members)


@contextmanager
def _unused_left_out() -> Iterator[None]:
    """What is imported meanwhile does without the modules that are not used; later imports find the real ones."""
    put = {name: _Unused(name) for name in _UNUSED if name not in sys.modules}
    sys.modules.update(put)
    try:
        yield
    finally:
        for name, module in put.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _import_without_unused() -> bool:
    """Whether aiohttp is there, without what is not used: a version that needs that at once is imported whole."""
    before = set(sys.modules)
    try:
        with _unused_left_out():
            import aiohttp  # noqa: F401
    except Exception:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in {"aiohttp", "attr", "attrs"}:
                del sys.modules[name]
        return False
    return True


if "aiohttp" not in sys.modules and "set_default_verify_paths" not in vars(ssl.SSLContext):  # nor has anybody else
    with _authorities_later():
        if not (whole_process.OURS and _import_without_unused()):
            import aiohttp  # noqa: F401
