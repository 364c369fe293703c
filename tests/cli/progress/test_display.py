"""Events in, text out.

Covers: cli/progress/bars.py, cli/progress/state.py, cli/progress/stream.py, events.py.
"""

from __future__ import annotations

import io
import json
import os
import pty
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

import pytest
from rich.console import Console

from fastoci import events
from fastoci.cli.progress.bars import Bars, draw
from fastoci.cli.progress.display import Json, Log, Quiet, choose
from fastoci.cli.progress.state import ProgressState, extent
from fastoci.cli.progress.stream import BestEffortStream
from fastoci.events import (
    BlobDone,
    BlobFailed,
    BlobProgress,
    BlobStarted,
    BlobWaiting,
    CandidateSwitched,
    ConnectionLimitChanged,
    Event,
    FetchDuplicated,
    FetchResumed,
    ImageDone,
    ImageFailed,
    ImagePlanned,
    ImageStarted,
    QuotaSeen,
    Retrying,
    UnpackDone,
    UnpackProgress,
    UnpackSkipped,
    UnpackStarted,
    VerifyProgress,
    Warned,
)

NAME = "127.0.0.1:5000/library/redis:7"
MB = 1_000_000


@dataclass
class Stage:
    """A log or bars on a text, and the clock they go by."""

    now: float = 100.0
    text: io.StringIO = field(default_factory=io.StringIO)

    def clock(self) -> float:
        return self.now

    def log(self) -> Log:
        return Log(BestEffortStream(self.text), self.clock)

    def lines(self) -> list[str]:
        found = self.text.getvalue().splitlines()
        self.text.seek(0)
        self.text.truncate()
        return found


@pytest.fixture
def stage() -> Stage:
    return Stage()


def planned(name: str = NAME, *, blobs: int = 8, size: int = 40 * MB) -> ImagePlanned:
    return ImagePlanned(name, "sha256:aa", "linux/amd64", blobs + 2, size + 20 * MB, blobs, size)


def begun(*, blobs: int = 8) -> Iterator[Event]:
    yield ImageStarted(NAME)
    yield planned(blobs=blobs)


