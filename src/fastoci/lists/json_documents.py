"""JSON as nodes, each with its line. libyaml would refuse some of it: tabs, surrogates, and DEL in a text.

Spec: RFC 8259.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from fastoci.lists.findings import Findings
from fastoci.lists.node import DEPTH, NODES, Array, Mapping, Node, Scalar

_TOKEN: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]]|[^\s{}\[\]:,"]++')
_BYTE: Final = re.compile(r" ?\(byte ([0-9]+)\)")


def documents(data: bytes, found: Findings, *, nodes: int = NODES) -> Iterator[Node]:
    """The one document of a text, unless it cannot be read.

    Args:
        data: UTF-8.
        nodes: that there may be.
    """
    try:
        msgspec.json.decode(data, type=msgspec.Raw)  # the whole grammar is checked; nothing is made
    except msgspec.DecodeError as error:
        at = _BYTE.search(str(error))
        line = data.count(b"\n", 0, int(at[1]) if at else len(data)) + 1
        found.problem(line, f"this is not JSON: {_BYTE.sub('', str(error))}")
        return
    except RecursionError:
        found.problem(1, f"too much for a list: values in each other {DEPTH} deep")
        return
    root = _root(data.decode(), found, nodes)
    if root is not None:
        yield root


def _root(text: str, found: Findings, nodes: int) -> Node | None:
    """The value of a text that is JSON; None where it passes a bound."""
    root: Node | None = None
    open_nodes: list[Array | Mapping] = []
    line, before = 1, 0
    for number, match in enumerate(_TOKEN.finditer(text)):
        token, start = match[0], match.start()
        line, before = line + text.count("\n", before, start), start
        node: Node
        if token in "}]":
            open_nodes.pop()
            continue
        if token in "{[":
            node = Mapping({}, {}, line) if token == "{" else Array([], line)
        elif token[0] == '"':
            node = Scalar(_text(token), line, True)
        else:
            node = Scalar(token, line, False)
        if number >= nodes or len(open_nodes) > DEPTH:
            what = f"more than {nodes} values" if number >= nodes else f"values in each other {DEPTH} deep"
            found.problem(line, f"too much for a list: {what}")
            return None
        if open_nodes:
            open_nodes[-1].add(node, found)
        else:
            root = node
        if not isinstance(node, Scalar):
            open_nodes.append(node)
    return root


def _text(token: str) -> str:
    return str(msgspec.json.decode(token)) if "\\" in token else token[1:-1]
