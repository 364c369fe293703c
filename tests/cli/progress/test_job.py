"""What is shown of jobs of many images: real ones, at each event; few lines, that stay where they are.

Covers: cli/progress/state.py, cli/progress/rows.py, cli/progress/lines.py, cli/prefetch_observer.py.
"""

from __future__ import annotations

import io
import os
import pty
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TextIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from conftest import Cli
from fastoci import Engine, PrefetchRequest
from fastoci.cli.prefetch_observer import PrefetchObserver
from fastoci.cli.progress.bars import Bars
from fastoci.cli.progress.display import Lines, Log
from fastoci.cli.progress.rows import Places, Rows
from fastoci.cli.progress.state import ProgressState
from fastoci.cli.report import Report
from fastoci.events import (
    BlobDone,
    BlobProgress,
    BlobStarted,
    Event,
    ImageDone,
    ImageFailed,
    ImagePlanned,
    ImageResolved,
    ImageStarted,
    JobDone,
    JobPlanned,
    JobStarted,
    Retrying,
    UnpackDone,
)
from fastoci.testing.registry import Registry, serve
from support.images import image_of, made

MB = 1_000_000
COUNT = 40
BASE = made(1, files=2, size=400_000)
APPS = [image_of(BASE, made(10 + number, files=1, size=2_000 * (number + 1))) for number in range(COUNT)]
BROKEN = 5


def filled(registry: Registry) -> Registry:
    """Forty images over one base; a layer of one is not there."""
    for number, image in enumerate(APPS):
        registry.add_image("app", str(number), image)
    registry.remove_blob(str(APPS[BROKEN].layers[1].descriptor.digest))
    return registry


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with filled(Registry()) as registry:
        yield registry


def names(registry: Registry) -> list[str]:
    return [*(f"{registry.address}/app:{number}" for number in range(COUNT)), f"{registry.address}/app:absent"]


async def prefetched(registry: Registry, store: Path) -> list[Event]:
    """The events of a job of forty images, one of which is not there, and one broken."""
    told: list[Event] = []
    async with Engine(store, observer=told.append) as engine:
        await engine.prefetch([PrefetchRequest(name) for name in names(registry)])
    return told


async def test_what_is_said_of_a_job_is_true_at_each_event(registry: Registry, tmp_path: Path) -> None:
    state, done, failed = ProgressState(), 0, 0
    size = None
    for event in await prefetched(registry, tmp_path):
        state.see(event, 1.0)
        done += isinstance(event, ImageDone)
        failed += isinstance(event, ImageFailed)
        assert (state.ready, state.failed, state.number) == (done, failed, COUNT + 1)
        if isinstance(event, JobPlanned):
            size = event.size
            assert state.missing == event.blobs
            assert state.job is not None
            assert state.job.resolved == event.images == COUNT
        if size is not None and failed == 1:  # the one that is not there lacks nothing
            assert state.extent()[1] == size
        assert state.extent()[0] <= state.extent()[1]
    assert state.extent() == (size, size) or failed == 2
    assert state.extent()[0] == state.extent()[1]
    assert (state.missing, state.active(), state.flying(), state.busy) == (0, [], [], {})


def drawn(rows: Rows) -> list[str]:
    console = rows.console
    assert isinstance(console.file, io.StringIO)
    console.file.seek(0)
    console.file.truncate()
    console.print(rows, end="")
    return re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue()).splitlines()


def screen(state: ProgressState, width: int, height: int) -> Rows:
    return Rows(state, Console(file=io.StringIO(), width=width, height=height, force_terminal=True, _environ={}))


@pytest.mark.parametrize(("width", "height"), [(60, 24), (20, 3), (200, 50)])
async def test_rows_never_leave_the_terminal_whatever_happens(
    registry: Registry, tmp_path: Path, width: int, height: int
) -> None:
    state = ProgressState()
    rows, most = screen(state, width, height), 0
    for number, event in enumerate(await prefetched(registry, tmp_path)):
        state.see(event, number / 2)  # so slow that much of it lasts
        if number % 5 == 0:
            state.measure(number / 2)
            lines = drawn(rows)
            assert len(lines) < height
            assert max(map(cell_len, lines)) <= width
            most = max(most, len(lines))
    assert most > 1


def wide_job(images: int, flying: int, *, begins: float = 0.0) -> ProgressState:
    """A job with so many images, and so many blobs in flight, each of another image and larger than the one before."""
    state = ProgressState()
    state.see(JobStarted(images), begins)
    for number in range(images):
        state.see(ImageStarted(f"h/app:{number}"), begins)
        state.see(ImageResolved(f"h/app:{number}", "sha256:aa"), begins)
    for number in range(images):
        missing = {f"sha256:{number:012}": MB * (number + 1), f"sha256:f{number:011}": MB}
        state.see(ImagePlanned(f"h/app:{number}", "sha256:aa", "", 2, sum(missing.values()), missing), begins)
    state.see(JobPlanned(images, 2 * images, 0), begins)
    for number in range(flying):
        state.see(BlobStarted(f"h/app:{number}", f"sha256:{number:012}", MB * (number + 1), 0), begins)
    return state


