"""Regular expressions: Python's say the same of the same texts, and none takes long.

Covers: lists/regular_expression.py, lists/expression_syntax.py.
"""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastoci.lists.regular_expression import Expression

PIECES = r"""
    a b 1 . - _ [ab] [^a1] [a-c] [0-9_.-] \d \w \W \. ^ $ \b \B (?:a|b1) (a) (?:) | a* b+? .* [ab]{2} (?:ab){1,3}
    1{0,2}? (?i:A) a|
"""
MATCHING = ("(a?){60}a{60}", "^(.*a){20}")  # what they look for is in a hundred letters a


@given(st.lists(st.sampled_from(PIECES.split()), max_size=8).map("".join), st.text("ab1.-_AB", min_size=1, max_size=12))
def test_a_search_finds_what_pythons_finds(expression: str, tag: str) -> None:
    wanted = re.search(expression.replace("$", r"\Z"), tag, re.ASCII) is not None
    assert Expression(expression).is_in(tag) is wanted


@pytest.mark.parametrize(
    ("expression", "matching", "others"),
    [
        (
            r"^1\.13\.[12]-alpine-perl$",
            ["1.13.1-alpine-perl"],
            ["1.13.3-alpine-perl", "1.13.1-alpine-perl5", "11.13.1"],
        ),
        ("latest", ["latest", "not-latest-1"], ["lates"]),
        ("(?i)^V(?-i:x)", ["vx", "Vx"], ["VX"]),
        ("a(?i)b|c", ["aB", "C"], ["AB"]),
        ("((?i)a)b", ["Ab"], ["aB"]),
        (r"^\Q1.2\E+$", ["1.2", "1.22"], ["1x2"]),
        (r"^[[:digit:]]+[[:^alpha:]]$", ["12", "1_"], ["1a"]),
        (r"^[\d.]+\z", ["1.2"], ["1.2a"]),
        (r"^\x61\x{62}\143$", ["abc"], ["ab"]),
        (r"^[^\W_]+$", ["ab1"], ["a_b", ""]),
        ("^a{,2}$", ["a{,2}"], ["aa"]),
        ("^[]a]+$", ["a", "]"], ["b"]),
        ("^[a-]+$", ["a-"], ["b"]),
        ("^(?P<major>[0-9]+)(?<rest>.*)$", ["1.2"], ["v1"]),
        (r"^\bv", ["v1"], ["1v"]),
        ("", ["anything", ""], []),
        ("^$", [""], ["a"]),
        ("é|b", ["b"], ["e"]),
        ("[^é]", ["e"], [""]),
    ],
)
def test_the_syntax_is_that_of_go(expression: str, matching: list[str], others: list[str]) -> None:
    searched = Expression(expression)
    assert [tag for tag in (*matching, *others) if searched.is_in(tag)] == matching


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("*a", r"nothing is before the \*"),
        ("(a", r"a \( without its \)"),
        ("a)", r"a \) without its \("),
        ("[a", "ends in a "),
        ("a\\", "ends in a backslash"),
        ("a**", r"\* behind another"),
        ("a{2}{3}", "behind another"),
        ("a{3,2}", "no number of times"),
        ("a{1001}", "1000 are the most"),
        ("[b-a]", "ends before it begins"),
        ("[[:digits:]]", "is not known"),
        (r"\Z", "is not known"),
        (r"\1", "is not known"),
        (r"\pL", "is not known"),
        ("(?=a)", "of a kind that is not known"),
        ("(?<!a)", "of a kind that is not known"),
        ("(" * 60, "groups in each other"),
        ("(?:a{1000}){1000}", "more than 2000 places"),
        ("a" * 1001, "at most 1000 are allowed"),
        (r"\x{110000}", "no character"),
    ],
)
def test_what_is_no_expression_says_why(expression: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Expression(expression)


@given(st.text(r"ab1()[]{}|*+?\^$.-,:=!<>PiQEdwsbBAzx0", max_size=40))
def test_any_text_is_an_expression_or_a_value_error(text: str) -> None:
    try:
        Expression(text).is_in("1.2.3-alpine")
    except ValueError as error:
        assert "is not a regular expression" in str(error)


@pytest.mark.parametrize("expression", ["^(a+)+$", "^(a|aa)*$", "^(a*)*b", "(x+x+)+y", *MATCHING])
def test_what_takes_others_for_ever_takes_no_time(expression: str) -> None:
    began = time.monotonic()
    assert Expression(expression).is_in("a" * 100 + "-") is (expression in MATCHING)
    assert time.monotonic() - began < 20


def test_the_work_of_one_expression_has_an_end() -> None:
    searched = Expression("(?:[ab]*a[ab]{30}){20}c")
    searched._work = 50_000_000 - 1000
    with pytest.raises(ValueError, match="too much work"):
        searched.is_in("ab" * 60)


def test_a_text_that_is_no_tag_is_not_chosen() -> None:
    assert not Expression("").is_in("a" * 129)
    assert not Expression("").is_in("é")
