"""When runs begin, and what ends them: in virtual time."""

from __future__ import annotations

import asyncio
import io
import random
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path

import click
import pytest

from fastoci.cli.every import Every, Timetable
from fastoci.cli.progress.display import choose
from fastoci.cli.report import Report
from fastoci.cli.systemd import ServiceManager
from fastoci.errors import FastociError, StoreBusyError, StoreError
from support import virtual_time

STEPS = 200_000
Once = Callable[[], Awaitable[tuple[int, str]]]


class Scene:
    """A loop of runs in virtual time.

    Args:
        once: one run; ``starts`` has the times at which they began.
    """

    def __init__(self, every_s: float, splay_s: float = 0.0, *, once: Once | None = None, notify: str = "") -> None:
        self.starts: list[float] = []
        self.asleep_s = 0.0  # of the machine so far
        self.said = io.StringIO()
        self._once = once
        display, told = choose("none", self.said), Report()
        told.show_on(display)
        self.every = Every(
            self._run,
            Timetable(every_s, splay_s, now=self.clock(), rng=random.Random(7)),
            display=display,
            told=told,
            manager=ServiceManager({"NOTIFY_SOCKET": notify, "WATCHDOG_USEC": "2000000"}),
            clock=self.clock,
        )

    def clock(self) -> float:
        return time.monotonic() + self.asleep_s

    async def _run(self) -> tuple[int, str]:
        self.starts.append(self.clock())
        return (0, "done") if self._once is None else await self._once()

    async def during(self, seconds: float) -> list[float]:
        """The starts of the runs that begin within so much time, as seconds from now; then it ends by itself."""
        began, task = self.clock(), asyncio.create_task(self.every.run())
        await asyncio.wait([task], timeout=seconds)
        if not task.done():
            assert self.every.stop()
        assert await task == 0
        return [start - began for start in self.starts]


def test_runs_are_counted_from_start_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async def once() -> tuple[int, str]:
            await asyncio.sleep(3)
            return 0, ""

        starts = await Scene(10, once=once).during(35)
        assert starts == pytest.approx([0, 10, 20, 30], abs=0.6)

    virtual_time.run(work(), monkeypatch, steps=STEPS)


