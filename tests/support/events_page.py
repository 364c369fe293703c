"""The tables of docs/events.md, and the JSON Schema that follows from them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from support.scratch import TESTS

DOCS = TESTS.parent / "docs"
COMMON = {"version": "integer", "time": "string", "event": "string"}
TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"

Table = dict[str, tuple[str, str]]  # field to its type and meaning


def documented() -> dict[str, tuple[str, Table]]:
    """The text of each event, and its fields, as the page has them."""
    sections = re.split(r"^### `(\w+)`$", (DOCS / "events.md").read_text(), flags=re.MULTILINE)
    return {
        name: (_plain(re.split(r"^[|#]", text, maxsplit=1, flags=re.MULTILINE)[0]), _table(text))
        for name, text in zip(sections[1::2], sections[2::2], strict=True)
    }


def _table(text: str) -> Table:
    rows: list[tuple[str, str, str]] = re.findall(r"^\| `(\w+)` \| ([^|]+?) \| ([^|]+?) \|$", text, re.MULTILINE)
    return {name: (types, _plain(meaning)) for name, types, meaning in rows}


def _plain(markdown: str) -> str:
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", " ".join(markdown.split()))


def schema() -> dict[str, object]:
    """What a line is: an object with the common fields, and with those of its event when that is a known one."""
    page = documented()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "One line of --progress json",
        "type": "object",
        "properties": {
            "version": {"const": 1},
            "time": {"type": "string", "pattern": TIME},
            "event": {"type": "string"},
        },
        "required": list(COMMON),
        "allOf": [
            {
                "if": {"properties": {"event": {"const": name}}, "required": ["event"]},
                "then": {"$ref": f"#/$defs/{name}"},
            }
            for name in page
        ],
        "$defs": {name: _definition(text, table) for name, (text, table) in page.items()},
    }


def _definition(text: str, table: Table) -> dict[str, object]:
    return {
        **({"description": text} if text else {}),
        "properties": {name: {**_type(types), "description": meaning} for name, (types, meaning) in table.items()},
        "required": list(table),
    }


def _type(types: str) -> Mapping[str, object]:
    """``integer or null``; every object of the page is of counts or sizes, every array of texts."""
    if types == "array":
        return {"type": "array", "items": {"type": "string"}}
    if types == "object":
        return {"type": "object", "additionalProperties": {"type": "integer"}}
    found = types.split(" or ")
    return {"type": found if len(found) > 1 else types}
