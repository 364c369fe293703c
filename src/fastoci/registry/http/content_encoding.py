"""What a body comes as: its type, and its encoding. Labels are hints: what is in them is decided by the bytes.

No encoding is asked for. A body that comes as gzip all the same is decoded, once: a gzip body of a ``+gzip`` layer is
gzip in gzip, and what a digest is about is what is left after the outer one. But many a server says ``gzip`` of a layer
that is gzip itself, or ``UTF-8``, or that a blob is a page. Rules:

1. Words that are no coding (RFC 9110 section 8.4.1 and IANA's registry) say nothing.
2. A body of as many bytes as the blob has is the blob's own, whatever it is called.
3. Where the length is not announced, the first bytes tell: what does not begin as the blob's media type says is not
   taken for the blob under a label that says it is something else.

Spec: RFC 9110 section 8.4; distribution-spec v1.1 knows no encoding.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import msgspec

from fastoci.errors import FormatError, TransportError, TruncatedError
from fastoci.registry.http.reply import Reply

SLACK: Final = 64 << 10  # bytes that gzip may be longer than what it holds; it is 5 bytes in 32 KiB

_PIECE: Final = 256 << 10  # bytes decoded at a time: an encoded zero is a thousand plain ones
_BITE: Final = 16 << 10  # bytes decoded from at a time: zlib copies what is left of them at the end of each member
_LOOK: Final = 16  # bytes by which a kind of content is known
_PAGES: Final = frozenset({"text/html", "application/xhtml+xml"})
_GZIP: Final = frozenset({"gzip", "x-gzip"})
_CODINGS: Final = _GZIP | {"br", "compress", "x-compress", "dcb", "dcz", "deflate", "exi", "pack200-gzip", "zstd"}
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPED: Final = b"\x2a\x4d\x18"  # after a byte 0x50 to 0x5f


class Label(msgspec.Struct, frozen=True):
    """What a body without the blob's length is said to be.

    ``gzip``: the content in gzip, once; ``sure``: it cannot be the content itself. ``media_type`` is the blob's.
    ``refused``: what to raise when the first bytes are not the blob's.
    """

    gzip: bool
    sure: bool
    media_type: str
    refused: TransportError | None


def label_of(reply: Reply, media_type: str, size: int) -> Label | None:
    """What the headers say of a body that should be ``size`` bytes of a blob; None when they leave no doubt.

    Raises:
        TransportError: it has another length, by an encoding that nobody asked for.
    """
    found = () if reply.length == size else codings(reply)
    gzip = len(found) == 1 and found[0] in _GZIP
    if found and not gzip:
        if reply.length is not None:
            raise _encoded(reply)
        return Label(False, False, media_type, _encoded(reply))
    page = content_type(reply) in _PAGES and (gzip or reply.length is None)
    if not gzip and not page:
        return None
    text = f"{reply.url}: a page ({content_type(reply)}) in place of a blob"
    refused = TransportError(text, url=reply.url, retryable=False) if page else None
    return Label(gzip, gzip and reply.length is not None, media_type, refused)


def codings(reply: Reply) -> tuple[str, ...]:
    """The codings that a body is said to be in, the innermost first."""
    words = reply.header("Content-Encoding").lower().split(",")
    return tuple(word.strip() for word in words if word.strip() in _CODINGS)


def content_type(reply: Reply) -> str:
    """The type that a body comes as, without parameters; empty when the server does not say."""
    return reply.header("Content-Type").partition(";")[0].strip().lower()


def document(reply: Reply, data: bytes, limit: int) -> bytes:
    """The content of a JSON document's whole body: at most ``limit`` + 1 bytes.

    Raises:
        FormatError: it is neither JSON nor gzip, and said to be in another coding.
    """
    found = codings(reply)
    if not found or data.lstrip()[:1] in (b"{", b"["):
        return data[: limit + 1]
    if len(found) == 1 and found[0] in _GZIP:
        try:
            return zlib.decompressobj(31).decompress(data, limit + 1)
        except zlib.error as error:
            raise FormatError(f"{reply.url}: the body is not gzip, though it is said to be") from error
    raise _encoded(reply)


class LabelledBody:
    """The content of a body of at most ``size`` bytes of content, which its label may lie about. Belongs to one task.

    Args:
        check: called whenever bytes came that are not content, headers and members of nothing; may raise.
    """

    def __init__(self, reply: Reply, size: int, check: Callable[[], None], label: Label) -> None:
        self._reply = reply
        self._check = check
        self._label = label
        self._maximum = size + size // 1000 + SLACK
        self._member = zlib.decompressobj(31)
        self._begun = False
        self._looked = self._plain = False
        self._input = memoryview(b"")

    async def some(self) -> bytes:
        """Up to 256 KiB of content that came; empty at its end.

        Raises:
            TransportError: as ``Reply.some`` and ``check``; it is what its label says, which is not the blob, or is
                longer than its content can be.
        """
        if not self._looked:
            await self._look()
        if self._plain:
            data, self._input = bytes(self._input), memoryview(b"")
            return data or await self._reply.some()
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

    async def _look(self) -> None:
        """Read as much as tells what this is."""
        raw, wanted = bytearray(), _LOOK
        while data := await self._reply.some():
            raw += data
            self._check()
            if len(raw) >= wanted:
                self._plain, content = self._read_as(bytes(raw))
                if len(content) >= _LOOK or len(raw) > SLACK:
                    break
                wanted = 2 * len(raw)
        self._looked, self._input = True, memoryview(bytes(raw))
        self._plain, content = self._read_as(bytes(raw))
        if self._label.refused is not None and not _begins_as(self._label.media_type, content):
            raise self._label.refused

    def _read_as(self, raw: bytes) -> tuple[bool, bytes]:
        """Whether these first bytes are content themselves, and the first bytes of the content."""
        label = self._label
        if not label.gzip:
            return True, raw
        try:
            content = zlib.decompressobj(31).decompress(raw, _LOOK)
        except zlib.error:
            return not label.sure, raw
        if label.sure or not content or (label.refused is not None and _is_page(content)):
            return False, content
        # A layer in gzip that is said to be in gzip: the layer's own gzip is not to be decoded.
        own = _begins_as(label.media_type, raw) and not _begins_as(label.media_type, content)
        return (True, raw) if own else (False, content)

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


def _encoded(reply: Reply) -> TransportError:
    words = reply.header("Content-Encoding")[:40]
    text = f"{reply.url}: the server encodes the body ({words!r}), though identity was asked for"
    return TransportError(text, url=reply.url, retryable=False)


def _begins_as(media_type: str, data: bytes) -> bool:
    """Whether these may be the first bytes of what a media type says; of most types anything but a page may."""
    if media_type.endswith("gzip"):
        return data.startswith(_GZIP_MAGIC)
    if media_type.endswith("zstd"):
        return data.startswith(_ZSTD_MAGIC) or (data[:1] in b"PQRSTUVWXYZ[\\]^_" and data[1:4] == _ZSTD_SKIPPED)
    return data.lstrip().startswith(b"{") if media_type.endswith("json") else not _is_page(data)


def _is_page(data: bytes) -> bool:
    return data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"", b"<")