def test_only_what_lasts_has_a_row_and_of_blobs_the_largest() -> None:
    state = wide_job(100, 30)
    rows = screen(state, 100, 24)
    state.measure(0.9)
    assert len(drawn(rows)) == 1
    state.measure(1.0)
    first, *others = [line.split()[0] for line in drawn(rows)]
    assert first == "0"
    assert others == [f"app:{number}" for number in range(6)] + [f"{number:012}" for number in range(29, 21, -1)]


def test_a_row_keeps_its_place_when_others_come_and_go() -> None:
    state = wide_job(100, 30)
    rows = screen(state, 100, 24)
    state.measure(1.0)
    before = [line.split()[0] for line in drawn(rows)]
    state.see(ImageDone("h/app:2", "sha256:aa"), 2.0)
    state.see(ImageFailed("h/app:4", "no", "NotFoundError", 3), 2.0)
    after = [line.split()[0] for line in drawn(rows)]
    assert [after[at] for at in (3, 5)] == ["app:6", "app:7"]
    assert [each for at, each in enumerate(after) if at not in (3, 5)][1:] == [
        each for at, each in enumerate(before) if at not in (3, 5)
    ][1:]


def test_places_close_up_when_nothing_comes() -> None:
    places = Places()
    assert places.take(dict.fromkeys("abc", 1)) == [1, 1, 1]
    assert places.take({"c": 3, "a": 1, "d": 4}) == [1, 4, 3]
    assert places.take({"c": 3}) == [3]


def test_an_image_that_waits_for_its_turn_again_loses_its_row_after_a_while() -> None:
    state = wide_job(20, 1)
    rows = screen(state, 100, 24)
    state.measure(1.0)
    assert "app:0" in drawn(rows)[1]
    state.see(BlobProgress("sha256:000000000000", MB), 2.0)
    state.see(BlobDone("sha256:000000000000", MB), 2.0)
    state.measure(2.5)
    assert "app:0" in drawn(rows)[1]
    state.measure(3.0)
    assert len(drawn(rows)) == 1


def test_the_time_left_is_that_of_blobs_when_they_are_small() -> None:
    state = ProgressState()
    state.see(JobStarted(1), 0.0)
    missing = {f"sha256:{number}": 100 for number in range(100)} | {"sha256:big": 10 * MB}
    state.see(ImagePlanned("h/a", "sha256:aa", "", 101, 0, missing), 0.0)
    state.see(JobPlanned(1, 101, 0), 0.0)
    for blob in ["sha256:big", *list(missing)[:9]]:
        state.see(BlobStarted("h/a", blob, missing[blob], 0), 0.0)
        state.see(BlobDone(blob, missing[blob]), 1.0)
    state.measure(1.0)
    assert state.left_s() == pytest.approx(9.1)  # 91 blobs, 10 a second


class Stage:
    """A clock and what was written."""

    def __init__(self) -> None:
        self.now = 0.0
        self.text = io.StringIO()

    def lines(self) -> list[str]:
        found = self.text.getvalue().splitlines()
        self.text.seek(0)
        self.text.truncate()
        return found


def test_a_log_of_a_large_job_has_a_line_now_and_then_and_one_of_its_end() -> None:
    stage = Stage()
    log = Log(stage.text, lambda: stage.now)
    log(JobStarted(1000))
    for number in range(400):
        log(ImageStarted(f"h/app:{number}"))
        log(ImageResolved(f"h/app:{number}", "sha256:aa"))
    log(ImageFailed("h/odd", "no", "NotFoundError", 3))
    for _ in range(30):
        stage.now += 0.2
        log.tick()
    assert stage.lines() == ["401 of 1000 names followed, 1 failed"] * 2
    log(ImagePlanned("h/app:0", "sha256:aa", "", 1, MB, {"sha256:1": 2 * MB}))
    log(JobPlanned(999, 1, 2 * MB))
    log(BlobStarted("h/app:0", "sha256:1", 2 * MB, 0))
    log(BlobProgress("sha256:1", MB))
    log(ImageDone("h/app:1", "sha256:aa"))
    log(UnpackDone("h/app:1", "/r", 5, 5, {}))
    for attempt in (1, 2, 3):
        log(Retrying("h/app:0", "sha256:1", "https://h/v2", "503 Service Unavailable", attempt, 8, 4.0))
    stage.now += 5
    log.tick()
    assert stage.lines() == [
        "1 of 1000 images, 1 failed, 1.0 of 2.0 MB, 122.0 kB/s, 8 s left",
        "h/app:0: 503 Service Unavailable, try 4 of 8 in 4 s (https://h/v2, 1); 2 more of the kind",
    ]
    log(JobDone(700, 298, 1, 1))
    log.tick()
    assert stage.lines() == ["1000 images: 298 fetched, 700 present, 1 failed, 1 skipped; nothing fetched"]


