"""Protobuf's bytes: numbers, lengths, and the fields of a message. Knows no message, and trusts no length.

Spec: protobuf, "Encoding" (https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fastoci.errors import FormatError

VARINT: Final = 0
BYTES: Final = 2

_FIXED: Final = {1: 8, 5: 4}  # bytes by wire type: no message here has such a field, but any may come
_VARINT_BYTES: Final = 10  # of 64 bits
_MASK: Final = (1 << 64) - 1
_NUMBER: Final = (1 << 29) - 1  # the highest of a field


def put_varint(out: bytearray, value: int) -> None:
    """Append a number of 64 bits; a negative one as its two's complement."""
    value &= _MASK
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def put_number(out: bytearray, number: int, value: int) -> None:
    """Append field ``number`` with a number."""
    put_varint(out, number << 3 | VARINT)
    put_varint(out, value)


def put_bytes(out: bytearray, number: int, value: bytes) -> None:
    """Append field ``number`` with bytes: a text, an embedded message."""
    put_varint(out, number << 3 | BYTES)
    put_varint(out, len(value))
    out += value


def signed(value: int) -> int:
    """An int64 from the 64 bits of its varint."""
    return value - (1 << 64) if value >> 63 else value


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Read a message: the number and value of each field, a number or bytes by its wire type.

    Fixed-width fields are passed over, since no message here has one.

    Raises:
        FormatError: a length leads past the end, a number has no end, a group, a field without a number.
    """
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number <= _NUMBER:
            raise FormatError(f"protobuf: a field has the number {number}")
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == BYTES:
            size, at = _varint(data, at)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise FormatError(f"protobuf: field {number} has the wire type {kind}")
        if size > end - at:
            raise FormatError(f"protobuf: field {number} has {size} bytes, and {end - at} are there")
        if kind == BYTES:
            yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = shift = 0
    for byte in data[at : at + _VARINT_BYTES]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, at
        shift += 7
    raise FormatError("protobuf: a number has no end")
