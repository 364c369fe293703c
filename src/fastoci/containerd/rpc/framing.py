"""gRPC's own bytes: messages with their lengths, statuses, escaped texts. No connection.

Spec: gRPC over HTTP/2 (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final
from urllib.parse import quote, unquote

CONTENT_TYPE: Final = "application/grpc"
_PREFIX: Final = 5  # bytes: the flag of compression and the length
_PRINTABLE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_TEXT: Final = 4096  # characters of a message that are kept


class Code(IntEnum):
    """The statuses of gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class FramingError(Exception):
    """What a peer sends is not taken; ``code`` says why."""

    def __init__(self, message: str, code: Code) -> None:
        super().__init__(message)
        self.code = code


def prefix(size: int) -> bytes:
    """What is sent before a message of this size."""
    return b"\0" + size.to_bytes(4, "big")


class Assembler:
    """Messages out of the bytes of a stream. No message longer than ``longest`` is begun."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._data = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a message that is not complete."""
        return len(self._data)

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes, and give the messages that are complete.

        Raises:
            FramingError: a message is compressed, or too long.
        """
        self._data += data
        found, at = [], 0
        while len(self._data) - at >= _PREFIX:
            size = int.from_bytes(self._data[at + 1 : at + _PREFIX], "big")
            if self._data[at]:
                raise FramingError("a compressed message, which was not asked for", Code.UNIMPLEMENTED)
            if size > self._longest:
                raise FramingError(f"a message of {size} bytes, {self._longest} are taken", Code.RESOURCE_EXHAUSTED)
            if len(self._data) - at < _PREFIX + size:
                break
            found.append(bytes(memoryview(self._data)[at + _PREFIX : at + _PREFIX + size]))
            at += _PREFIX + size
        del self._data[:at]
        return found


def escaped(text: str) -> str:
    """A text as the header ``grpc-message`` has it."""
    return quote(text[:_TEXT], safe=_PRINTABLE, errors="replace")


def unescaped(text: str) -> str:
    """What ``escaped`` made."""
    return unquote(text[:_TEXT], errors="replace")


def status(headers: dict[str, str]) -> tuple[int, str]:
    """The status and its text, from the headers that end a call.

    A call that ends without a status has failed, whatever it was.
    """
    word = headers.get("grpc-status", "")
    if not (word.isascii() and word.isdigit() and len(word) < 4):
        return Code.UNKNOWN, "the call ended without a status"
    return int(word), unescaped(headers.get("grpc-message", ""))
