"""Events in, text out.

Covers: cli/progress/bars.py, cli/progress/lines.py, cli/progress/rows.py, events.py.
"""

from __future__ import annotations

import io
import os
import pty
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

import pytest
from rich.console import Console

from fastoci import events
from fastoci.cli.progress.bars import Bars
from fastoci.cli.progress.display import Lines, Log, choose
from fastoci.cli.progress.rows import Rows
from fastoci.cli.progress.state import ProgressState
from fastoci.events import (
    BlobDone,
    BlobFailed,
    BlobProgress,
    BlobReceived,
    BlobStarted,
    BlobWaiting,
    CandidateSwitched,
    ConnectionLimitChanged,
    Event,
    FetchDuplicated,
    FetchResumed,
    FirstByteAwaited,
    ImageDone,
    ImageFailed,
    ImagePlanned,
    ImageRecorded,
    ImageResolved,
    ImageStarted,
    JobDone,
    JobPlanned,
    JobStarted,
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
        return Log(self.text, self.clock)

    def lines(self) -> list[str]:
        found = self.text.getvalue().splitlines()
        self.text.seek(0)
        self.text.truncate()
        return found


@pytest.fixture
def stage() -> Stage:
    return Stage()


EIGHT = {"sha256:1": MB, "sha256:2": MB, "sha256:3": MB, "sha256:4": 37 * MB, **{f"sha256:{n}": 0 for n in range(5, 9)}}
ONE = {"sha256:1": 40 * MB}


def planned(name: str = NAME, missing: dict[str, int] = EIGHT) -> ImagePlanned:
    return ImagePlanned(name, "sha256:aa", "linux/amd64", len(missing) + 2, sum(missing.values()) + 20 * MB, missing)


def begun(missing: dict[str, int] = EIGHT) -> Iterator[Event]:
    yield ImageStarted(NAME)
    yield planned(missing=missing)


def fetched(blob: str, size: int, name: str = NAME) -> Iterator[Event]:
    yield BlobStarted(name, blob, size, 0)
    yield BlobProgress(blob, size // 2)
    yield BlobProgress(blob, size)
    yield BlobDone(blob, size)


def test_quick_work_leaves_its_summary_only(stage: Stage) -> None:
    log = stage.log()
    for event in begun(ONE):
        log(event)
        log.tick()
    stage.now += 0.8
    for event in fetched("sha256:1", 40 * MB):
        log(event)
        log.tick()
    stage.now += 0.1  # what follows the fetch does not make it slower
    log(ImageDone(NAME, "sha256:aa"))
    assert stage.lines() == [f"{NAME}: 40.0 MB in 1 blob, 0.80 s, 50.0 MB/s, sha256:aa"]


def test_an_image_that_is_there_says_so(stage: Stage) -> None:
    log = stage.log()
    for event in *begun({}), ImageDone(NAME, "sha256:aa"):
        log(event)
    assert stage.lines() == [f"{NAME}: all of it is there, sha256:aa"]


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
    assert stage.lines() == [f"{NAME}: 12.0 of 40.0 MB, 3 of 8 blobs, 2.0 MB/s, 14 s left"]
    for _ in range(10):
        stage.now += 0.5
        log.tick()
    assert stage.lines() == [f"{NAME}: 12.0 of 40.0 MB, 3 of 8 blobs, 0 bytes/s"]


def test_bytes_of_an_earlier_attempt_are_no_speed(stage: Stage) -> None:
    log = stage.log()
    for event in *begun(ONE), BlobStarted(NAME, "sha256:1", 40 * MB, 30 * MB):
        log(event)
    stage.now += 1
    log.tick()
    assert stage.lines() == [f"{NAME}: 30.0 of 40.0 MB, 0 of 1 blob, 0 bytes/s"]


def test_a_blob_that_failed_counts_for_nothing(stage: Stage) -> None:
    log = stage.log()
    log(ImageStarted(NAME))
    log(planned(missing=ONE))
    log(BlobStarted(NAME, "sha256:1", 40 * MB, 10 * MB))
    log(BlobProgress("sha256:1", 20 * MB))
    log(BlobFailed("sha256:1", "cut", "TruncatedError", 5))
    stage.now += 1
    log.tick()
    assert stage.lines() == [f"{NAME}: 0 bytes of 40.0 MB, 0 of 1 blob, 0 bytes/s"]
    log(ImageFailed(NAME, "cut", "TruncatedError", 5))
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
    assert stage.lines() == [
        f"{NAME}: 0 bytes of 40.0 MB, 0 of 8 blobs, 0 bytes/s, unpacking 9.0 of 60.0 MB, 2 of 8 layers"
    ]
    log(UnpackDone(NAME, "/r", 22_000, 950 * MB, {"owners": 3, "xattrs": 0, "devices": 1}))
    assert stage.lines() == [f"{NAME}: 22000 entries, 950.0 MB unpacked into /r; not applied: 3 owners, 1 device"]


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


def test_many_images_share_one_line_that_counts_each_blob_once(stage: Stage) -> None:
    log = stage.log()
    names = [f"h/image{number}" for number in range(30)]
    base = {"sha256:base": 40 * MB}
    for number, name in enumerate(names):
        log(ImageStarted(name))
        log(planned(name, base | {f"sha256:{number}": MB // 3}))
    for event in [*fetched("sha256:base", 40 * MB, names[0]), *fetched("sha256:0", MB // 3, names[0])]:
        log(event)
    log(ImageDone(names[0], "sha256:aa"))
    stage.lines()
    stage.now += 2
    log.tick()
    log.tick()
    assert stage.lines() == ["1 of 30 images, 40.3 of 50.0 MB, 20.2 MB/s, 29 s left"]  # of 29 blobs, by blobs


def test_warnings_are_shown_even_by_none(stage: Stage) -> None:
    warning = Warned("h/x", "odd\x1b[2J")
    Lines(stage.text)(warning)
    Lines(stage.text)(ImageStarted("h/x"))
    log = stage.log()
    log(warning)
    log(Warned("", "odd"))
    stage.now += 10
    log.tick()
    assert stage.lines() == ["h/x: warning: odd\\x1b[2J"] * 2 + ["warning: odd"]


def test_a_manifest_is_no_blob_of_the_plan(stage: Stage) -> None:
    log = stage.log()
    for event in *begun({}), *fetched("sha256:aa", 900), ImageDone(NAME, "sha256:aa"):
        log(event)
    assert stage.lines() == [f"{NAME}: all of it is there, sha256:aa"]


def _drawn(state: ProgressState, width: int = 120, **environ: str) -> str:
    if state.now < 1:
        state.measure(1)  # what is to be seen has lasted for a while
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=True,
        color_system="standard",
        _environ={"TERM": "xterm", **environ},
    )
    console.print(Rows(state, console))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _rows(state: ProgressState, width: int = 120) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", _drawn(state, width)).splitlines()


def test_127_layers_fit_a_small_terminal() -> None:
    state = ProgressState()
    state.see(ImageStarted(NAME), 0)
    state.see(planned(missing={f"sha256:{number:064x}": MB for number in range(127)}), 0)
    for number in range(127):
        state.see(BlobStarted(NAME, f"sha256:{number:064x}", MB, 0), 0)
    rows = _rows(state, 80)
    assert len(rows) < 20
    assert rows[0].startswith("redis:7 ")
    assert rows[0].rstrip().endswith("0/127 blobs")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_rows_use_the_width_of_the_terminal_and_no_more(width: int) -> None:
    state = ProgressState()
    for event in *begun(), BlobStarted(NAME, "sha256:4", 37 * MB, 0), BlobProgress("sha256:4", 4 * MB):
        state.see(event, 0)
    state.measure(1)
    row = _rows(state, width)[0]
    assert len(row) == width
    assert "4.0/40.0 MB" in row
    assert "4.0 MB/s 00:09" in row
    assert row.count("━") + row.count("╺") + row.count("╸") > width - 60


def test_the_row_of_a_layer_goes_when_it_is_done() -> None:
    state = ProgressState()
    blob = "sha256:123456789abcdef"
    for event in *begun({blob: 4 * MB, "sha256:2": 36 * MB}), BlobStarted(NAME, blob, 4 * MB, MB):
        state.see(event, 0)
    assert [row.split()[0] for row in _rows(state)] == ["redis:7", "123456789abc"]
    assert "1.0/4.0 MB" in _rows(state)[1]
    state.see(BlobDone(blob, 4 * MB), 1)
    (row,) = _rows(state)
    assert "4.0/40.0 MB" in row


def test_files_have_a_row_beside_the_fetch_and_then_the_only_one() -> None:
    state = ProgressState()
    for event in *begun(ONE), UnpackStarted(NAME, "/r", 8, 60 * MB), UnpackProgress(NAME, 2, 9 * MB, 1234):
        state.see(event, 0)
    rows = _rows(state)
    assert [rows[0].split()[0], rows[1].split()[0]] == ["redis:7", "files"]
    assert "9.0/60.0 MB" in rows[1]
    assert rows[1].rstrip().endswith("2 of 8 layers")
    for event in fetched("sha256:1", 40 * MB):
        state.see(event, 1)
    assert [row.split()[0] for row in _rows(state)] == ["redis:7"]


def test_many_images_have_few_rows_and_one_for_all() -> None:
    state = ProgressState()
    for number in range(50):
        state.see(ImageStarted(f"h/image{number}"), 0)
    rows = _rows(state)
    assert len(rows) < 10
    assert rows[0].startswith("0 of 50 images ")


def test_names_of_rows_differ() -> None:
    state = ProgressState()
    long = "x" * 70
    for name in "h/a/app:1", "h/b/app:1", f"h/{long}1", f"h/{long}2":
        state.see(ImageStarted(name), 0)
    names = [row.split()[0] for row in _rows(state, 60)[1:5]]
    assert names == ["a/app:1", "b/app:1", "xxxxxxxxxx…xxxxxxxx1", "xxxxxxxxxx…xxxxxxxx2"]


def test_no_color_means_no_colour() -> None:
    state = ProgressState()
    for event in *begun(), BlobStarted(NAME, "sha256:4", 37 * MB, MB):
        state.see(event, 0)
    assert re.search(r"\x1b\[[0-9;]*3[0-9]m", _drawn(state))
    assert not re.search(r"\x1b\[[0-9;]*[34][0-9]m", _drawn(state, NO_COLOR="1"))


def test_names_in_bars_are_no_markup_and_no_escapes() -> None:
    state = ProgressState()
    state.see(ImageStarted("h/[bold red]x[bold]\x1b[2J"), 0)
    assert "[bold red]x[bold]\\x1b[2J" in _drawn(state)


def test_bars_appear_after_a_second_and_leave_the_summary(stage: Stage) -> None:
    bars = Bars(stage.text, stage.clock)
    bars(ImageStarted(NAME))
    bars.tick()
    assert stage.lines() == []
    stage.now += 1
    bars(planned(missing=ONE))
    bars.tick()
    assert "redis:7 " in stage.text.getvalue()
    stage.lines()
    for event in [*fetched("sha256:1", 40 * MB), ImageDone(NAME, "sha256:aa"), Warned(NAME, "[red]odd")]:
        bars(event)
    bars.close()
    text = stage.text.getvalue()
    assert f"{NAME}: 40.0 MB in 1 blob, 1.00 s, 40.0 MB/s, sha256:aa\n" in text
    assert f"{NAME}: warning: [red]odd\n" in text


def test_results_are_written_beside_no_bars(stage: Stage) -> None:
    """stdout may be the same terminal: the bars are away, and the cursor is there, meanwhile."""
    bars = Bars(stage.text, stage.clock)
    bars(ImageStarted(NAME))
    stage.now += 1
    bars.tick()
    with bars.aside():
        shown = stage.text.getvalue()
        assert shown.endswith("\x1b[2K")  # the last row is erased
        assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
        stage.text.write("h/redis@sha256:aa\n")
    bars.tick()
    after = stage.text.getvalue().partition("h/redis@sha256:aa\n")[2]
    assert "redis:7 " in after
    bars.close()
    assert stage.text.getvalue().rindex("\x1b[?25h") > stage.text.getvalue().rindex("\x1b[?25l")


@pytest.mark.parametrize(
    ("remaining", "limit", "text"),
    [
        (10, 100, "hub: 10 of 100 requests left in 21600 s\n"),
        (11, 100, ""),
        (0, None, "hub: 0 requests left"),
        (1, 100, "hub: 1 of 100 requests left in 21600 s\n"),
    ],
)
def test_a_quota_is_told_when_it_runs_out(stage: Stage, remaining: int, limit: int | None, text: str) -> None:
    Log(stage.text, stage.clock)(QuotaSeen("hub", remaining, limit, 21600))
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
    [
        BlobProgress("sha256:1", 2 * MB),
        BlobDone("sha256:1", 4 * MB),
        ImageFailed(NAME, "no", "NotFoundError", 3),
        ImageDone(NAME, "x"),
    ],
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
    bars = Bars(stage.text, stage.clock)
    for event in *begun(), RETRYING:
        bars(event)
    assert stage.lines() == []


def test_every_event_is_taken_by_every_display(stage: Stage) -> None:
    every: list[Event] = [
        JobStarted(1),
        ImageStarted(NAME),
        ImageResolved(NAME, "sha256:aa"),
        planned(),
        JobPlanned(1, 8, 40 * MB),
        *fetched("sha256:1", MB),
        BlobFailed("sha256:2", "cut", "TruncatedError", 5),
        BlobReceived("sha256:3", 5),
        BlobWaiting(NAME, "sha256:3", MB),
        UnpackStarted(NAME, "/r", 1, MB),
        UnpackProgress(NAME, 0, 5, 1),
        UnpackDone(NAME, "/r", 1, 5, {}),
        UnpackSkipped(NAME, "/r", "sha256:aa"),
        ImageRecorded(NAME, "k8s.io", (NAME,), "sha256:aa", {"link": 3, "sent": 1}, MB, "another disk"),
        ImageDone(NAME, "sha256:aa"),
        ImageFailed(NAME, "no", "NotFoundError", 3),
        JobDone(0, 1, 0, 0),
        QuotaSeen("registry.test", 3, 100, 21600),
        Retrying(NAME, "sha256:1", "https://mirror.test/v2", "503 Service Unavailable", 1, 8, 0.2),
        FirstByteAwaited(NAME, "sha256:1", "https://mirror.test/v2", 30.0, 300.0),
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


@pytest.fixture
def terminal() -> Iterator[TextIO]:
    ours, theirs = pty.openpty()
    with open(theirs, "w") as stream:
        yield stream
    os.close(ours)


@pytest.mark.parametrize("without", [{"CI": "true"}, {"TERM": "dumb"}, {"TERM": ""}, {"TERM": "unknown"}])
def test_auto_is_bars_on_a_capable_terminal_only(terminal: TextIO, stage: Stage, without: dict[str, str]) -> None:
    assert isinstance(choose("auto", terminal, {"TERM": "xterm", "NO_COLOR": "1"}), Bars)
    assert isinstance(choose("auto", terminal, {"TERM": "xterm", **without}), Log)
    assert isinstance(choose("auto", stage.text, {"TERM": "xterm"}), Log)
