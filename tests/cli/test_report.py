"""What is told of failures, as text and among JSON lines.

Covers: cli/report.py, cli/progress/stream.py.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import click
import pytest

from fastoci import errors
from fastoci.cli.main import program
from fastoci.cli.progress.display import Lines
from fastoci.cli.progress.stream import Json
from fastoci.cli.report import Report
from fastoci.events import BlobDone, BlobStarted, ImageDone, ImageFailed, ImagePlanned, Retrying, UnpackDone

pytestmark = pytest.mark.usefixtures("log_as_before")

ABSENT = [(name, errors.NotFoundError(f"no {name}", url="http://h/v2", status=404)) for name in ("a", "b")]


def test_each_failure_is_told_at_once_and_each_hint_once_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    for name, error in ABSENT:
        report.fail(error, name)
        assert capsys.readouterr() == ("", f"fastoci: {name}: no {name} (http://h/v2)\n")
    report.end(3)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("fastoci: hint: check the name")
    assert len(err.splitlines()) == 1


def test_failures_are_told_on_the_display_and_results_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    text, report = io.StringIO(), Report()
    report.show_on(Lines(text))
    report.fail(ABSENT[0][1], "a")
    report.result("a@sha256:aa")
    assert text.getvalue() == "fastoci: a: no a (http://h/v2)\n"
    assert capsys.readouterr() == ("a@sha256:aa\n", "")


def _lines(text: io.StringIO) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in text.getvalue().splitlines()]
    for line in lines:
        assert line.pop("version") == 1
        assert isinstance(line.pop("time"), str)
    return lines


def test_everything_is_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    text, report = io.StringIO(), Report()
    now = [100.0]
    display = Json(text, lambda: now[0])
    report.show_on(display)
    display(ImagePlanned("h/a", "sha256:aa", "linux/amd64", 2, 9, {"sha256:1": 9}))
    display(BlobStarted("h/a", "sha256:1", 9, 4))
    display(Retrying("h/a", "sha256:1", "https://h/v2", "503 Service Unavailable", 1, 8, 0.5))
    display(BlobDone("sha256:1", 9))
    display(ImageDone("h/a", "sha256:aa"))
    display(ImageFailed("h/b", "no b", "NotFoundError", 3))
    error = errors.NotFoundError("no b", url="http://h/v2", status=404)
    error.tries, error.elapsed_s = 8, 2.5
    report.fail(error, "h/b")
    report.misused(click.UsageError("give HOST or --all"))
    now[0] += 2.5
    report.end(9)
    assert capsys.readouterr() == ("", "")
    *_, failed, misused, summary = _lines(text)
    hint = failed.pop("hint")
    assert isinstance(hint, str) and hint.startswith("check the name")
    assert failed == {
        "event": "error",
        "subject": "h/b",
        "message": "h/b: 8 tries in 2.5 s, last: no b (http://h/v2)",
        "kind": "NotFoundError",
        "exit_code": 3,
        "retryable": False,
        "blob": None,
        "url": "http://h/v2",
        "tries": 8,
        "elapsed_s": 2.5,
    }
    assert (misused["kind"], misused["exit_code"], misused["message"]) == ("UsageError", 2, "give HOST or --all")
    assert summary == {
        "event": "summary",
        "exit_code": 9,
        "images": 2,
        "failed": 1,
        "blobs": 1,
        "received": 5,
        "retries": 1,
        "elapsed_s": 2.5,
    }


@pytest.mark.parametrize(
    ("arguments", "variables", "json_lines"),
    [
        (["pull"], {"FASTOCI_PROGRESS": "json"}, True),
        (["pull", "--progress", "json"], {}, True),
        (["pull", "a", "--nonsense", "--progress=json"], {}, True),
        (["pull", "a", "--progress", "json", "--nonsense"], {}, True),
        (["pull", "a", "--max-wait", "5", "--progress", "json"], {}, True),
        (["pull", "a", "--max-wait", "5"], {"FASTOCI_PROGRESS": "json"}, True),
        (["pull", "a", "--max-wait", "5"], {"FASTOCI_CONFIG": "CONFIG"}, True),
        (["pull", "a", "--config", "/none", "--progress", "json"], {}, True),
        (["pull", "a", "--max-wait", "5", "--progress", "log"], {"FASTOCI_PROGRESS": "json"}, False),
        (["pull", "a", "--max-wait", "5"], {}, False),
        (["ls", "--nonsense"], {"FASTOCI_PROGRESS": "json"}, False),
        (["--nonsense", "pull", "a", "--progress", "json"], {}, True),
        (["--nonsense", "pull", "a"], {"FASTOCI_PROGRESS": "json"}, True),
        (["pulll", "a", "--progress=json"], {}, True),
        (["pulll", "a", "--progress=log"], {"FASTOCI_PROGRESS": "json"}, False),
        (["pulll", "a"], {}, False),
        (["pull", "a", "--progress"], {}, False),
    ],
)
def test_wrong_usage_is_told_as_json_wherever_json_is_asked_for(
    arguments: list[str],
    variables: dict[str, str],
    json_lines: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("progress = 'json'")
    config.chmod(0o644)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("CONFIG", str(config)))
    monkeypatch.setattr(sys, "argv", ["fastoci", *arguments])
    report = Report()
    with pytest.raises(click.UsageError) as caught:
        program.main(arguments, standalone_mode=False, obj=report)
    report.misused(caught.value)
    report.end(2)
    text = capsys.readouterr().err
    if json_lines:
        assert [(line["event"], line["exit_code"]) for line in _lines(io.StringIO(text))] == [
            ("error", 2),
            ("summary", 2),
        ]
    else:
        assert "Error: " in text
        assert "{" not in text


def test_lines_of_json_are_ascii_whatever_a_name_holds() -> None:
    text = io.StringIO()
    Json(text)(UnpackDone("h/\x1b\u202e", "/r\n", 1, 2, {"owners": 3}))
    assert text.getvalue().isascii()
    assert text.getvalue().removesuffix("\n").isprintable()
    assert _lines(text) == [
        {
            "event": "unpack_done",
            "image": "h/\x1b\u202e",
            "root": "/r\n",
            "entries": 1,
            "size": 2,
            "skipped": {"owners": 3},
            "devices": [],
        }
    ]
