"""Messages there and back, what newer peers add, and garbage.

Covers: containerd/messages.py, containerd/codec.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastoci.containerd import messages, wire
from fastoci.containerd.codec import Message
from fastoci.errors import FormatError

ALL = [
    kind
    for _, kind in inspect.getmembers(messages, inspect.isclass)
    if issubclass(kind, Message) and kind is not Message
]
NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1)


def values(hint: object) -> st.SearchStrategy[object]:
    """All values of a field's type."""
    scalars = {str: st.text(max_size=20), bytes: st.binary(max_size=20), int: NUMBERS, bool: st.booleans()}
    whole, parts = get_origin(hint), get_args(hint)
    if whole is tuple:
        return st.lists(values(parts[0]), max_size=3).map(tuple)
    if whole is Mapping:
        return st.dictionaries(st.text(max_size=20), values(parts[1]), max_size=3)
    if parts:
        return st.none() | values(parts[0])
    return scalars[hint] if hint in scalars else a(hint)  # type: ignore[arg-type]


def a(kind: type[Message]) -> st.SearchStrategy[Message]:
    hints = get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: values(get_args(hint)[0]) for name, hint in hints.items()})


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_field_of_a_message_has_a_number_of_its_own(kind: type[Message]) -> None:
    hints = get_type_hints(kind, include_extras=True)
    assert all(get_origin(hint) is Annotated for hint in hints.values())
    numbers = [get_args(hint)[1] for hint in hints.values()]
    assert numbers == sorted(set(numbers))


@settings(max_examples=5)
@given(st.data())
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_a_message_is_read_as_it_was_written(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(a(kind))
    assert kind.decode(message.encode()) == message


def test_a_message_has_the_bytes_that_protoc_gives_it() -> None:
    descriptor = messages.Descriptor("m", "sha256:a", 300, {"k": "v"})
    assert descriptor.encode() == b"\x0a\x01m\x12\x08sha256:a\x18\xac\x02\x2a\x06\x0a\x01k\x12\x01v"
    request = messages.ApplyRequest(descriptor, (messages.Mount("bind", "/s", options=("rw", "rbind")),), sync_fs=True)
    mount = b"\x0a\x04bind\x12\x02/s\x22\x02rw\x22\x05rbind"
    assert request.encode() == b"\x0a\x18" + descriptor.encode() + b"\x12\x15" + mount + b"\x20\x01"


def test_defaults_are_not_written_and_an_empty_message_is() -> None:
    assert messages.WriteRequest().encode() == b""
    assert messages.InfoResponse(messages.ContentInfo()).encode() == b"\x0a\x00"
    assert messages.InfoResponse.decode(b"\x0a\x00").info == messages.ContentInfo()
    assert messages.InfoResponse.decode(b"").info is None


def test_a_negative_number_is_its_twos_complement() -> None:
    data = messages.Timestamp(-1).encode()
    assert data == b"\x08" + b"\xff" * 9 + b"\x01"
    assert messages.Timestamp.decode(data).seconds == -1


def test_a_moment_becomes_a_timestamp() -> None:
    assert messages.Timestamp.of(datetime(1970, 1, 2, 0, 0, 1, 5, UTC)) == messages.Timestamp(86401, 5000)
    assert messages.Timestamp.of(datetime(1969, 12, 31, 23, 59, 59, 0, UTC)) == messages.Timestamp(-1)


@given(st.lists(st.tuples(st.integers(100, 1000), NUMBERS | st.binary(max_size=20))))
def test_fields_that_are_not_known_are_passed_over(unknown: list[tuple[int, int | bytes]]) -> None:
    message = messages.ContentInfo("sha256:a", 5, labels={"k": "v"})
    out = bytearray()
    for number, value in unknown:
        if isinstance(value, int):
            wire.put_number(out, number, value)
        else:
            wire.put_bytes(out, number, value)
    assert messages.ContentInfo.decode(bytes(out) + message.encode() + bytes(out)) == message


def test_of_a_field_that_comes_twice_the_last_holds_and_messages_are_merged() -> None:
    assert messages.Version.decode(b"\x0a\x011\x0a\x012").version == "2"
    first, second = messages.ContentInfo("sha256:a", 1), messages.ContentInfo(size=2, labels={"k": "v"})
    parts = messages.InfoResponse(first).encode() + messages.InfoResponse(second).encode()
    assert messages.InfoResponse.decode(parts).info == messages.ContentInfo("sha256:a", 2, labels={"k": "v"})


@settings(max_examples=20)
@given(st.binary(max_size=100))
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_garbage_is_a_message_or_a_format_error(kind: type[Message], data: bytes) -> None:
    try:
        message = kind.decode(data)
    except FormatError:
        return
    assert kind.decode(message.encode()) == message


@pytest.mark.parametrize(
    ("kind", "data", "word"),
    [
        pytest.param(messages.Version, b"\x0a\x01\xff", "UTF-8", id="not UTF-8"),
        pytest.param(messages.Version, b"\x08\x01", "another type", id="a number for a text"),
        pytest.param(messages.Timestamp, b"\x0a\x00", "another type", id="a text for a number"),
        pytest.param(messages.ContentInfo, b"\x2a\x02\x08\x01", "map", id="a map with numbers"),
        pytest.param(messages.FieldMask, b"\x0a\x00" * 100_001, "elements", id="too many elements"),
    ],
)
def test_a_field_that_is_not_what_it_should_be_is_a_format_error(kind: type[Message], data: bytes, word: str) -> None:
    with pytest.raises(FormatError, match=word):
        kind.decode(data)
