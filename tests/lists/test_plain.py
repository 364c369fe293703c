"""Plain lists: an image a line, with words behind it.

Covers: lists/plain.py, lists/findings.py.
"""

from __future__ import annotations

import pytest

from fastoci.lists.parsing import parse_list
from fastoci.lists.request import ListProblem, PrefetchRequest


def test_each_line_is_an_image_and_comments_and_blank_lines_are_none() -> None:
    found = parse_list(b"# the base\n\nalpine:3  # small\n   \n\tredis@sha256:ab\n#busybox\n", "nodes.txt")
    assert found.requests == (
        PrefetchRequest("alpine:3", origin="nodes.txt:3"),
        PrefetchRequest("redis@sha256:ab", origin="nodes.txt:5"),
    )
    assert (found.problems, found.queries, found.access) == ((), (), ())


def test_a_line_says_platforms_a_priority_and_a_pin_in_any_order() -> None:
    found = parse_list(b"a pin platform=linux/arm64,linux/amd64 priority=-5\nb priority=7\n", "l")
    assert found.requests == (
        PrefetchRequest("a", ("linux/arm64", "linux/amd64"), -5, True, origin="l:1"),
        PrefetchRequest("b", priority=7, origin="l:2"),
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("platfrom=linux/arm64", "'platfrom=linux/arm64' is not known"),
        ("redis:7", "'redis:7' is not known"),
        ("pinned", "'pinned' is not known"),
        ("pin=no", "'pin=no' is not known"),
        ("priority=high", "priority=high is not a whole number"),
        ("priority=1234567890", "is not a whole number of nine digits"),
        ("platform=", "platform= has no value"),
        ("priority", "priority= has no value"),
        ("platform=a platform=b", "platform is there twice"),
        ("priority=0 priority=0", "priority is there twice"),
        ("pin pin", "pin is there twice"),
    ],
)
def test_a_word_that_is_wrong_is_a_problem_of_its_line_alone(words: str, message: str) -> None:
    found = parse_list(f"before\napp {words}\nafter".encode(), "l")
    assert [request.reference for request in found.requests] == ["before", "after"]
    [problem] = found.problems
    assert problem.origin == "l:2"
    assert problem.message.startswith("app: ")
    assert message in problem.message


@pytest.mark.parametrize(
    "data",
    [b"\xef\xbb\xbfa\nb\n", b"a\r\nb\r\n", b"a\rb", b"a\nb", b"\na b\n".replace(b" ", b"\n").lstrip()],
    ids=["mark of the byte order", "lines of Windows", "lines of old Macs", "no last newline", "newlines"],
)
def test_a_list_may_come_from_any_editor(data: bytes) -> None:
    assert parse_list(data, "l").requests == (PrefetchRequest("a", origin="l:1"), PrefetchRequest("b", origin="l:2"))


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        (b"a\nb\xff\n", 2, "this is not UTF-8 text"),
        (b"a\n\nb\0", 3, "a zero byte: this is not text"),
        ("alpine\n".encode("utf-16"), 1, "this is not UTF-8 text"),
        (b"\x7fELF\x02\x01\x01\0\0\0", 1, "a zero byte: this is not text"),
    ],
    ids=["latin-1", "zero byte", "UTF-16", "program"],
)
def test_what_is_no_text_is_one_problem(data: bytes, line: int, message: str) -> None:
    found = parse_list(data, "l")
    assert found.problems == (ListProblem(f"l:{line}", message),)
    assert found.entries == found.problems


def test_a_line_without_end_is_a_problem_that_does_not_repeat_it() -> None:
    [problem] = parse_list(b"a" * 5000, "l").problems
    assert problem == ListProblem("l:1", "a line of 5000 characters, at most 4096 are allowed")


def test_an_empty_list_asks_for_nothing() -> None:
    assert parse_list(b"", "l").entries == ()
    assert parse_list(b"# nothing yet\n", "l").entries == ()
