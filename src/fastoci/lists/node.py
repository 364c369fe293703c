"""The values of a YAML or JSON document, each with the line where it begins. A YAML alias is its anchor's very node."""

from __future__ import annotations

from typing import Final

import msgspec

from fastoci.lists.findings import Findings

NODES: Final = 2_000_000  # of one list: about 500 MB of memory
DEPTH: Final = 200  # of values in each other
ALIASES: Final = 10_000  # of one list
_MERGES: Final = 100  # mappings and lists that one takes its keys from
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_SHOWN: Final = 100  # characters of a key in a message


class Scalar(msgspec.Struct, eq=False, gc=False):
    """A text, number, truth value or null, as it is written; ``quoted``: it is a text, whatever it looks like."""

    text: str
    line: int
    quoted: bool

    @property
    def is_null(self) -> bool:
        """Whether nothing is said."""
        return not self.quoted and self.text in _NULLS


class Array(msgspec.Struct, eq=False):
    """A list of values."""

    items: list[Node]
    line: int

    def add(self, node: Node, found: Findings) -> None:
        """Append what comes next in the document."""
        self.items.append(node)


class Mapping(msgspec.Struct, eq=False):
    """Values by their keys, in order; ``lines`` of the keys."""

    entries: dict[str, Node]
    lines: dict[str, int]
    line: int
    merged: list[Node] = []  # what ``<<`` names: mappings, and lists of some
    _key: Node | None = None

    def add(self, node: Node, found: Findings) -> None:
        """Take what comes next in the document: a key, or the value of the last one. The first of equal keys counts."""
        key, self._key = self._key, None
        if key is None:
            self._key = node
        elif not isinstance(key, Scalar):
            found.problem(key.line, "a key is not a text: braces that a template leaves need quotes")
        elif key.text == "<<" and not key.quoted:
            self.merged = [*self.merged, node]
        elif key.text in self.entries:
            found.problem(key.line, f"{key.text[:_SHOWN]!r} is there twice, first in line {self.lines[key.text]}")
        else:
            self.entries[key.text] = node
            self.lines[key.text] = key.line

    def get(self, key: str) -> Node | None:
        """The value of a key, of this mapping or of those it is merged with; None also for a null."""
        seen: set[int] = set()
        waiting: list[Node] = [self]
        while waiting and len(seen) < _MERGES:
            node = waiting.pop(0)
            if isinstance(node, Scalar) or id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, Array):
                waiting[:0] = node.items
            elif (value := node.entries.get(key)) is not None:
                return None if isinstance(value, Scalar) and value.is_null else value
            else:
                waiting[:0] = node.merged
        return None

    def text(self, key: str) -> str:
        """The text of a key; empty where it has none."""
        value = self.get(key)
        return value.text if isinstance(value, Scalar) else ""


Node = Scalar | Array | Mapping
