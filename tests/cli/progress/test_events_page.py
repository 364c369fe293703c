"""docs/events.md against the events there are, and against what a run prints."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
import pytest

from fastoci import events
from fastoci.testing.faults import FaultServer, Rule, Scenario, Tweak
from fastoci.testing.faults.command import Workdir
from support.events_page import COMMON, TIME, documented
from support.scratch import SOURCE

TYPES: dict[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "null": lambda value: value is None,
}
NAMES = {
    str: "string",
    int: "integer",
    float: "number",
    int | None: "integer or null",
    dict[str, int]: "object",
    tuple[str, ...]: "array",
}


def _documented() -> dict[str, dict[str, str]]:
    """The fields of each event, with their types, as the page has them."""
    return {name: {field: types for field, (types, _) in table.items()} for name, (_, table) in documented().items()}


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


@pytest.mark.parametrize("kind", get_args(events.Event), ids=lambda kind: kind.__name__)
def test_the_page_has_each_event_with_its_fields_and_types(kind: type[events.Event]) -> None:
    hints = get_type_hints(kind)
    assert _documented()[_snake(kind.__name__)] == {
        field.name: NAMES[hints[field.name]] for field in msgspec.structs.fields(kind)
    }


def test_the_page_has_no_events_that_there_are_not() -> None:
    ours = {_snake(kind.__name__) for kind in get_args(events.Event)}
    assert set(_documented()) - ours == {"error", "log", "stopped", "summary"}


ODD = Scenario("T", "503 once", "", "ok", rules=(Rule("manifest", Tweak(status=503, body=""), 1, 1),), layer=1 << 20)


async def test_each_line_of_a_run_is_as_the_page_says(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path / "place")
    workdir.root.mkdir()
    async with FaultServer(ODD) as server:
        words = workdir.prepare(server)
        absent = server.image.rpartition(":")[0] + ":absent"
        command = ["pull", server.image, absent, "--store", words["store"], "--progress", "json", "--debug"]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fastoci", *command),
            env={**workdir.environment(server), "PYTHONPATH": str(SOURCE)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    assert process.returncode == 9
    assert out.decode().startswith(server.image.rpartition(":")[0] + "@sha256:")
    page = _documented()
    seen = []
    for text in err.decode().splitlines():
        line = json.loads(text)
        fields = COMMON | page[line["event"]]
        assert set(line) == set(fields)
        for name, types in fields.items():
            assert any(TYPES[each](line[name]) for each in types.split(" or ")), (name, line)
        assert re.match(TIME, line["time"])
        assert line["version"] == 1
        seen.append(line)
    told = [line["event"] for line in seen]
    assert {"image_started", "image_planned", "blob_started", "blob_done", "image_done", "retrying", "log"} <= set(told)
    (error,) = [line for line in seen if line["event"] == "error"]
    assert (error["subject"], error["kind"], error["exit_code"]) == (absent, "NotFoundError", 3)
    assert error["hint"]
    assert told.index("image_failed") < told.index("error")
    assert told[-1] == "summary"
    assert (seen[-1]["exit_code"], seen[-1]["images"], seen[-1]["failed"], seen[-1]["retries"]) == (9, 2, 1, 1)


def test_wrong_usage_is_a_line_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fastoci", "pull", "--progress", "json", "a", "b", "--rootfs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    error, summary = map(json.loads, done.stderr.splitlines())
    assert (error["kind"], error["exit_code"]) == ("UsageError", 2)
    assert (summary["event"], summary["exit_code"]) == ("summary", 2)
