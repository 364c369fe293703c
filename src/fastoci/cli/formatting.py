"""How values read on a screen: hostile text made harmless, sizes made short.

Names, paths and messages come from registries and layers; none may move the cursor, colour the screen or break a line.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from rich.console import RenderableType

_WIDE: Final = 1 << 16  # columns: a table is never cut


def plain(text: str) -> str:
    """The text on one line, with every character that is not printable written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def size(count: float) -> str:
    """Bytes in decimal units, as rich writes them: ``512 bytes``, ``1.2 MB``, ``340.0 GB``."""
    from rich import filesize  # not at the start of every command

    return filesize.decimal(int(count)).replace(",", "")  # so that an option takes it


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 5 min``."""
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def fraction(done: int, total: int) -> str:
    """``12.0 of 40.0 MB``; both sizes keep their unit when these differ."""
    first, second = size(done), size(total)
    if first.split()[1] == second.split()[1]:
        first = first.split()[0]
    return f"{first} of {second}"


def plural(number: int, noun: str) -> str:
    """``1 blob``, ``3 blobs``; the noun's plural ends in s or, for ``entry``, in ies."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row, with its columns below each other. No cell has several lines."""
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _width(text: str) -> int:
    """Columns on a screen: some characters take two, or none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # rarely, and without what draws, which takes 20 ms to import

    return cell_len(text)


class Branch(NamedTuple):
    """A line of a tree, and what hangs on it."""

    label: str
    branches: Sequence[Branch] = ()


def tree(root: Branch) -> list[str]:
    """The lines of a tree, with what leads to each."""
    from rich.text import Text  # when something is drawn
    from rich.tree import Tree

    def drawn(branch: Branch, onto: Tree | None) -> Tree:
        label = Text(branch.label, no_wrap=True)
        made = Tree(label) if onto is None else onto.add(label)
        for each in branch.branches:
            drawn(each, made)
        return made

    return _captured(drawn(root, None))


def _captured(drawn: RenderableType) -> list[str]:
    """What rich draws, in lines."""
    from rich.console import Console

    console = Console(width=_WIDE, color_system=None, file=io.StringIO())
    with console.capture() as capture:
        console.print(drawn)
    return [line.rstrip() for line in capture.get().splitlines()]
