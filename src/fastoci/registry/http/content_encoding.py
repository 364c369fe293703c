"""What a body comes as: its type, and its encoding.

No encoding is asked for, and a blob that comes as gzip all the same is decoded, once.

A gzip body of a ``+gzip`` layer is gzip in gzip: what a digest is about is what is left after the outer one.

Spec: RFC 9110 section 8.4; distribution-spec v1.1 knows no encoding.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from fastoci.errors import TransportError, TruncatedError
from fastoci.registry.http.reply import Reply

_PIECE: Final = 256 << 10  # bytes decoded at a time: an encoded zero is a thousand plain ones
_BITE: Final = 16 << 10  # bytes decoded from at a time: zlib copies what is left of them at the end of each member
_SLACK: Final = 64 << 10  # bytes that gzip may be longer than what it holds; it is 5 bytes in 32 KiB
_PAGES: Final = frozenset({"text/html", "application/xhtml+xml"})


def is_plain(reply: Reply) -> bool:
    """Whether the body is the content itself."""
    return _encoding(reply) in ("", "identity")


def is_gzip(reply: Reply) -> bool:
    """Whether the body is the content in gzip, once."""
    return _encoding(reply) in ("gzip", "x-gzip")


def content_type(reply: Reply) -> str:
    """The type that a body comes as, without parameters; empty when the server does not say."""
    return reply.header("Content-Type").partition(";")[0].strip().lower()


def is_page(reply: Reply) -> bool:
    """Whether the body is for people: what proxies and portals answer instead of the server."""
    return content_type(reply) in _PAGES


def check_identity(reply: Reply) -> None:
    """Whether the body is the content itself.

    Raises:
        TransportError: it is encoded, though nobody asked for that.
    """
    if not is_plain(reply):
        raise TransportError(
            f"{reply.url}: the server encodes the body ({_encoding(reply)[:40]!r}), though identity was asked for",
            url=reply.url,
            retryable=False,
        )


class DecodedBody:
    """The content of a gzip body of at most ``size`` bytes of content. Belongs to one task.

    Args:
        check: called whenever bytes came that are not content, headers and members of nothing; may raise.
    """

    def __init__(self, reply: Reply, size: int, check: Callable[[], None]) -> None:
        self._reply = reply
        self._check = check
        self._maximum = size + size // 1000 + _SLACK
        self._member = zlib.decompressobj(31)
        self._begun = False
        self._input = memoryview(b"")

    async def some(self) -> bytes:
        """Up to 256 KiB of content that came; empty at its end.

        Raises:
            TransportError: as ``Reply.some`` and ``check``; and it is not gzip, or is longer than its content can be.
        """
        while True:
            if not self._input:
                self._input = memoryview(await self._reply.some())
                if not self._input:
                    return self._end()
            try:
                data = self._decoded()
            except zlib.error as error:
                raise self._broken("is not gzip, though it is said to be") from error
            if data:
                return data
            if self._reply.received > self._maximum:
                raise self._broken("is longer than the blob")
            if not self._input:
                self._check()

    def _decoded(self) -> bytes:
        if self._member.eof:
            self._member, self._begun = zlib.decompressobj(31), False
        bite = self._input[:_BITE]
        data = self._member.decompress(bite, _PIECE)
        self._begun = True
        left = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        self._input = self._input[len(bite) - len(left) :]
        return data

    def _end(self) -> bytes:
        if self._begun and not self._member.eof:
            rest = self._member.decompress(b"", _PIECE)  # what did not fit before
            if rest:
                return rest
            text = f"{self._reply.url}: the body ended inside its gzip encoding"
            raise TruncatedError(text, url=self._reply.url, received=self._reply.received)
        return b""

    def _broken(self, what: str) -> TransportError:
        return TransportError(f"{self._reply.url}: the body {what}", url=self._reply.url)


def _encoding(reply: Reply) -> str:
    return reply.header("Content-Encoding").strip().lower()
