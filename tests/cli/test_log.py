"""``--debug`` and ``--log-level``: what loggers say, on stderr, beside what is drawn there.

Covers: cli/log_options.py.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Cli
from fastoci.cli import environment, log
from fastoci.cli.main import program
from fastoci.cli.progress.bars import Bars
from fastoci.cli.progress.stream import Json
from fastoci.cli.report import Report
from fastoci.events import ImageStarted
from fastoci.testing.auth import Bearer
from fastoci.testing.registry import Registry, serve
from support.images import FIRST, image_of

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.usefixtures("log_as_before")

LINE = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ (?:DEBUG|INFO|WARNING|ERROR) (?P<logger>fastoci[.\w]*): "


@pytest.fixture
def run(cli: Cli) -> Run:
    def called(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return cli(*arguments, environ={**os.environ, **environ})

    return called


@pytest.mark.parametrize(
    ("before", "behind", "environ"),
    [
        (["--debug"], [], {}),
        ([], ["--debug"], {}),
        (["--log-level", "debug"], [], {}),
        ([], ["--log-level", "debug"], {}),
        (["--log-level", "error"], ["--debug"], {}),
        ([], [], {"FASTOCI_DEBUG": "1"}),
        ([], [], {"FASTOCI_LOG_LEVEL": "debug"}),
        (["--log-level", "error"], [], {"FASTOCI_DEBUG": "1"}),
    ],
)
def test_the_log_and_tracebacks_come_on_request(
    run: Run, tmp_path: Path, before: list[str], behind: list[str], environ: dict[str, str]
) -> None:
    done = run(*before, "ls", "--store", str(tmp_path / "absent"), *behind, **environ)
    assert done.returncode == 3
    first, *_ = done.stderr.splitlines()
    assert first.endswith("fastoci pull makes one") and " DEBUG fastoci.cli.report: " in first
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-2].startswith("fastoci: there is no store at")


@pytest.mark.parametrize("options", [[], ["--log-level", "info"], ["--log-level", "error"]])
def test_without_debug_there_is_no_traceback(run: Run, tmp_path: Path, options: list[str]) -> None:
    done = run("ls", "--store", str(tmp_path / "absent"), *options)
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["fastoci", "fastoci"]


def test_a_level_that_is_unknown_is_a_wrong_usage(run: Run) -> None:
    assert run("ls", "--log-level", "loud").returncode == 2


def test_every_command_takes_the_options_of_the_log() -> None:
    for command in (program, *environment.commands_of(program)):
        flags = {option for parameter in command.params for option in parameter.opts}
        assert {"--debug", "--log-level"} <= flags, command.name


def test_lines_of_the_log_stand_among_the_events_of_a_pull_as_json(run: Run, tmp_path: Path) -> None:
    with serve(Registry()) as registry:
        registry.add_image("app", "1", image_of(FIRST))
        store = str(tmp_path / "store")
        done = run("pull", f"{registry.address}/app:1", "--store", store, "--progress", "json", "--debug")
    assert done.returncode == 0, done.stderr
    assert {"image_started", "image_done"} <= {json.loads(line)["event"] for line in done.stderr.splitlines()}


@pytest.mark.attack
def test_every_floor_says_what_it_does_and_no_secret(run: Run, tmp_path: Path) -> None:
    with serve(Registry(Bearer("puller", "hunter2"))) as registry:
        registry.add_image("app", "1", image_of(FIRST))
        place = ("--store", str(tmp_path / "store"))
        done = run(
            *("pull", f"{registry.address}/app:1", *place, "--rootfs", str(tmp_path / "root"), "--debug"),
            FASTOCI_CREDS="puller:hunter2",
        )
        secrets = {"hunter2", base64.b64encode(b"puller:hunter2").decode(), *registry.secrets}
    assert done.returncode == 0, done.stderr
    records = [match for line in done.stderr.splitlines() if (match := re.match(LINE, line))]
    assert {
        "fastoci.engine_parts",
        "fastoci.jobs.pull",
        "fastoci.registry.http.transport",
        "fastoci.store.session",
        "fastoci.transfer.scheduler",
        "fastoci.unpack.layer",
    } <= {match["logger"] for match in records}
    assert not [secret for secret in secrets if secret in done.stderr]
    assert run("rm", f"{registry.address}/app:1", *place).returncode == 0
    assert re.search(r"fastoci\.store\.gc\.collect: .*: deleted blob sha256:", run("--debug", "gc", *place).stderr)


def test_records_have_time_level_and_logger_and_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    log.enable("info")
    logger = logging.getLogger("fastoci.registry.test")
    logger.info("GET %s", "https://h/\x1b[2J\r")
    logger.debug("not shown")
    text = capsys.readouterr().err
    assert text.endswith(" INFO fastoci.registry.test: GET https://h/\\x1b[2J\\r\n")
    assert text.isascii() and text[:-1].isprintable()


def test_of_several_levels_the_one_that_asks_for_most_counts(capsys: pytest.CaptureFixture[str]) -> None:
    for level in ("error", "debug", "warning"):
        log.enable(level)
    logging.getLogger("fastoci.x").debug("shown")
    assert "shown" in capsys.readouterr().err
    assert len(logging.getLogger("fastoci").handlers) == 1


def test_the_log_stands_above_the_bars_and_on_stderr_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    text, now = io.StringIO(), 100.0
    bars = Bars(text, lambda: now)
    logger = logging.getLogger("fastoci.store")
    with log.shown_by(bars.log):
        bars(ImageStarted("h/app:1"))
        now += 1
        bars.tick()
        thread = threading.Thread(target=logger.warning, args=("from a thread [red]",))
        thread.start()
        thread.join()
        bars.tick()
        bars.close()
        logger.warning("when the bars are gone")
    drawn = text.getvalue()
    line = drawn.index("WARNING fastoci.store: from a thread [red]\n")
    assert drawn.index("app:1 ") < line < drawn.rindex("app:1 "), "drawn again below the line"
    assert drawn.endswith("WARNING fastoci.store: when the bars are gone\n")
    assert capsys.readouterr().err == ""
    logger.warning("at the end")
    assert capsys.readouterr().err.endswith("at the end\n")


def test_a_line_of_the_log_is_an_object_among_json_lines() -> None:
    text = io.StringIO()
    Json(text).log("one\ntwo")
    line = json.loads(text.getvalue())
    assert (line["event"], line["text"]) == ("log", "one\ntwo")


def test_the_log_has_the_traceback_of_an_error_that_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    log.enable("debug")
    try:
        raise ValueError("no\x1b")
    except ValueError as error:
        Report().fail(error)
    text = capsys.readouterr().err
    assert "Traceback" in text and "ValueError: no\\x1b" in text and "\x1b" not in text