def fetched(blob: str, size: int, name: str = NAME) -> Iterator[Event]:
    yield BlobStarted(name, blob, size, 0)
    yield BlobProgress(blob, size // 2)
    yield BlobProgress(blob, size)
    yield BlobDone(blob, size)


def test_quick_work_leaves_its_summary_only(stage: Stage) -> None:
    log = stage.log()
    for event in begun(blobs=1):
        log(event)
        log.tick()
    stage.now += 0.8
    for event in fetched("sha256:1", 40 * MB):
        log(event)
        log.tick()
    stage.now += 0.1  # what follows the fetch does not make it slower
    log(ImageDone(NAME, "sha256:aa"))
    assert stage.lines() == [f"{NAME}: 40 MB in 1 blob, 0.80 s, 50 MB/s, sha256:aa"]


def test_an_image_that_is_there_says_so(stage: Stage) -> None:
    log = stage.log()
    for event in *begun(blobs=0), ImageDone(NAME, "sha256:aa"):
        log(event)
    assert stage.lines() == [f"{NAME}: nothing to fetch, sha256:aa"]


def test_slow_work_has_a_line_after_a_second_and_every_five(stage: Stage) -> None:
    log = stage.log()
    log(ImageStarted(NAME))
    stage.now += 1
    log.tick()
    assert stage.lines() == [f"{NAME}: asking the registry"]
    log(planned())
    for event in [*fetched("sha256:1", MB), *fetched("sha256:2", MB), *fetched("sha256:3", MB)]:
        log(event)
    log(BlobStarted(NAME, "sha256:4", 37 * MB, 0))
    log(BlobProgress("sha256:4", 9 * MB))
    log.tick()
    stage.now += 4.9
    log.tick()
    assert stage.lines() == []
    stage.now += 0.1
    log.tick()
    log.tick()
    assert stage.lines() == [f"{NAME}: 12 of 40 MB, 3 of 8 blobs, 2.4 MB/s"]
    stage.now += 5
    log.tick()
    assert stage.lines() == [f"{NAME}: 12 of 40 MB, 3 of 8 blobs, 0 B/s"]


def test_bytes_of_an_earlier_attempt_are_no_speed(stage: Stage) -> None:
    log = stage.log()
    for event in *begun(blobs=1), BlobStarted(NAME, "sha256:1", 40 * MB, 30 * MB):
        log(event)
    stage.now += 1
    log.tick()
    assert stage.lines() == [f"{NAME}: 30 of 40 MB, 0 of 1 blob, 0 B/s"]


def test_a_blob_that_failed_counts_for_nothing(stage: Stage) -> None:
    log = stage.log()
    log(ImageStarted(NAME))
    log(planned(blobs=1))
    log(BlobStarted(NAME, "sha256:1", 40 * MB, 10 * MB))
    log(BlobProgress("sha256:1", 20 * MB))
    log(BlobFailed("sha256:1", "cut"))
    stage.now += 1
    log.tick()
    assert stage.lines() == [f"{NAME}: 0 B of 40 MB, 0 of 1 blob, 0 B/s"]
    log(ImageFailed(NAME, "cut"))
    stage.now += 9
    log.tick()
    assert stage.lines() == []


def test_unpacking_is_told_beside_the_fetch_and_sums_up_what_was_not_applied(stage: Stage) -> None:
    log = stage.log()
    log(ImageStarted(NAME))
    log(planned())
    log(UnpackStarted(NAME, "/r", 8, 60 * MB))
    stage.now += 1
    log(UnpackProgress(NAME, 2, 9 * MB, 1234))
    log.tick()
    assert stage.lines() == [f"{NAME}: 0 B of 40 MB, 0 of 8 blobs, 0 B/s, unpacking 9.0 of 60 MB, 2 of 8 layers"]
    log(UnpackDone(NAME, "/r", 22_000, 950 * MB, {"owners": 3, "devices": 0}))
    assert stage.lines() == [f"{NAME}: 22000 entries, 950 MB unpacked into /r; not applied: 3 owners"]


def test_layers_of_no_image_are_told_too(stage: Stage) -> None:
    log = stage.log()
    log(UnpackStarted("/d", "/d", 2, 0))
    stage.now += 1
    log(UnpackProgress("/d", 0, 5 * MB, 7))
    log.tick()
    log(UnpackDone("/d", "/d", 9, 6 * MB, {}))
    stage.now += 10
    log.tick()
    assert stage.lines() == ["/d: unpacking 5.0 MB, 0 of 2 layers", "/d: 9 entries, 6.0 MB unpacked into /d"]


def test_a_tree_that_is_there_is_told_with_what_was_not_checked(stage: Stage) -> None:
    log = stage.log()
    log(UnpackSkipped(NAME, "/r", "sha256:aa"))
    assert stage.lines() == [f"{NAME}: nothing to unpack, /r holds this image already (its files were not looked at)"]


def test_many_images_share_one_line(stage: Stage) -> None:
    log = stage.log()
    names = [f"h/image{number}" for number in range(30)]
    for name in names:
        log(ImageStarted(name))
        log(planned(name, blobs=1))
    for event in [*fetched("sha256:1", 40 * MB, names[0]), ImageDone(names[0], "sha256:aa")]:
        log(event)
    stage.lines()
    stage.now += 2
    log.tick()
    log.tick()
    assert stage.lines() == ["1 of 30 images, 40 MB of 1.2 GB, 20 MB/s"]


def test_warnings_are_shown_even_by_none(stage: Stage) -> None:
    warning = Warned("h/x", "odd\x1b[2J")
    Quiet(BestEffortStream(stage.text))(warning)
    Quiet(BestEffortStream(stage.text))(ImageStarted("h/x"))
    log = stage.log()
    log(warning)
    log(Warned("", "odd"))
    stage.now += 10
    log.tick()
    assert stage.lines() == ["h/x: warning: odd\\x1b[2J"] * 2 + ["warning: odd"]


def test_json_is_one_object_an_event(stage: Stage) -> None:
    show = Json(BestEffortStream(stage.text))
    show(BlobDone("sha256:1", 5))
    show(UnpackDone("h/\x1b\u202e", "/r\n", 1, 2, {"owners": 3}))
    lines = stage.lines()
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert [json.loads(line) for line in lines] == [
        {"event": "blob_done", "blob": "sha256:1", "size": 5},
        {
            "event": "unpack_done",
            "image": "h/\x1b\u202e",
            "root": "/r\n",
            "entries": 1,
            "size": 2,
            "skipped": {"owners": 3},
        },
    ]


def test_what_images_share_counts_once_in_the_end() -> None:
    state = ProgressState()
    for event in (
        planned("h/a"),
        planned("h/b"),
        *fetched("sha256:1", 40 * MB, "h/a"),
        *fetched("sha256:2", MB, "h/b"),
    ):
        state.see(event, 0)
    assert extent(state) == (41 * MB, 80 * MB)
    for name in ("h/a", "h/b"):
        state.see(ImageDone(name, "sha256:aa"), 1)
    assert extent(state) == (41 * MB, 41 * MB)


def test_a_manifest_is_no_blob_of_the_plan(stage: Stage) -> None:
    log = stage.log()
    for event in *begun(blobs=0), *fetched("sha256:aa", 900), ImageDone(NAME, "sha256:aa"):
        log(event)
    assert stage.lines() == [f"{NAME}: nothing to fetch, sha256:aa"]


def _drawn(state: ProgressState, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(draw(state))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_127_layers_fit_a_small_terminal() -> None:
    state = ProgressState()
    state.see(ImageStarted(NAME), 0)
    state.see(planned(blobs=127), 0)
    for number in range(127):
        state.see(BlobStarted(NAME, f"sha256:{number:064x}", MB, 0), 0)
    drawn = _drawn(state)
    assert len(drawn.splitlines()) < 20
    assert "redis:7 " in drawn
    assert "0 of 127 blobs" in drawn


def test_the_row_of_a_layer_goes_when_it_is_done() -> None:
    state = ProgressState()
    for event in *begun(), BlobStarted(NAME, "sha256:123456789abcdef", 4 * MB, MB):
        state.see(event, 0)
    assert "123456789abc " in _drawn(state)
    assert "1.0 of 4.0 MB" in _drawn(state)
    state.see(BlobDone("sha256:123456789abcdef", 4 * MB), 1)
    assert "123456789abc" not in _drawn(state)
    assert "4.0 of 40 MB" in _drawn(state)


def test_files_have_a_row_beside_the_fetch_and_then_the_only_one() -> None:
    state = ProgressState()
    for event in *begun(blobs=1), UnpackStarted(NAME, "/r", 8, 60 * MB), UnpackProgress(NAME, 2, 9 * MB, 1234):
        state.see(event, 0)
    rows = _drawn(state).splitlines()
    assert [rows[0].split()[0], rows[1].split()[0]] == ["redis:7", "files"]
    assert "unpacking 9.0 of 60 MB, 2 of 8 layers" in rows[1]
    for event in fetched("sha256:1", 40 * MB):
        state.see(event, 1)
    assert [row.split()[0] for row in _drawn(state).splitlines()] == ["redis:7"]


def test_many_images_have_few_rows_and_one_for_all() -> None:
    state = ProgressState()
    for number in range(50):
        state.see(ImageStarted(f"h/image{number}"), 0)
    lines = _drawn(state).splitlines()
    assert len(lines) < 10
    assert "0 of 50 images" in lines[-1]


def test_names_in_bars_are_no_markup_and_no_escapes() -> None:
    state = ProgressState()
    state.see(ImageStarted("h/[bold red]x[bold]\x1b[2J"), 0)
    assert "[bold red]x[bold]\\x1b[2J" in _drawn(state)


def test_bars_appear_after_a_second_and_leave_the_summary(stage: Stage) -> None:
    bars = Bars(BestEffortStream(stage.text), stage.clock)
    bars(ImageStarted(NAME))
    bars.tick()
    assert stage.lines() == []
    stage.now += 1
    bars(planned(blobs=1))
    bars.tick()
    assert "redis:7 " in stage.text.getvalue()
    stage.lines()
    for event in [*fetched("sha256:1", 40 * MB), ImageDone(NAME, "sha256:aa"), Warned(NAME, "[red]odd")]:
        bars(event)
    bars.close()
    text = stage.text.getvalue()
    assert f"{NAME}: 40 MB in 1 blob, 1.00 s, 40 MB/s, sha256:aa\n" in text
    assert f"{NAME}: warning: [red]odd\n" in text


@pytest.mark.parametrize(
    ("remaining", "limit", "text"),
    [(10, 100, "hub: 10 of 100 requests left in 21600 s\n"), (11, 100, ""), (0, None, "hub: 0 requests left")],
)
def test_a_quota_is_told_when_it_runs_out(stage: Stage, remaining: int, limit: int | None, text: str) -> None:
    Log(BestEffortStream(stage.text), stage.clock)(QuotaSeen("hub", remaining, limit, 21600))
    assert stage.text.getvalue().startswith(text)
    assert bool(stage.text.getvalue()) is bool(text)


RETRYING = Retrying(NAME, "sha256:1", "https://hub.test/v2", "503 Service Unavailable", 2, 8, 4.0)


def test_a_log_has_a_line_for_each_trouble_and_none_for_connections(stage: Stage) -> None:
    log = stage.log()
    for event in *begun(), RETRYING, ConnectionLimitChanged("https://hub.test", 2, 1, "faster"):
        log(event)
    assert stage.lines() == [f"{NAME}: 503 Service Unavailable, try 3 of 8 in 4 s (https://hub.test/v2, 1)"]


@pytest.mark.parametrize(
    "progress",
    [BlobProgress("sha256:1", 2 * MB), BlobDone("sha256:1", 4 * MB), ImageFailed(NAME, "no"), ImageDone(NAME, "x")],
)
def test_a_note_stands_beside_the_image_in_trouble_until_there_is_progress(progress: Event) -> None:
    state = ProgressState()
    for event in (
        *begun(),
        BlobStarted(NAME, "sha256:1", 4 * MB, MB),
        BlobStarted(NAME, "sha256:2", 4 * MB, 0),
        RETRYING,
    ):
        state.see(event, 0)
    state.see(BlobProgress("sha256:2", 2 * MB), 0)  # of another blob
    assert "503 Service Unavailable, try 3 of 8 in 4 s" in _drawn(state)
    state.see(progress, 1)
    assert "503" not in _drawn(state)


def test_the_note_of_a_name_goes_when_it_is_resolved(stage: Stage) -> None:
    state = ProgressState()
    for event in ImageStarted(NAME), Retrying(NAME, "", "https://hub.test/v2", "a timeout", 1, 3, 0.5):
        state.see(event, 0)
    assert "a timeout, try 2 of 3 in 0.5 s" in _drawn(state)
    state.see(planned(), 1)
    assert "a timeout" not in _drawn(state)


def test_trouble_leaves_no_line_above_the_bars(stage: Stage) -> None:
    bars = Bars(BestEffortStream(stage.text), stage.clock)
    for event in *begun(), RETRYING:
        bars(event)
    assert stage.lines() == []


def test_trouble_is_an_object_of_json(stage: Stage) -> None:
    Json(BestEffortStream(stage.text))(RETRYING)
    assert json.loads(stage.lines()[0]) == {
        "event": "retrying",
        "image": NAME,
        "blob": "sha256:1",
        "server": "https://hub.test/v2",
        "cause": "503 Service Unavailable",
        "attempt": 2,
        "attempts": 8,
        "wait_s": 4.0,
    }


def test_every_event_is_taken_by_every_display(stage: Stage) -> None:
    every: list[Event] = [
        ImageStarted(NAME),
        planned(),
        *fetched("sha256:1", MB),
        BlobFailed("sha256:2", "cut"),
        BlobWaiting(NAME, "sha256:3", MB),
        UnpackStarted(NAME, "/r", 1, MB),
        UnpackProgress(NAME, 0, 5, 1),
        UnpackDone(NAME, "/r", 1, 5, {}),
        UnpackSkipped(NAME, "/r", "sha256:aa"),
        ImageDone(NAME, "sha256:aa"),
        ImageFailed(NAME, "no"),
        QuotaSeen("registry.test", 3, 100, 21600),
        Retrying(NAME, "sha256:1", "https://mirror.test/v2", "503 Service Unavailable", 1, 8, 0.2),
        CandidateSwitched(NAME, "sha256:1", "https://mirror.test/v2", "https://hub.test/v2", "slow at 5 bytes/s"),
        ConnectionLimitChanged("https://mirror.test", 2, 1, "faster"),
        FetchResumed(NAME, "sha256:1", "https://mirror.test/v2", MB, "the body ended early"),
        FetchDuplicated(NAME, "sha256:1", "https://mirror.test/v2", 0, MB, "wrong bytes"),
        VerifyProgress(3, MB),
        Warned(NAME, "odd"),
    ]
    assert {type(event) for event in every} == set(events.Event.__args__)
    for mode in ("bar", "log", "json", "none"):
        display = choose(mode, stage.text)
        for event in every:
            display(event)
            display.tick()
        display.close()


class Broken(io.StringIO):
    """A pipe whose reader is gone."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_stderr_that_nobody_reads_stops_nothing() -> None:
    log = Log(BestEffortStream(Broken()))
    log(Warned(NAME, "odd"))


@pytest.fixture
def terminal() -> Iterator[TextIO]:
    ours, theirs = pty.openpty()
    with open(theirs, "w") as stream:
        yield stream
    os.close(ours)


@pytest.mark.parametrize("without", [{"NO_COLOR": "1"}, {"CI": "true"}, {"TERM": "dumb"}])
def test_auto_is_bars_on_a_capable_terminal_only(terminal: TextIO, stage: Stage, without: dict[str, str]) -> None:
    assert isinstance(choose("auto", terminal, {"TERM": "xterm"}), Bars)
    assert isinstance(choose("auto", terminal, {"TERM": "xterm", **without}), Log)
    assert isinstance(choose("auto", stage.text, {"TERM": "xterm"}), Log)
