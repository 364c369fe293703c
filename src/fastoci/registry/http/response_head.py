"""The head of an answer: where it ends, how large it may be, and what is put right before aiohttp's parser sees it.

Rules:
1. All heads of one answer, interim ones too, are 1 MiB at most, in as many lines as there may be.
2. ``Content-Length`` that comes several times with one value comes once. With several values it stays for the parser,
   which refuses it.
3. A line whose name is no token, or whose value has a NUL, is left out, as Go's clients pass over it; one that speaks
   of framing stays. Any later HTTP/1 is read as 1.1.
4. A value over several lines is one line: aiohttp's parser copies what it has of such a value for each line more.
5. What does not begin as HTTP does is not waited for.

Spec: RFC 9112 sections 2.2, 4, 5.2, 6.3.
"""

from __future__ import annotations

import re
from typing import Final

MAXIMUM: Final = 1 << 20  # bytes
_BEGIN: Final = b"HTTP/"
_END: Final = re.compile(rb"\r?\n\r?\n")
_INTERIM: Final = re.compile(rb"HTTP/1\.[0-9] 1(?!01)[0-9]{2}\b")
_LENGTH: Final = re.compile(rb"^content-length[ \t]*:[ \t]*([^\r\n]*?)[ \t]*\r?\n", re.IGNORECASE | re.MULTILINE)
_NEWER: Final = re.compile(rb"\A(\s*HTTP/1\.)[2-9] ")
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ODD: Final = re.compile(  # after the status line
    rb"(?<=\n)(?:(?!" + _TOKEN + rb":)(?![ \t])[^\r\n:]*:[^\r\n]*|[^\r\n]*\0[^\r\n]*)\r?\n"
)
_FOLD: Final = re.compile(rb"\r?\n[ \t]+")
_FRAMING: Final = re.compile(rb"content-length|transfer-encoding", re.IGNORECASE)


class HeadTooLargeError(Exception):
    """The heads of an answer have more bytes than they may."""


class ResponseHead:
    """Collects the head of one answer."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._searched = 0
        self._size = 0
        self.done = False  # the head that is not interim has come, or what is none: all that follows is not for here

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """The heads that are complete by now, and what follows the last one.

        Raises:
            HeadTooLargeError: there is too much of them.
        """
        self._held += data
        heads = []
        while not self.done and (end := self._end()) is not None:
            head, self._held, self._searched = bytes(self._held[:end]), self._held[end:], 0
            self._size += len(head)
            self.done = not _INTERIM.match(head.lstrip())
            heads.append(_once(_readable(head)))
        if self._size + (0 if self.done else len(self._held)) > MAXIMUM:
            raise HeadTooLargeError
        self.done = self.done or not self._is_http()
        rest = b""
        if self.done:
            rest, self._held = bytes(self._held), bytearray()
        return heads, rest

    def _end(self) -> int | None:
        match = _END.search(self._held, self._searched)
        self._searched = max(0, len(self._held) - 3)
        return match and match.end()

    def _is_http(self) -> bool:
        start = bytes(self._held[: len(_BEGIN) + 8]).lstrip(b"\r\n")[: len(_BEGIN)]
        return _BEGIN.startswith(start)


def _readable(head: bytes) -> bytes:
    """A head without what Go's clients pass over, and aiohttp's parser refuses."""
    head = _unfolded(_NEWER.sub(rb"\g<1>1 ", head))
    return _ODD.sub(lambda match: match[0] if _FRAMING.search(match[0]) else b"", head)


def _unfolded(head: bytes) -> bytes:
    """A head whose fields are a line each. What continues the status line stays as it is."""
    fields = head.index(b"\n", len(head) - len(head.lstrip())) + 1 if head.strip() else 0
    return head[:fields] + _FOLD.sub(b" ", head[fields:])


def _once(head: bytes) -> bytes:
    """A head without the repetitions of its length."""
    lengths = _LENGTH.findall(head)
    if len(lengths) < 2 or len(set(lengths)) > 1:
        return head
    first = _LENGTH.search(head)
    assert first is not None
    return head[: first.end()] + _LENGTH.sub(b"", head[first.end() :])
