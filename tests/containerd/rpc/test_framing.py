"""Messages with their lengths, statuses, and texts in headers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastoci.containerd.rpc import framing
from fastoci.containerd.rpc.framing import Assembler, Code, FramingError


@given(st.lists(st.binary(max_size=30)), st.lists(st.integers(0, 200)))
def test_messages_come_as_they_were_sent_however_the_bytes_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    data = b"".join(framing.prefix(len(each)) + each for each in messages)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assembler = Assembler(30)
    found = [each for start, end in pairwise(edges) for each in assembler.feed(data[start:end])]
    assert found == messages
    assert assembler.pending == 0


def test_a_message_that_is_not_complete_is_pending() -> None:
    assembler = Assembler(30)
    assert assembler.feed(b"\0\0\0\0\x03ab") == []
    assert assembler.pending == 7
    assert assembler.feed(b"c\0") == [b"abc"]
    assert assembler.pending == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"\1\0\0\0\0", Code.UNIMPLEMENTED, id="compressed"),
        pytest.param(b"\0\0\0\0\x1f", Code.RESOURCE_EXHAUSTED, id="one byte too long"),
        pytest.param(b"\0\xff\xff\xff\xff", Code.RESOURCE_EXHAUSTED, id="four gigabytes"),
    ],
)
def test_a_message_that_is_not_taken_is_refused_by_its_first_bytes(data: bytes, code: Code) -> None:
    with pytest.raises(FramingError) as caught:
        Assembler(30).feed(data)
    assert caught.value.code == code


@given(st.text(max_size=100))
def test_a_text_comes_through_a_header(text: str) -> None:
    assert framing.unescaped(framing.escaped(text)) == text
    assert framing.escaped(text).isascii()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({"grpc-status": "0"}, (0, ""), id="ok"),
        pytest.param({"grpc-status": "5", "grpc-message": "no%20%C3%A4"}, (5, "no ä"), id="a text"),
        pytest.param({"grpc-status": "99"}, (99, ""), id="a status that nobody knows"),
        pytest.param({"grpc-status": "5", "grpc-message": "%FF%"}, (5, "\ufffd%"), id="not UTF-8"),
    ],
)
def test_a_status_is_read(headers: dict[str, str], expected: tuple[int, str]) -> None:
    assert framing.status(headers) == expected


@pytest.mark.parametrize("word", ["", "-1", "x", "0x0", "²", "9999"])
def test_a_call_without_a_status_has_failed(word: str) -> None:
    assert framing.status({"grpc-status": word})[0] == Code.UNKNOWN