def test_a_run_that_takes_longer_is_followed_at_once_and_never_accompanied(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        running = 0

        async def once() -> tuple[int, str]:
            nonlocal running
            assert running == 0
            running += 1
            await asyncio.sleep(25)
            running -= 1
            return 0, ""

        scene = Scene(10, 10, once=once)
        task = asyncio.create_task(scene.every.run())
        await asyncio.sleep(100)
        assert len(scene.starts) >= 4
        assert [after - before for before, after in pairwise(scene.starts[:4])] == pytest.approx([25, 25, 25], abs=0.6)
        assert not scene.every.stop()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    virtual_time.run(work(), monkeypatch, steps=STEPS)


def test_a_thousand_nodes_that_boot_together_ask_all_over_the_splay() -> None:
    starts = sorted(Timetable(600, 60, now=5000, rng=random.Random(seed)).next(5000) for seed in range(1000))
    assert starts[0] >= 5000
    assert starts[-1] <= 5060
    seconds = [sum(second <= start - 5000 < second + 1 for start in starts) for second in range(60)]
    assert max(seconds) < 40  # 17 if they were even


def test_the_delay_is_drawn_anew_for_each_run_and_adds_up_to_no_drift() -> None:
    timetable, now, delays = Timetable(600, 60, now=0, rng=random.Random(1)), 0.0, []
    for number in range(144):
        begin = timetable.next(now)
        timetable.began(begin, asked=False)
        delays.append(begin - number * 600)
        now = begin + 30
    assert 0 <= min(delays) < 5
    assert 55 < max(delays) <= 60
    assert len(set(delays)) == 144


def test_a_run_that_was_asked_for_is_what_the_next_is_counted_from() -> None:
    timetable = Timetable(600, 0, now=0)
    timetable.began(timetable.next(0), asked=False)
    timetable.began(250, asked=True)
    assert timetable.next(260) == 850


def test_what_is_due_when_the_machine_wakes_comes_within_the_splay(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        scene = Scene(100, 60)
        task = asyncio.create_task(scene.every.run())
        await asyncio.sleep(65)
        assert len(scene.starts) == 1
        scene.asleep_s += 8 * 3600
        woke = scene.clock()
        await asyncio.sleep(250)
        assert woke < scene.starts[1] <= woke + 30 + 60 + 1
        assert scene.starts[1] - woke > 31  # of this seed: it was delayed
        assert 40 <= scene.starts[2] - scene.starts[1] <= 161
        assert scene.every.stop()
        await task

    virtual_time.run(work(), monkeypatch, steps=STEPS)


def test_a_hang_up_during_a_run_brings_one_more_at_once_however_many_come(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async def once() -> tuple[int, str]:
            await asyncio.sleep(5)
            return 0, ""

        scene = Scene(3600, 60, once=once)
        task = asyncio.create_task(scene.every.run())
        await asyncio.sleep(0.01)
        scene.every.reload()  # the splay of the first run is not waited for
        await asyncio.sleep(2)
        assert len(scene.starts) == 1
        for _ in range(3):
            scene.every.reload()
        await asyncio.sleep(100)
        assert [start - scene.starts[0] for start in scene.starts] == pytest.approx([0, 5], abs=0.6)
        assert scene.every.stop()
        await task

    virtual_time.run(work(), monkeypatch, steps=STEPS)


def failing(*errors: Exception | None) -> Once:
    """Runs that fail one after the other; None is one that does not."""
    left = iter(errors)

    async def once() -> tuple[int, str]:
        if (error := next(left, None)) is not None:
            raise error
        return 0, ""

    return once


def test_a_run_that_fails_is_told_and_the_next_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        errors = StoreError("the disk is gone", path="/s"), click.UsageError("list x: gone"), RuntimeError("a defect")
        scene = Scene(10, once=failing(None, *errors, None))
        assert await scene.during(55) == pytest.approx([0, 10, 20, 30, 40, 50], abs=0.6)
        said = scene.said.getvalue()
        assert [error in said for error in ("the disk is gone", "fastoci: list x: gone", "a defect")] == [True] * 3

    virtual_time.run(work(), monkeypatch, steps=STEPS)


@pytest.mark.parametrize(
    "error", [StoreError("not writable", path="/s"), click.UsageError("no such list"), FastociError("odd")]
)
def test_what_waiting_does_not_repair_ends_the_first_run_and_all(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def work() -> None:
        await Scene(10, once=failing(error)).during(25)

    with pytest.raises(type(error)):
        virtual_time.run(work(), monkeypatch, steps=STEPS)


def test_a_first_run_that_may_be_tried_again_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        scene = Scene(10, once=failing(StoreBusyError("locked", path="/s")))
        assert len(await scene.during(15)) == 2

    virtual_time.run(work(), monkeypatch, steps=STEPS)


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        yield receiver


def messages(receiver: socket.socket) -> list[str]:
    """The first line of each message that came."""
    came = []
    while True:
        try:
            came.append(receiver.recv(1000).decode().partition("\n")[0].partition(":")[0])
        except BlockingIOError:
            return came


def news(receiver: socket.socket) -> list[str]:
    """What came but for the watchdog."""
    return [each for each in messages(receiver) if each != "WATCHDOG=1"]


def test_the_service_manager_hears_of_the_end_of_the_first_run_of_reloads_and_of_the_end(
    monkeypatch: pytest.MonkeyPatch, notified: socket.socket
) -> None:
    run = "STATUS=a run is under way"

    async def work() -> None:
        async def once() -> tuple[int, str]:
            await asyncio.sleep(0.5)
            return 0, "2 images"

        scene = Scene(3600, once=once, notify=notified.getsockname())
        task = asyncio.create_task(scene.every.run())
        await asyncio.sleep(0.4)
        assert [each.split(";")[0] for each in news(notified)] == ["STATUS=the first run is to come", run]
        await asyncio.sleep(0.5)
        assert news(notified) == ["READY=1"]
        scene.every.reload()
        await asyncio.sleep(0.2)
        scene.every.reload()
        await asyncio.sleep(0.6)
        said = news(notified)
        assert said[:4] == ["RELOADING=1", run, "RELOADING=1", said[3]]
        assert said[3].startswith("STATUS=2 images")
        assert said[4:] == [run]
        await asyncio.sleep(0.5)
        assert news(notified) == ["READY=1"]
        assert scene.every.stop()
        await task
        assert news(notified) == ["STOPPING=1"]

    virtual_time.run(work(), monkeypatch, steps=STEPS)


def test_the_watchdog_is_fed_between_runs_and_not_by_a_loop_that_hangs(notified: socket.socket) -> None:
    hung: list[str] = []

    def hang() -> None:
        messages(notified)
        time.sleep(0.3)  # as a read of a file system that is gone
        hung.extend(messages(notified))

    async def work() -> None:
        async def once() -> tuple[int, str]:
            hang()
            return 0, ""

        every = Every(
            once,
            Timetable(3600, 0, now=time.monotonic()),
            display=choose("none"),
            told=Report(),
            manager=ServiceManager({"NOTIFY_SOCKET": notified.getsockname(), "WATCHDOG_USEC": "40000"}),
            clock=time.monotonic,
        )
        task = asyncio.create_task(every.run())
        await asyncio.sleep(0.5)
        assert hung == []
        assert messages(notified).count("WATCHDOG=1") >= 2
        assert every.stop()
        await task

    asyncio.run(work())
