"""Ranges of semantic versions, as skopeo reads them: ``>= 3.12.0``, ``^1.2``, ``~1.2.3``, ``1.2.x``, ``1.2 - 1.4``.

Numbered rules:
1. A comma or a blank joins what must all hold, ``||`` what may hold instead.
2. A version may leave out its minor and patch number and may begin with ``v``; what is left out, or is ``x`` or ``*``,
   is any number where the operator allows for it.
3. A pre-release is in a range only when one of the parts that must all hold names a pre-release.
4. Metadata behind ``+`` is not compared.

Spec: semver 2.0.0, section 11; the constraints of Masterminds/semver 3.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

_IDENTIFIERS: Final = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_ENDS: Final = rf"(?:-({_IDENTIFIERS}))?(?:\+{_IDENTIFIERS})?"
_VERSION: Final = re.compile(rf"v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?{_ENDS}")
_PATTERN: Final = rf"v?(?:[0-9]+|[xX*])(?:\.(?:[0-9]+|[xX*]))?(?:\.(?:[0-9]+|[xX*]))?{_ENDS}"
_PARTS: Final = re.compile(rf"v?([0-9]+|[xX*])(?:\.([0-9]+|[xX*]))?(?:\.([0-9]+|[xX*]))?{_ENDS}")
_COMPARISON: Final = re.compile(rf"\s*(=|!=|>=|=>|<=|=<|>|<|~>|~|\^)?\s*({_PATTERN})(?=[\s,]|$)")
_HYPHEN: Final = re.compile(rf"\s*({_PATTERN})\s+-\s+({_PATTERN})\s*")
_SIZE: Final = 1000  # characters of a range
_DIGITS: Final = 18  # of a number: Go's is of 64 bits


class Version(NamedTuple):
    """A version; ``pre`` are the identifiers of its pre-release."""

    major: int
    minor: int
    patch: int
    pre: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
        """By what versions are compared: numbers before words, and a pre-release before its release."""
        marks = tuple((False, int(each), "") if each.isdigit() else (True, 0, each) for each in self.pre)
        return self.major, self.minor, self.patch, not self.pre, marks


def parse_version(text: str) -> Version | None:
    """A version as tags have it; None where it is none."""
    match = _VERSION.fullmatch(text)
    if match is None:
        return None
    numbers = [number or "0" for number in match.groups()[:3]]
    pre = tuple(match[4].split(".")) if match[4] else ()
    zeros = any(len(each) > 1 and each[0] == "0" and each.isdigit() for each in pre)
    if zeros or any(len(number) > _DIGITS for number in (*numbers, *(each for each in pre if each.isdigit()))):
        return None
    return Version(int(numbers[0]), int(numbers[1]), int(numbers[2]), pre)


class _Comparison(NamedTuple):
    """One operator and its version; ``known`` says how many of its numbers are written."""

    operator: str
    version: Version
    known: int

    def has(self, version: Version) -> bool:
        return _OPERATORS[self.operator](version, self)

    def shares(self, version: Version, count: int) -> bool:
        """Whether the first numbers, as many as are known of ``count``, are the same."""
        count = min(count, self.known)
        return version[:count] == self.version[:count]


def _caret(version: Version, than: _Comparison) -> bool:
    if version.order < than.version.order:
        return False
    first = next((place for place, number in enumerate(than.version[: than.known]) if number), 2)
    return than.shares(version, first + 1)


def _tilde(version: Version, than: _Comparison) -> bool:
    if version.order < than.version.order:
        return False
    is_zero = than.known == 3 and than.version[:3] == (0, 0, 0)  # the range of everything, for Masterminds/semver
    return is_zero or than.shares(version, 2)


def _equal(version: Version, than: _Comparison) -> bool:
    return _tilde(version, than) if than.known < 3 else version.order == than.version.order


def _greater(version: Version, than: _Comparison) -> bool:
    """Above all that is known to be meant: >11 begins with 12."""
    if than.known < 3:
        return version[: than.known] > than.version[: than.known]
    return version.order > than.version.order


def _at_most(version: Version, than: _Comparison) -> bool:
    if than.known < 3:
        return version[: than.known] <= than.version[: than.known]
    return version.order <= than.version.order


def _different(version: Version, than: _Comparison) -> bool:
    if than.known == 3:
        return version.order != than.version.order
    return not than.shares(version, 3) or (than.known == 2 and version.pre != than.version.pre)


_OPERATORS: Final[dict[str, Callable[[Version, _Comparison], bool]]] = {
    "": _equal,
    "=": _equal,
    "!=": _different,
    ">": _greater,
    ">=": lambda version, than: version.order >= than.version.order,
    "=>": lambda version, than: version.order >= than.version.order,
    "<": lambda version, than: version.order < than.version.order,
    "<=": _at_most,
    "=<": _at_most,
    "~": _tilde,
    "~>": _tilde,
    "^": _caret,
}


class VersionRange:
    """What a range has.

    Raises:
        ValueError: it cannot be one; says where.
    """

    def __init__(self, text: str) -> None:
        if len(text) > _SIZE:
            raise ValueError(f"a range of {len(text)} characters, at most {_SIZE} are allowed")
        self._any_of = [self._all_of(part) for part in (text.strip() or "*").split("||")]

    def has(self, tag: str) -> bool:
        """Whether a tag is a version of the range."""
        version = parse_version(tag)
        return version is not None and any(_all_have(group, version) for group in self._any_of)

    def _all_of(self, text: str) -> list[_Comparison]:
        text = _HYPHEN.sub(r" >=\1, <=\3 ", text)
        comparisons = []
        for part in text.split(","):
            at = 0
            while match := _COMPARISON.match(part, at):
                comparisons.append(_comparison(match[1] or "", match[2]))
                at = match.end()
            if part[at:].strip() or not part.strip():
                raise ValueError(f"{part.strip()[:100]!r} is not a range of versions, as >= 3.12.0, ^1.2 or 1.x")
        return comparisons


def _all_have(group: list[_Comparison], version: Version) -> bool:
    if version.pre and not any(each.version.pre for each in group):
        return False
    return all(each.has(version) for each in group)


def _comparison(operator: str, text: str) -> _Comparison:
    match = _PARTS.fullmatch(text)
    assert match is not None
    numbers: list[str] = []
    for number in match.groups()[:3]:
        if number is None or number in "xX*":
            break
        numbers.append(number)
    pre = f"-{match[4]}" if match[4] else ""
    version = parse_version(".".join([*numbers, *["0"] * (3 - len(numbers))]) + pre)
    if version is None:
        raise ValueError(f"{text[:100]!r} is not a version")
    return _Comparison(operator, version, len(numbers))
