"""Protobuf's bytes, as the specification writes them, and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastoci.containerd import wire
from fastoci.errors import FormatError

NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1)


def test_numbers_and_texts_are_written_as_the_specification_has_them() -> None:
    out = bytearray()
    wire.put_number(out, 1, 150)
    wire.put_bytes(out, 2, b"testing")
    assert out == b"\x08\x96\x01\x12\x07testing"


@given(st.lists(st.tuples(st.integers(1, (1 << 29) - 1), NUMBERS | st.binary(max_size=200))))
def test_what_is_written_is_read(values: list[tuple[int, int | bytes]]) -> None:
    out = bytearray()
    for number, value in values:
        if isinstance(value, int):
            wire.put_number(out, number, value)
        else:
            wire.put_bytes(out, number, value)
    found = [
        (number, wire.signed(value) if isinstance(value, int) else value) for number, value in wire.fields(bytes(out))
    ]
    assert found == values


def test_fields_of_fixed_width_are_passed_over() -> None:
    assert list(wire.fields(b"\x09" + bytes(8) + b"\x15" + bytes(4) + b"\x08\x01")) == [(1, 1)]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x08", id="a number that is not there"),
        pytest.param(b"\x08" + b"\x80" * 11, id="a number without an end"),
        pytest.param(b"\x12\x05four", id="a length past the end"),
        pytest.param(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", id="a length of all ones"),
        pytest.param(b"\x09\x00", id="a fixed width past the end"),
        pytest.param(b"\x0b\x0c", id="a group"),
        pytest.param(b"\x00\x00", id="the field 0"),
        pytest.param(b"\x0e", id="a wire type that is none"),
    ],
)
def test_what_is_not_protobuf_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        list(wire.fields(data))


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        found = list(wire.fields(data))
    except FormatError:
        return
    assert sum(len(value) for _, value in found if isinstance(value, bytes)) <= len(data)
