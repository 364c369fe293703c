"""The program with stdin, stdout or stderr closed, full, or without a reader.

Covers: cli/standard_streams.py.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastoci.cli.standard_streams import BestEffortFile
from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve
from support.scratch import SOURCE

IMAGE = Image.build([Layer.build([Entry("file", data=b"x")])])
CLOSED = "Bad file descriptor"


@pytest.fixture
def name() -> Iterator[str]:
    with serve(Registry()) as registry:
        registry.add_image("app", "1", IMAGE)
        yield f"{registry.address}/app:1"


def shell(line: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """``$fastoci`` in a line of the shell is the program; ``$@`` are the arguments."""
    program = f'exec {sys.executable} -m fastoci "$@"'
    return subprocess.run(
        ["sh", "-c", line.replace("$fastoci", program), "sh", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        check=False,
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_a_pull_with_closed_streams_does_its_work(name: str, closed: str, tmp_path: Path) -> None:
    done = shell(f"$fastoci {closed}", "pull", name, "--store", tmp_path / "s", "--rootfs", tmp_path / "root")
    lost = ">&-" in closed.replace("2>&-", "")
    assert done.returncode == (1 if lost else 0), done.stderr
    assert (tmp_path / "root/file").read_bytes() == b"x"
    assert done.stdout == ("" if lost else f"{name.rpartition(':')[0]}@{IMAGE.descriptor.digest}\n")
    if closed == ">&-":
        assert done.stderr.splitlines()[-1] == f"fastoci: cannot write to stdout: {CLOSED}"


@pytest.mark.parametrize("closed", [">&-", "<&- 2>&-"])
def test_a_command_with_closed_streams_ends_with_1_only_for_lost_results(
    name: str, closed: str, tmp_path: Path
) -> None:
    assert shell("$fastoci", "pull", name, "--store", tmp_path / "s").returncode == 0
    results = ["ls", "df", "verify", f"inspect {name}"]
    quiet = ["gc", "repair", f"view {tmp_path}/out", f"pin {name}", f"unpin {name}", f"rm {name}"]
    for command in results + quiet:
        done = shell(f"$fastoci {closed}", *command.split(), "--store", tmp_path / "s")
        assert done.returncode == (1 if closed == ">&-" and command in results else 0), (command, done.stderr)


def test_a_full_stdout_is_1_with_the_work_done_and_each_image_pulled(name: str, tmp_path: Path) -> None:
    absent = name.replace("app", "absent")
    done = shell("$fastoci >/dev/full", "pull", name, absent, "--store", tmp_path / "s", "--progress", "none")
    assert done.returncode == 9  # the images' own outcome
    assert "fastoci: cannot write to stdout: No space left on device" in done.stderr.splitlines()
    done = shell("$fastoci >/dev/full", "pull", name, "--store", tmp_path / "s", "--progress", "none")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["fastoci: cannot write to stdout: No space left on device"]
    assert name in shell("$fastoci", "ls", "--store", tmp_path / "s").stdout


@pytest.mark.parametrize("lost", ["2>/dev/full", "2>&-"])
def test_messages_that_are_lost_change_no_exit_code(lost: str, tmp_path: Path) -> None:
    assert shell(f"$fastoci {lost}", "ls", "--store", tmp_path / "absent").returncode == 3
    assert shell(f"$fastoci {lost}", "pull").returncode == 2
    assert shell(f"$fastoci {lost}", "--debug", "info").returncode == 0


def test_a_password_on_a_closed_stdin_is_a_usage_error() -> None:
    done = shell("$fastoci <&-", "login", "127.0.0.1:9", "-u", "me", "--password-stdin")
    assert done.returncode == 2
    assert "stdin holds no password" in done.stderr


def test_a_stream_that_would_block_is_waited_for() -> None:
    """As a shell gets it from a program that made the terminal so."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    arrived: list[bytes] = []

    def read() -> None:
        with open(reading, "rb") as file:
            arrived.append(file.read())

    reader = threading.Thread(target=read)
    file = BestEffortFile(writing, "w")
    with io.BufferedWriter(file) as stream:
        reader.start()
        stream.write(b"x" * (4 << 20))
    reader.join()
    assert file.failed is None
    assert arrived == [b"x" * (4 << 20)]
