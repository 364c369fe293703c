"""What a program gives is checked where it enters: a wrong type says so there, and not as a fault further in."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

T = TypeVar("T", bound=Collection[object])
V = TypeVar("V")


def expect(kind: type[V], value: object, what: str, *, hint: str = "") -> V:
    """Check one argument, which ``what`` names, and give it back.

    Raises:
        TypeError: it is of another type; says which, and ``hint``.
    """
    if not isinstance(value, kind):
        more = f"; {hint}" if hint else ""
        raise TypeError(f"{what}: expected {kind.__name__}, got {type(value).__name__} {repr(value)[:200]}{more}")
    return value


def expect_callable(value: object, what: str) -> None:
    """Check a function, or what is used as one.

    Raises:
        TypeError: it cannot be called.
    """
    if not callable(value):
        raise TypeError(f"{what}: {type(value).__name__} {repr(value)[:200]} cannot be called")


def at_least(least: int, value: object, what: str) -> None:
    """Check a number.

    Raises:
        TypeError: it is no integer.
        ValueError: it is too small.
    """
    if expect(int, value, what) < least:
        raise ValueError(f"{what}: {value} is less than {least}")


def one_of(words: Collection[str], value: object, what: str) -> None:
    """Check a word.

    Raises:
        ValueError: it is another.
    """
    if value not in words:
        raise ValueError(f"{what}: {value!r} is none of {', '.join(words)}")


def several(given: T, *kinds: type) -> T:
    """A list of things of these kinds; one text is none, its characters would be taken for the things.

    Raises:
        TypeError: it is something else, or has something else.
    """
    names = " or ".join(kind.__name__ for kind in kinds)
    if isinstance(given, str | bytes) or not isinstance(given, Collection):
        raise TypeError(f"expected a list of {names}, got {type(given).__name__} {repr(given)[:200]}")
    for each in given:
        if not isinstance(each, kinds):
            raise TypeError(f"expected a list of {names}, with {type(each).__name__} {repr(each)[:200]} in it")
    return given
