"""docs/events.schema.json against the events there are, and against what jobs print.

``PYTHONPATH=tests python tests/cli/progress/test_events_schema.py`` writes it, from docs/events.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from conftest import Cli
from fastoci import events
from fastoci.testing.registry import Registry, serve
from support.events_page import DOCS, schema
from support.images import image_of, made

PATH = DOCS / "events.schema.json"
IMAGES = [image_of(made(1, files=2, size=50_000), made(10 + number, files=2, size=9_000)) for number in range(10)]


def written() -> str:
    return json.dumps(schema(), indent=2) + "\n"


def test_the_schema_is_that_of_the_page() -> None:
    assert PATH.read_text() == written()


@pytest.mark.parametrize("kind", get_args(events.Event), ids=lambda kind: kind.__name__)
def test_the_schema_has_each_event_with_its_fields(kind: type[events.Event]) -> None:
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
    found = json.loads(PATH.read_text())["$defs"][name]
    (own,), made_of = msgspec.json.schema_components([kind])
    ours = made_of[kind.__name__]["properties"]
    assert list(found["properties"]) == found["required"] == list(ours)
    for field, expected in ours.items():
        types = [each["type"] for each in expected.get("anyOf", [expected])]
        assert found["properties"][field]["type"] in (types, types[0]), (own, field)


def problems(value: object, rules: dict[str, Any], whole: dict[str, Any]) -> Iterator[str]:
    """What a JSON Schema has against a value. Knows the words that ours uses, and no others."""
    unknown = rules.keys() - _WORDS - {"additionalProperties"}
    assert not unknown, unknown
    if "$ref" in rules:
        yield from problems(value, whole["$defs"][rules["$ref"].removeprefix("#/$defs/")], whole)
    if "const" in rules and value != rules["const"]:
        yield f"{value!r} is not {rules['const']!r}"
    allowed = rules.get("type", [])
    if allowed and not any(_is(value, each) for each in ([allowed] if isinstance(allowed, str) else allowed)):
        yield f"{value!r} is not of {allowed}"
    if "pattern" in rules and isinstance(value, str) and not re.search(rules["pattern"], value):
        yield f"{value!r} does not match"
    for each in rules.get("allOf", []):
        if not list(problems(value, each["if"], whole)):
            yield from problems(value, each["then"], whole)
    if isinstance(value, dict):
        yield from (f"no {name}" for name in rules.get("required", []) if name not in value)
        known = rules.get("properties", {})
        for name, member in value.items():
            yield from problems(member, known.get(name, rules.get("additionalProperties", {})), whole)


_NOTES = {"$schema", "$defs", "title", "description"}
_WORDS = _NOTES | {"$ref", "type", "const", "pattern", "properties", "required", "allOf", "if", "then"}
_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "null": type(None),
}


def _is(value: object, name: str) -> bool:
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


@pytest.mark.parametrize("command", ["pull", "prefetch"])
def test_every_line_of_a_job_is_valid_and_known(command: str, cli: Cli, tmp_path: Path) -> None:
    rules = json.loads(PATH.read_text())
    with serve(Registry()) as registry:
        for number, image in enumerate(IMAGES):
            registry.add_image("app", str(number), image)
        registry.remove_blob(str(IMAGES[3].layers[1].descriptor.digest))
        names = [f"{registry.address}/app:{tag}" for tag in (*range(len(IMAGES)), "absent")]
        done = cli(command, *names, "NOT A NAME", "--store", tmp_path, "--progress", "json", "--debug")
    assert done.returncode == 9
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    for line in lines:
        assert list(problems(line, rules, rules)) == [], line
        assert line.keys() == {*rules["properties"], *rules["$defs"][line["event"]]["properties"]}
    told = {line["event"] for line in lines}
    assert {"image_started", "image_planned", "blob_done", "image_done", "image_failed", "error", "summary"} <= told
    job = {"job_started", "image_resolved", "job_planned", "job_done"}
    assert told & job == (job if command == "prefetch" else set())


LINE = {"version": 1, "time": "2026-11-30T14:05:09.120Z", "event": "blob_done", "blob": "sha256:aa", "size": 5}


@pytest.mark.parametrize(
    ("changed", "is_wrong"),
    [
        ({}, False),
        ({"event": "to_come", "blob": 5}, False),
        ({"more": 1}, False),
        ({"version": 2}, True),
        ({"time": "2026-11-30T14:05:09Z"}, True),
        ({"size": "5"}, True),
        ({"size": True}, True),
        ({"event": "image_done"}, True),
        (
            {"event": "image_planned", "image": "a", "digest": "d", "platform": "", "blobs": 1, "missing": {"a": ""}},
            True,
        ),
        ({"event": 5}, True),
    ],
)
def test_the_schema_lets_what_is_new_pass_and_nothing_wrong(changed: dict[str, object], is_wrong: bool) -> None:
    rules = json.loads(PATH.read_text())
    assert bool(list(problems(LINE | changed, rules, rules))) is is_wrong


if __name__ == "__main__":
    PATH.write_text(written())
