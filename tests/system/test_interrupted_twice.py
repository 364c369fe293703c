"""A signal that comes again while the program ends, as ``timeout`` sends it: one clean end, whatever comes during it.

Covers: cli/run.py, cli/signals.py.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fastoci.testing.faults import FaultServer, Rule, Scenario, Tweak
from fastoci.testing.faults.command import Workdir
from support.scratch import SOURCE

MIB = 1 << 20
SLOW = Scenario("T", "a slow body", "", "ok", rules=(Rule("layer", Tweak(rate=4 * MIB), 1, 1),), layer=16 * MIB)
SHOW, HIDE = b"\x1b[?25h", b"\x1b[?25l"
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE), "TERM": "xterm"}
PREPARED = ["env", "--default-signal=INT,TERM", sys.executable]  # whoever runs the tests may ignore them

# The job takes no cancellation; it says so once it was asked to end.
UNWILLING = """
import asyncio, sys
from fastoci.cli.progress.display import choose
from fastoci.cli.run import run
from fastoci.events import ImageStarted

display = choose("bar")

async def work():
    display(ImageStarted("h/app:1"))
    print("begun", flush=True)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            print("asked", flush=True)

run(work(), display)
"""

# Another thread takes the signal, so that it ends no read of the main thread: as one does that comes right before it.
UNSEEN = """
import os, signal, threading, time
from fastoci.cli.signals import Signals, Stopped, seen_in_time

def take():
    time.sleep(0.1)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

Signals().catch()
threading.Thread(target=take).start()
try:
    with seen_in_time():
        os.read(os.pipe()[0], 1)
except Stopped as stopped:
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    print(stopped.number)
"""


def read_until(terminal: int, wanted: bytes) -> bytes:
    """What is shown on a terminal until ``wanted`` is, or until nobody has it open."""
    shown = b""
    with suppress(OSError):
        while wanted not in shown and (part := os.read(terminal, 4096)):
            shown += part
    return shown


@contextmanager
def started(command: Sequence[str], **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The command, running in a session of its own; killed at the end if it still does."""
    with subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True, **streams) as process:
        try:
            yield process
        finally:
            process.kill()


async def _end(process: asyncio.subprocess.Process, number: signal.Signals) -> list[str]:
    """Send the signal again and again until the process has ended; its last lines on stderr."""

    async def insist() -> None:
        for _ in itertools.count():
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)  # not by its object, which takes the exit status from asyncio
            await asyncio.sleep(0.01)

    insisting = asyncio.create_task(insist())
    _, shown = await process.communicate()
    insisting.cancel()
    return shown.decode().splitlines()


@BOTH
async def test_signals_without_end_leave_the_message_and_the_partial_blob(
    number: signal.Signals, tmp_path: Path
) -> None:
    workdir = Workdir(tmp_path / "place")
    workdir.root.mkdir()
    async with FaultServer(SLOW) as server:
        words = workdir.prepare(server)
        command = [*PREPARED, "-m", "fastoci", "pull", server.image, "--store", words["store"], "--progress", "json"]
        environment = {**workdir.environment(server), "PYTHONPATH": str(SOURCE)}

        async def start() -> asyncio.subprocess.Process:
            return await asyncio.create_subprocess_exec(
                *command, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
            )

        process = await start()
        assert process.stderr is not None
        arrived = 0
        while arrived < 2 * MIB:
            arrived = json.loads(await process.stderr.readline()).get("offset", 0)
        lines = await _end(process, number)
        assert process.returncode == 128 + number, lines
        stopped, summary = map(json.loads, lines[-2:])
        assert (stopped["event"], stopped["signal"]) == ("stopped", number.name)
        assert (summary["event"], summary["exit_code"]) == ("summary", 128 + number)
        again = await start()
        _, shown = await again.communicate()
        assert again.returncode == 0
        events = [json.loads(line) for line in shown.decode().splitlines()]
        (offset,) = [each["offset"] for each in events if each["event"] == "blob_started" and each["size"] > 8 * MIB]
        assert offset >= 2 * MIB


@BOTH
def test_the_cursor_is_back_after_two_signals(number: signal.Signals) -> None:
    willing = UNWILLING.replace('print("asked", flush=True)', "raise")
    ours, theirs = pty.openpty()
    with started([*PREPARED, "-c", willing], stderr=theirs) as process:
        os.close(theirs)
        assert HIDE in read_until(ours, HIDE)
        process.send_signal(number)
        process.send_signal(number)
        shown = read_until(ours, b"never")
    os.close(ours)
    assert SHOW in shown
    assert HIDE not in shown.partition(SHOW)[2]


def test_only_a_third_signal_after_two_seconds_kills_and_the_cursor_is_back() -> None:
    ours, theirs = pty.openpty()
    with started([*PREPARED, "-c", UNWILLING], stderr=theirs, stdout=subprocess.PIPE) as process:
        os.close(theirs)
        assert process.stdout is not None
        assert HIDE in read_until(ours, HIDE)
        assert process.stdout.readline() == b"begun\n"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"asked\n"
        while (passed := time.monotonic() - began) < 2.5:
            os.read(ours, 4096)  # it goes on drawing, five times a second
            if passed < 1.5:
                process.send_signal(signal.SIGTERM)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        shown = read_until(ours, b"never")
        assert process.wait(10) == -signal.SIGTERM
    os.close(ours)
    assert shown.rpartition(HIDE)[2].count(SHOW) == 1


@BOTH
def test_a_terminal_echoes_again_after_a_signal_at_the_prompt(number: signal.Signals, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [*PREPARED, "-m", "fastoci", "login", "127.0.0.1:9", "-u", "me", "--authfile", f"{tmp_path}/auth"]

    def echoes() -> bool:
        return bool(termios.tcgetattr(theirs)[3] & termios.ECHO)

    with started(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        read_until(ours, b"Password: ")
        assert not echoes()
        process.send_signal(number)
        process.send_signal(number)
        assert process.wait(10) == 128 + number
        assert echoes()
        os.close(theirs)
        shown = read_until(ours, b"never")
    os.close(ours)
    assert f"\r\nfastoci: stopped by {number.name}; what was finished is kept".encode() in shown


def test_a_signal_that_comes_right_before_a_read_ends_it_all_the_same() -> None:
    done = subprocess.run(
        [*PREPARED, "-c", UNSEEN], env=ENVIRONMENT, capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == f"{signal.SIGTERM}\n"
