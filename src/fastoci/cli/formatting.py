"""How values read on a screen: hostile text made harmless, sizes made short.

Names, paths and messages come from registries and layers; none may move the cursor, colour the screen or break a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_UNITS: Final = ("kB", "MB", "GB", "TB", "PB")


def plain(text: str) -> str:
    """The text on one line, with every character that is not printable written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def size(count: float) -> str:
    """Bytes in decimal units with two or three digits: ``512 B``, ``1.2 MB``, ``340 GB``."""
    if count < 999.5:
        return f"{count:.0f} B"
    power = 0
    while count >= 999.5 and power < len(_UNITS):
        count, power = count / 1000, power + 1
    return f"{count:.{1 if count < 9.95 else 0}f} {_UNITS[power - 1]}"


def fraction(done: int, total: int) -> str:
    """``12 of 40 MB``; both sizes keep their unit when these differ."""
    first, second = size(done), size(total)
    if first.split()[1] == second.split()[1]:
        first = first.split()[0]
    return f"{first} of {second}"


def plural(number: int, noun: str) -> str:
    """``1 blob``, ``3 blobs``; the noun's plural ends in s or, for ``entry``, in ies."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row, with its columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join(f"%-{width}s" for width in widths)
    return [(form % tuple(row)).rstrip() for row in rows]