def test_an_image_of_a_large_job_leaves_no_line_above_the_bars() -> None:
    stage = Stage()
    bars = Bars(stage.text, lambda: stage.now)
    bars(JobStarted(9))
    for number in range(9):
        bars(ImageStarted(f"h/app:{number}"))
        bars(ImageDone(f"h/app:{number}", "sha256:aa"))
    assert stage.lines() == []
    bars(JobDone(9, 0, 0, 0))
    assert stage.lines() == ["9 images: 9 present; nothing fetched"]


def test_a_second_job_begins_at_nothing_and_keeps_the_sums_of_the_program() -> None:
    state = ProgressState()
    for _ in range(2):
        state.see(JobStarted(1), 0.0)
        state.see(ImagePlanned("h/a", "sha256:aa", "", 1, MB, {"sha256:1": MB}), 0.0)
        state.see(JobPlanned(1, 1, MB), 0.0)
        assert (state.extent(), state.missing) == ((0, MB), 1)
        state.see(BlobStarted("h/a", "sha256:1", MB, 0), 0.0)
        state.see(BlobDone("sha256:1", MB), 0.0)
        state.see(ImageFailed("h/a", "no", "NotFoundError", 3), 0.0)
        state.see(JobDone(0, 0, 1, 0), 0.0)
        assert (state.failed, len(state.blobs)) == (1, 1)
    assert (state.received, state.came) == (2 * MB, 2)


@pytest.fixture
def terminal() -> Iterator[TextIO]:
    ours, theirs = pty.openpty()
    with open(theirs, "w") as stream:
        yield stream
    os.close(ours)


@pytest.mark.parametrize(("images", "told"), [(8, 1), (9, 0)], ids=["few", "many"])
def test_images_of_a_large_job_do_not_scroll_a_terminal(
    terminal: TextIO, monkeypatch: pytest.MonkeyPatch, images: int, told: int
) -> None:
    class Watched(Report):
        def __init__(self) -> None:
            super().__init__()
            self.results: list[str] = []

        def result(self, text: str) -> None:
            self.results.append(text)

    monkeypatch.setattr(sys, "stdout", terminal)
    report = Watched()
    requests = [PrefetchRequest(f"h/app:{number}") for number in range(images)]
    observe = PrefetchObserver((), report, requests, {})
    observe(ImageDone("h/app:0", "sha256:aa"))
    assert len(report.results) == told
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    PrefetchObserver((), report, requests, {})(ImageDone("h/app:0", "sha256:aa"))
    assert len(report.results) == told + 1


def test_a_failure_is_told_when_it_happens_with_its_place_in_the_list() -> None:
    stage = Stage()
    display, report = Lines(stage.text), Report()
    report.show_on(display)
    requests = [PrefetchRequest("h/app:0", origin="a.txt:3"), PrefetchRequest("h/app:0", origin="a.txt:9")]
    observe = PrefetchObserver([display], report, requests, {})
    observe(ImageFailed("h/app:0", "h/app:0: no such\x1b image", "NotFoundError", 3))
    observe(ImageFailed("h/app:1", "h/app:0 failed first", "skipped", None))
    assert stage.lines() == ["fastoci: h/app:0 (a.txt:3, a.txt:9): no such\\x1b image"]
    assert observe.failed == {"h/app:0"}


def test_a_large_job_writes_few_lines_and_each_failure_once(cli: Cli, tmp_path: Path) -> None:
    with serve(filled(Registry())) as registry:
        done = cli("prefetch", *names(registry), "NOT A NAME", "--store", tmp_path)
    assert done.returncode == 9
    assert len(done.stdout.splitlines()) == COUNT - 1
    lines = done.stderr.splitlines()
    failures = [line for line in lines if re.match("fastoci: (?!hint)", line)]
    assert sorted(line.split(": ")[1].rpartition("/")[2] for line in failures) == ["NOT A NAME", "app:5", "app:absent"]
    assert sum("404 MANIFEST_UNKNOWN" in line for line in lines) == 1
    (last,) = [line for line in lines if "images: " in line]
    assert last.startswith("42 images: 39 fetched, 3 failed; ")
    assert len(lines) <= 8
