"""YAML as nodes: from the parser's events, so that nothing is made of an alias, and each node knows its line.

Numbered rules:
1. An alias is its anchor's very node: a document takes the memory of what is written, whatever it would expand to.
2. Nodes, depth and aliases are counted while they come; the parser reads no further than the first too many.
3. Tags say nothing: no value is made of a text.

Spec: YAML 1.1, as libyaml reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import yaml

from fastoci.lists.findings import Findings
from fastoci.lists.node import ALIASES, DEPTH, NODES, Array, Mapping, Node, Scalar

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the slow one where PyYAML was built without libyaml


def documents(data: bytes, found: Findings, *, nodes: int = NODES) -> Iterator[Node]:
    """The documents of a stream, in order, up to the first that cannot be read.

    Args:
        data: UTF-8.
        nodes: that there may be.
    """
    try:
        yield from _Nodes(found, nodes).documents(data)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        found.problem(mark.line + 1 if mark else 1, f"this is not YAML: {error.problem or error.context}")
    except yaml.reader.ReaderError as error:
        line = data.count(b"\n", 0, error.position) + 1
        found.problem(line, f"this is not YAML: a character that no text has, U+{_number(error.character):04X}")
    except _TooMuch as error:
        found.problem(error.line, f"too much for a list: {error}")


def _number(character: object) -> int:
    return ord(character) if isinstance(character, str | bytes) and len(character) == 1 else int(str(character), 0)


class _TooMuch(Exception):
    """A document passes a bound."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class _Nodes:
    """Makes nodes of one stream's events."""

    def __init__(self, found: Findings, most: int) -> None:
        self._found = found
        self._most = most
        self._anchors: dict[str, Node] = {}
        self._nodes = 0
        self._aliases = 0

    def documents(self, data: bytes) -> Iterator[Node]:
        """The root of each document."""
        root: list[Node] = []
        open_nodes: list[Array | Mapping] = []
        for event in yaml.parse(data, Loader=_LOADER):
            if isinstance(event, yaml.NodeEvent):
                node = self._node(event, len(open_nodes))
                if open_nodes:
                    open_nodes[-1].add(node, self._found)
                else:
                    root.append(node)
                if isinstance(event, yaml.CollectionStartEvent) and not isinstance(node, Scalar):
                    open_nodes.append(node)
            elif isinstance(event, yaml.CollectionEndEvent):
                open_nodes.pop()
            elif isinstance(event, yaml.DocumentEndEvent):
                yield root.pop()
                self._anchors.clear()

    def _node(self, event: yaml.NodeEvent, depth: int) -> Node:
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            return self._aliased(event, line)
        self._nodes += 1
        if self._nodes > self._most:
            raise _TooMuch(line, f"more than {self._most} values")
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = Scalar(event.value, line, event.style is not None and event.style != "")
        elif depth >= DEPTH:
            raise _TooMuch(line, f"values in each other {DEPTH} deep")
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Array([], line)
        else:
            node = Mapping({}, {}, line)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _aliased(self, event: yaml.AliasEvent, line: int) -> Node:
        self._aliases += 1
        if self._aliases > ALIASES:
            raise _TooMuch(line, f"more than {ALIASES} aliases")
        node = self._anchors.get(event.anchor or "")
        if node is None:
            self._found.problem(line, f"*{(event.anchor or '')[:100]} names no anchor that is before it")
            return Scalar("", line, False)
        return node
